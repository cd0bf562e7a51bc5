# SPDX-License-Identifier: Apache-2.0
"""The tables of scripts/bench/mount, and the place it ran in."""

from __future__ import annotations

from pathlib import Path

from .mounted import Column
from .rows import Results


def filesystem(place: Path) -> str:
    """The type and the device below a folder."""
    found, length = "unknown", -1
    inside = str(place.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        if (inside + "/").startswith(point.rstrip("/") + "/") and len(point) >= length:
            kind, device = after.split()[:2]
            found, length = f"{kind} on {device}", len(point)
    return found


def amount(cell: dict[str, object], who: str) -> str:
    if f"{who}_gbs" in cell:
        return f"{cell[f'{who}_gbs']:.2f} GB/s"
    return f"{cell[f'{who}_s'] * 1000:.1f} ms"


def value(number: float, unit: str) -> str:
    return f"{number:.4f}" if not unit else f"{number:.2f} {unit}" if number < 10 else f"{number:.0f} {unit}"


def cells(cell: dict[str, object] | None) -> list[str]:
    """The disk, the mount, their ratio."""
    if cell is None:
        return ["–"] * 3
    if "failure" in cell:
        return ["–", "✗", "–"]
    if "ratio" in cell:
        return [amount(cell, "disk"), amount(cell, "mount"), f"{cell['ratio']:.2f}"]
    return [value(cell["disk"], cell["unit"]) if "disk" in cell else "–", value(cell["value"], cell["unit"]), "–"]


def table(results: Results, columns: list[Column]) -> str:
    heads = [f"disk | {column.title} | ratio" for column in columns]
    lines = [f"| what | {' | '.join(heads)} |", "|---" * (1 + 3 * len(columns)) + "|"]
    for row in results.rows.values():
        found = [text for column in columns for text in cells(row.get(column.key))]
        lines.append(f"| {row['what']} | {' | '.join(found)} |")
    return "\n".join(lines)


def peers_table(results: Results) -> str:
    heads = ("store", "stored / raw", "warm read", "ratio", "cold read", "ratio", "nothing cached", "ratio")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for peer in results.peers:
        texts = [f"{peer['stored_bytes'] / peer['raw_bytes']:.4f}" if "stored_bytes" in peer else "✗"]
        for key in ("warm", "cold", "nothing"):
            cell = peer.get(key)
            texts += [amount(cell, "mount"), f"{cell['ratio']:.2f}"] if cell else ["–", "–"]
        lines.append(f"| {peer['store']} | {' | '.join(texts)} |")
    return "\n".join(lines)


def heading(results: Results) -> str:
    about = results.about
    delta = f"; DELTA rows: {about['delta']}" if about["delta"] else ""
    return (
        f"machine: {about['machine']}; load {about['load']:.1f}\n"
        f"disk: {about['disk']}\n"
        f"file: {about['file']}, {about['file_bytes'] / 1e6:.1f} MB{delta}; medians of {about['rounds']} rounds\n"
    )
