# SPDX-License-Identifier: Apache-2.0
"""What the threads of one lane share. A lane is a process with branches of its own, so that lanes need no common model."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from . import checks
from .checks import Wrong
from .material import Material
from .model import Branch, Commit

FREE, TIGHT, FULL = range(3)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Commands:
    """Runs `coral` in the first process: a fork of this one would copy descriptors of open files, and closing the copies
    would flush them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def run(self, *words: str) -> Done:
        self._pipe.send(words)
        answer: Done = self._pipe.recv()
        return answer


@dataclass
class Shared:
    """Between the processes."""

    stop: Any  # multiprocessing.Event
    level: Synchronized[int]
    beats: Any  # an array: when the thread's present step began, 0 between steps


@dataclass
class Lane:
    number: int
    seed: str
    mount: Path
    material: Material
    shared: Shared
    killing: bool
    passthrough: bool
    fail: Callable[[str], None]
    branches: list[Branch] = field(default_factory=list)
    tagged: dict[str, Commit] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    steps: dict[int, str] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)  # seconds, waiting for others of the soak included
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stopped(self) -> bool:
        return bool(self.shared.stop.is_set())

    @property
    def level(self) -> int:
        return int(self.shared.level.value)

    def folder(self, branch: Branch) -> Path:
        return self.mount / "branches" / branch.name

    def commit_folder(self, commit: Commit) -> Path:
        return self.mount / "commits" / commit.id

    def count(self, what: str, number: int = 1) -> None:
        with self.lock:
            self.counts[what] += number

    def commits(self) -> list[Commit]:
        with self.lock:
            every = [c for branch in self.branches for c in branch.commits] + list(self.tagged.values())
        return list(dict.fromkeys(every))

    def live_branches(self) -> list[Branch]:
        with self.lock:
            return [branch for branch in self.branches if not branch.gone]


class Actor:
    """A thread that does one step after the other until the time is over. What it finds wrong ends the soak."""

    name = "actor"

    def __init__(self, lane: Lane, slot: int, commands: Commands) -> None:
        self.lane, self.slot, self.commands = lane, slot, commands
        self.dice = random.Random(f"{lane.seed}/{lane.number}/{slot}")
        self.thread = threading.Thread(target=self._loop, name=f"lane {lane.number} {self.name} {slot}", daemon=True)

    def step(self) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        self.lane.shared.stop.wait(self.dice.random() * 0.05)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """So that a hang can be named, and what is done is counted."""
        begin = time.time()
        self.lane.steps[self.slot] = what
        self.lane.shared.beats[self.slot] = begin
        try:
            yield
        finally:
            self.lane.shared.beats[self.slot] = 0.0
        kind = what.split()[0]
        self.lane.count(kind)
        with self.lane.lock:
            self.lane.slowest[kind] = max(self.lane.slowest.get(kind, 0.0), time.time() - begin)

    def _loop(self) -> None:
        try:
            while not self.lane.stopped:
                self.step()
                self.pause()
        except Wrong as wrong:
            self._tell(str(wrong))
        except OSError as error:
            self._tell(f"a call failed: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}")
        except BaseException:
            self._tell(traceback.format_exc())

    def _tell(self, text: str) -> None:
        self.lane.fail(f"{self.thread.name}: {self.lane.steps.get(self.slot, '')}: {text}")


def verify(lane: Lane) -> dict[str, int]:
    """After a remount: every commit that must be there and every branch, name by name and byte by byte."""
    totals: Counter[str] = Counter()
    places = [(lane.commit_folder(c), c.tree) for c in lane.commits() if not c.gone]
    totals["commits"] = len(places)
    branches = lane.live_branches()
    totals["branches"] = len(branches)
    places += [(lane.folder(branch), branch.tree()) for branch in branches]
    for place, tree in places:
        files, size = checks.expect_tree(place, tree, ", after the remount")
        totals["files"] += files
        totals["bytes"] += size
    return totals
