# SPDX-License-Identifier: Apache-2.0
"""What the mount must show: of each branch its names, of each name its file, of each file its contents and since when.

Each change has a beginning and an end, and between them both sides are right. Who reads without a lock therefore asks
for all that was right at some moment between two times.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from .content import Content
from .material import Checkpoint

_KEPT_SECONDS = 240

T = TypeVar("T")


class Gate:
    """Many share it, or one has it alone; who wants it alone is not starved."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = self._waiting = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._shared)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


@dataclass
class Change(Generic[T]):
    """A value that holds from `begin` on, or a little later, but surely from `end` on. `complete`: since when its writer
    has closed it, as far as he knows."""

    value: T
    begin: float
    end: float
    complete: float = inf


class Timeline(Generic[T]):
    def __init__(self, value: T, complete: bool = True) -> None:
        now = time.monotonic()
        self._changes = [Change(value, -inf, now, now if complete else inf)]
        self._lock = threading.Lock()

    @property
    def now(self) -> T:
        return self._changes[-1].value

    def begin(self, value: T) -> None:
        with self._lock:
            now = time.monotonic()
            if len(self._changes) > 32:
                old = [i for i, change in enumerate(self._changes) if change.complete < now - _KEPT_SECONDS]
                self._changes = self._changes[old[-1] if old else 0 :]
            self._changes.append(Change(value, now, inf))

    def end(self) -> None:
        self._changes[-1].end = time.monotonic()

    def complete(self) -> None:
        """What is there now was closed."""
        with self._lock:
            last = self._changes[-1]
            last.complete = time.monotonic()
            last.end = min(last.end, last.complete)

    def between(self, first: float, last: float) -> list[T]:
        """Whatever may have been seen, the newest first."""
        with self._lock:
            return _values([(c.value, c.begin, c.end) for c in self._changes], first, last)

    def complete_between(self, first: float, last: float) -> list[T]:
        """Of what was closed, whatever may have been the last one of it."""
        with self._lock:
            return _values([(c.value, c.begin, c.complete) for c in self._changes if c.complete < inf], first, last)

    def settled(self, first: float, last: float) -> bool:
        """One value all the time, and closed."""
        with self._lock:
            newest = self._changes[-1]
            return newest.complete <= first and newest.begin <= last


def _values(changes: list[tuple[T, float, float]], first: float, last: float) -> list[T]:
    found = []
    for value, begin, end in reversed(changes):
        if begin <= last:
            found.append(value)
        if end <= first:
            break
    return found


@dataclass(eq=False)
class File:
    """An inode. `whole`: written once, under another name, and renamed: nobody ever sees a part of it at its name."""

    whole: bool
    contents: Timeline[Content]
    checkpoint: Checkpoint | None = None
    gate: Gate = field(default_factory=Gate)
    done: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.done = [*self.done[-11:], f"{time.monotonic():.3f} {what}"]


@dataclass(eq=False)
class Commit:
    id: str
    tree: dict[str, Content]
    strict: bool
    gone: bool = False
    gate: Gate = field(default_factory=Gate)


@dataclass(eq=False)
class Branch:
    """`gate`: shared by those who change it. `life`: shared by all who have something of it open."""

    name: str
    gate: Gate = field(default_factory=Gate)
    life: Gate = field(default_factory=Gate)
    committing: threading.Lock = field(default_factory=threading.Lock)
    names: dict[str, Timeline[File | None]] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    gone: bool = False

    def bind(self, name: str, file: File | None) -> None:
        """Begins it; `settle` ends it."""
        if name not in self.names:
            self.names[name] = Timeline(None)
        self.names[name].begin(file)

    def settle(self, *names: str) -> None:
        for name in names:
            self.names[name].complete()

    def file(self, name: str) -> File | None:
        timeline = self.names.get(name)
        return timeline.now if timeline else None

    def files(self) -> dict[str, File]:
        return {name: file for name, line in list(self.names.items()) if (file := line.now)}

    def tree(self) -> dict[str, Content]:
        return {name: file.contents.now for name, file in self.files().items()}


def branch_of(name: str, commit: Commit) -> Branch:
    """A new branch, as its first commit shows it."""
    branch = Branch(name, commits=[commit])
    for path, content in commit.tree.items():
        branch.names[path] = Timeline(File(path.endswith(".whole"), Timeline(content)))
    return branch
