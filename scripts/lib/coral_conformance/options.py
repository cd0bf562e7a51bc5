# SPDX-License-Identifier: Apache-2.0
"""What the user asked for, and what a suite needs before it can run."""

from __future__ import annotations

import fnmatch
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from coral_bench import places
from coral_bench.places import Failure
from coral_conformance.sides import Side


@dataclass(frozen=True)
class Options:
    source: Path | None
    only: tuple[str, ...]
    seconds: float  # of each stressor
    operations: int
    seeds: int

    def wanted(self, case: str) -> bool:
        return not self.only or any(fnmatch.fnmatch(case, pattern) for pattern in self.only)

    def progress(self, side: Side, case: str) -> None:
        places.progress(f"{side.name}: {case}")


def built(options: Options, what: str, *files: str) -> Path:
    """The checkout named with --source; it must have been built, by its own instructions."""
    if not options.source:
        raise Failure(f"{what} is in no package of Debian: name a checkout of it, built, with --source")
    source = options.source.resolve()
    for file in files:
        if not (source / file).exists():
            raise Failure(f"{source}: no {file}: build {what} there first, as its README says")
    return source


def program(name: str, package: str) -> Path:
    found = shutil.which(name)
    if not found:
        raise Failure(f"no {name}: apt install {package}")
    return Path(found)


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Failure(f"{what} changes its user: run it as root")
