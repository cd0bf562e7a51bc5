# SPDX-License-Identifier: Apache-2.0
"""Where programs and data are, what machine this is, and how the benchmarks talk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BUILDS = ("build/bench/bin", "build/release/bin", "build/dev/bin")


class Failure(Exception):
    """Something outside this program went wrong; its text is for the user."""


def programs(named: Path | None = None) -> Path:
    """The folder with coral in it: the named one, that of CORAL_BIN, else the fastest build there is."""
    told = named or (Path(os.environ["CORAL_BIN"]) if os.environ.get("CORAL_BIN") else None)
    places = [told] if told else [ROOT / build for build in BUILDS]
    for place in places:
        if os.access(place / "coral", os.X_OK):
            return place.resolve()
    where = str(told) if told else "build/"
    raise Failure(
        f"no coral in {where}: cmake --preset bench && cmake --build --preset bench, or name its folder with --bin"
    )


def data_folder(named: Path | None = None) -> Path:
    """Where scripts/data puts things."""
    return (named or Path(os.environ.get("CORAL_DATA") or "~/.cache/coral-data")).expanduser().absolute()


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    wanted = {"SHA-NI": "sha_ni", "VBMI2": "avx512_vbmi2"}
    known = ", ".join(f"{name} {'yes' if flag in flags else 'no'}" for name, flag in wanted.items())
    return f"{os.cpu_count()} cores, {facts.get('model name', platform.machine())}, {known}, Linux {platform.release()}"


def load() -> float:
    return os.getloadavg()[0]


def progress(text: str) -> None:
    """One line that is written over; only where somebody looks."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="", file=sys.stderr, flush=True)


def note(text: str) -> None:
    progress("")
    print(f"note: {text}", file=sys.stderr, flush=True)
