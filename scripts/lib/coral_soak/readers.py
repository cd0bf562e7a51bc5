# SPDX-License-Identifier: Apache-2.0
"""Everything that programs do to load a checkpoint, of commits and of branches, whether it is being written or not."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import checks
from .checks import Wrong
from .content import STEP, Content
from .lane import Actor
from .model import Branch, Commit, File

Check = Callable[[int, bytes], None]  # offset, what was read there


class Reader(Actor):
    name = "reader"

    def step(self) -> None:
        dice = self.dice.random()
        branches = self.lane.live_branches()
        commits = [commit for commit in self.lane.commits() if commit.tree]
        if dice < 0.4 and commits:
            self.read_commit(self.dice.choice(commits))
        elif dice < 0.45 and self.lane.tagged:
            self.read_tag()
        elif branches:
            branch = self.dice.choice(branches)
            with branch.life.shared():
                if not branch.gone:
                    (self.read_settled if self.dice.random() < 0.5 else self.read_racing)(branch)

    # ---- commits: nothing in them ever changes

    def read_commit(self, commit: Commit) -> None:
        name = self.dice.choice(sorted(commit.tree))
        path, content = self.lane.commit_folder(commit) / name, commit.tree[name]
        with self.doing(f"read-commit {path}"):
            with commit.gate.shared():
                if commit.gone:
                    return
                descriptor = os.open(path, os.O_RDONLY)
            # The commit may go while the file is open, and be collected: the file stays.
            with contextlib.closing(_Descriptor(descriptor)):
                self.check_size(path, descriptor, content)
                self.read(path, descriptor, content)

    def read_tag(self) -> None:
        with self.lane.lock:
            chosen = self.dice.choice(sorted(self.lane.tagged.items(), key=lambda pair: pair[0]) or [("", None)])
        name, commit = chosen
        if not commit or not commit.tree:
            return
        with self.doing(f"read-tag {name}"), commit.gate.shared():
            if not commit.gone and self.lane.tagged.get(name) is commit:
                path = self.dice.choice(sorted(commit.tree))
                checks.expect_file(self.lane.mount / "tags" / name / path, commit.tree[path])

    # ---- branches

    def read_settled(self, branch: Branch) -> None:
        """While its writer waits: everything must be exactly right."""
        files = branch.files()
        if not files:
            return
        name = self.dice.choice(sorted(files))
        file, path = files[name], self.lane.folder(branch) / name
        with self.doing(f"read-settled {path}"), file.gate.shared():
            first = time.monotonic()
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self.must_be_gone(branch, name, first)
                return
            with contextlib.closing(_Descriptor(descriptor)):
                # Replaced or renamed away by others meanwhile? Files that are written once may be under their way in.
                if branch.names[name].between(first, time.monotonic()) != [file]:
                    return
                if len(file.contents.between(first, time.monotonic())) > 1:
                    return
                content = file.contents.now
                self.check_size(path, descriptor, content)
                self.read(path, descriptor, content, "; done to it: " + " | ".join(file.done))

    def must_be_gone(self, branch: Branch, name: str, first: float) -> None:
        if None not in branch.names[name].between(first, time.monotonic()):
            raise Wrong(f"{self.lane.folder(branch) / name}: not found, but it was there all the time")

    def read_racing(self, branch: Branch) -> None:
        """While anything may happen: each byte must be one that was there at some moment meanwhile."""
        names = sorted(branch.names)
        if not names:
            return
        name = self.dice.choice(names)
        path = self.lane.folder(branch) / name
        with self.doing(f"read-racing {path}"):
            first = time.monotonic()
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self.must_be_gone(branch, name, first)
                return
            files = [file for file in branch.names[name].between(first, time.monotonic()) if file]
            with contextlib.closing(_Descriptor(descriptor)):
                if not files:
                    raise Wrong(f"{path}: is there, but was not made")
                self.racing_ranges(path, descriptor, files, first)

    def racing_ranges(self, path: Path, descriptor: int, files: list[File], first: float) -> None:
        size = os.fstat(descriptor).st_size
        said = "; done to it: " + " | ".join(done for file in files for done in file.done)
        for at in range(0, size + 1, STEP) if self.dice.random() < 0.5 else random_offsets(self.dice, size):
            got = os.pread(descriptor, STEP, at)
            last = time.monotonic()
            candidates = [content for file in files for content in file.contents.between(first, last)]
            if len(set(candidates)) == 1 and len(files) == 1:
                checks.expect(path, at, candidates[0].read(at, STEP), got, said)
            else:
                checks.expect_mixture(path, at, got, candidates, said)
            self.lane.count("read_bytes", len(got))

    # ---- ways to read

    def check_size(self, path: Path, descriptor: int, content: Content) -> None:
        size = os.fstat(descriptor).st_size
        if size != content.size:
            raise Wrong(f"{path}: {size} bytes, expected {content.size}")

    def read(self, path: Path, descriptor: int, content: Content, more: str = "") -> None:
        if self.dice.random() < 0.3:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        way = self.dice.choice((self.by_read, self.by_read, self.by_map, self.by_threads))
        self.lane.count("read_bytes", way(path, descriptor, content, more))

    def by_read(self, path: Path, descriptor: int, content: Content, more: str) -> int:
        total = 0
        for at, length in self.ranges(content.size):
            wanted = content.read(at, length)
            checks.expect(path, at, wanted, checks.read_at(descriptor, at, length), ", by read(2)" + more)
            total += len(wanted)
        if os.pread(descriptor, 10, content.size):
            raise Wrong(f"{path}: something behind the end at {content.size}")
        return total

    def by_map(self, path: Path, descriptor: int, content: Content, more: str) -> int:
        if not content.size:
            return 0
        total = 0
        with self.mapping(descriptor, content.size) as view:
            for at, length in self.ranges(content.size):
                wanted = content.read(at, length)
                checks.expect(path, at, wanted, view[at : at + length], ", by mmap" + more)
                total += len(wanted)
        return total

    @contextlib.contextmanager
    def mapping(self, descriptor: int, size: int) -> Iterator[mmap.mmap]:
        flags = self.dice.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
        try:
            view = mmap.mmap(descriptor, size, flags, mmap.PROT_READ)
        except OSError as error:
            # Sentence S4.3 of docs/semantics.md: opened while somebody else wrote without the page cache.
            if error.errno != errno.ENODEV or flags == mmap.MAP_PRIVATE or self.lane.passthrough:
                raise
            self.lane.count("shared mappings refused")
            view = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        with view:
            yield view

    def by_threads(self, path: Path, descriptor: int, content: Content, more: str) -> int:
        """Several at the same time, through one descriptor, as loaders with workers do."""
        wrong: list[BaseException] = []
        total = [0] * 4

        def work(number: int, ranges: list[tuple[int, int]]) -> None:
            try:
                for at, length in ranges:
                    wanted = content.read(at, length)
                    got = checks.read_at(descriptor, at, length)
                    checks.expect(path, at, wanted, got, f", by thread {number} of four" + more)
                    total[number] += len(wanted)
            except BaseException as error:
                wrong.append(error)

        ranges = list(self.ranges(content.size))
        threads = [threading.Thread(target=work, args=(n, ranges[n::4]), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]
        return sum(total)

    def ranges(self, size: int) -> Iterator[tuple[int, int]]:
        """All of it, forwards or in any order, or some places."""
        step = self.dice.choice((64 << 10, 100_000, STEP))
        if self.dice.random() < 0.5:
            whole = [(at, min(step, size - at)) for at in range(0, size, step)]
            if self.dice.random() < 0.3:
                self.dice.shuffle(whole)
            yield from whole
        else:
            for at in random_offsets(self.dice, size):
                yield at, min(self.dice.choice((1, 100, 4096, 300_000)), max(size - at, 0))


def random_offsets(dice: random.Random, size: int) -> list[int]:
    return [dice.randrange(size + 1) for _ in range(dice.randrange(1, 24))]


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)
