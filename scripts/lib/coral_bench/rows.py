# SPDX-License-Identifier: Apache-2.0
"""The figures of scripts/bench/mount while they are taken: rows, and for each the disk and the mount in turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import places
from .mounted import Column, Mounted, flush_disk
from .torch_user import TorchUser

Timed = Callable[[], float]  # does it and returns the seconds


def nothing() -> None:
    pass


@dataclass
class Results:
    """Kept in a file as they come, so that an interrupted run was not for nothing."""

    about: dict[str, object]
    file: Path | None = None
    rows: dict[str, dict[str, object]] = field(default_factory=dict)
    peers: list[dict[str, object]] = field(default_factory=list)
    failed: bool = False

    def put(self, name: str, column: Column, cell: dict[str, object]) -> None:
        self.rows.setdefault(name, {"what": name})[column.key] = cell | {"load": places.load()}
        self.write()

    def fail(self, name: str, column: Column, failure: Exception) -> None:
        self.failed = True
        places.note(f"{name}, {column.title}: {failure}")
        self.put(name, column, {"failure": str(failure)})

    def document(self) -> dict[str, object]:
        about = {"schema": "coral.bench-mount/1", **self.about}
        return {**about, "rows": list(self.rows.values()), "peers": self.peers}

    def write(self) -> None:
        if self.file:
            self.file.write_text(json.dumps(self.document(), indent=1) + "\n")


@dataclass
class Material:
    """What is measured with."""

    file: Path
    base: Path | None  # a stored file, and
    tuned: Path | None  # one that came of it
    torch: TorchUser | None
    pretrained: Path | None
    entries: int
    faults: int
    changed: int
    one_lock: Path | None = None  # a coral that holds a lock per file while it decodes


class Bench:
    """One column. Everything of the disk is in `disk`, everything of the mount in repositories beside it."""

    def __init__(self, coral: Path, work: Path, column: Column, results: Results, material: Material) -> None:
        self.coral, self.work, self.column, self.results, self.material = coral, work, column, results, material
        self.rounds, self.only, self.whole_machine = 1, [""], True
        self.disk = work / "disk"
        self.disk.mkdir(parents=True)
        self.numbers = iter(range(1_000_000))

    def wanted(self, *names: str) -> bool:
        return any(part in name for part in self.only for name in names)

    def repository(self, options: str = "") -> Mounted:
        told = ",".join(filter(None, (self.column.options, options)))
        return Mounted(self.coral, self.work / f"repository-{next(self.numbers)}", told)

    def fresh(self, folder: Path, suffix: str = "") -> Path:
        return folder / f"new-{next(self.numbers)}{suffix}"

    def say(self, name: str, number: int) -> None:
        places.progress(f"{self.column.title}: {name}, round {number + 1} of {self.rounds}")

    def pair(self, name: str, size: int | None, disk: Timed, ours: Timed, before: Callable[[], None] = nothing) -> None:
        """`before` comes before each round. Who begins changes from round to round."""
        if not self.wanted(name):
            return
        times: list[tuple[float, float]] = []
        for number in range(self.rounds):
            self.say(name, number)
            before()
            turn = [disk, ours] if number % 2 == 0 else [ours, disk]
            took = {action: action() for action in turn}
            times.append((took[disk], took[ours]))
        below, here = (statistics.median(t[i] for t in times) for i in (0, 1))
        ratio = statistics.median(a / b for a, b in times)
        cell: dict[str, object] = {"disk_s": below, "mount_s": here, "ratio": ratio, "rounds": times}
        if size:
            cell |= {"disk_gbs": size / below / 1e9, "mount_gbs": size / here / 1e9}
        self.results.put(name, self.column, cell)

    def values(self, name: str, unit: str, values: list[float], disk: list[float] | None = None) -> None:
        if self.wanted(name):
            cell = {"value": statistics.median(values), "unit": unit, "rounds": values}
            if disk:
                cell |= {"disk": statistics.median(disk)}
            self.results.put(name, self.column, cell)

    def settle(self, repository: Mounted) -> None:
        repository.wait_ingested()
        flush_disk(self.disk)
