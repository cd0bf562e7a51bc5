# SPDX-License-Identifier: Apache-2.0
"""Everything that programs do to save a checkpoint, and some of what nobody should do."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from . import checks
from .content import MOST_PIECES, STEP, Content
from .lane import FREE, FULL, TIGHT, Actor, Commands, Lane
from .material import KIB, MIB, Checkpoint
from .model import Branch, File, Timeline

_MOST_FILES = 12
_MOST_BYTES = 64 * MIB


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def pieces_of(content: Content, dice: random.Random) -> Iterator[bytes]:
    """As torch.save and save_file write: a little, then tensors, in writes of many sizes."""
    at = 0
    while at < content.size:
        length = dice.choice((1, 100, 4 * KIB, 5000, 64 * KIB, 128 * KIB, STEP, STEP, STEP, STEP))
        if content.size > 200 * length:
            length = STEP
        data = content.read(at, length)
        yield data
        at += len(data)


class Writer(Actor):
    """Has names of its own in every branch of its lane; everybody reads and commits them."""

    name = "writer"

    def __init__(self, lane: Lane, slot: int, commands: Commands, scratch: Path) -> None:
        super().__init__(lane, slot, commands)
        self.scratch = scratch / f"{lane.number}-{slot}"
        self.prefix = f"w{slot}-"
        self.made = 0

    def step(self) -> None:
        branches = self.lane.live_branches()
        if not branches:
            return
        branch = self.dice.choice(branches)
        with branch.life.shared(), branch.gate.shared():
            if branch.gone:
                return
            mine = {n: f for n, f in branch.files().items() if os.path.basename(n).startswith(self.prefix)}
            self.choose(branch, mine)(branch, mine)

    def choose(self, branch: Branch, mine: dict[str, File]) -> Callable[[Branch, dict[str, File]], None]:
        size = sum(file.contents.now.size for file in mine.values())
        if mine and (self.lane.level == FULL or len(mine) >= _MOST_FILES or size > _MOST_BYTES):
            return self.unlink
        if self.lane.level == FULL:
            return lambda *_: None
        loose = any(not file.whole for file in mine.values())
        ways: list[tuple[int, Callable[[Branch, dict[str, File]], None]]] = [
            (6, self.save),
            (3, self.rewrite),
            (2, self.copy_in),
            (3, self.copy_within),
            (1 if mine else 0, self.unlink),
            (5 if loose else 0, self.overwrite),
            (3 if loose else 0, self.append),
            (3 if loose else 0, self.truncate),
            (4 if loose else 0, self.write_mapped),
            (2 if loose else 0, self.rename),
        ]
        return self.dice.choices([way for _, way in ways], [weight for weight, _ in ways])[0]

    # ---- what and where

    def new_content(self, earlier: File | None) -> tuple[Content, Checkpoint | None]:
        most = self.lane.material.largest if self.lane.level < TIGHT else 256 * KIB
        checkpoint = earlier.checkpoint if earlier else None
        if checkpoint and self.dice.random() < 0.7:
            checkpoint = checkpoint.tuned(self.dice)
        elif self.dice.random() < 0.8:
            checkpoint = self.lane.material.checkpoint(self.dice, self.lane.material.size(self.dice, most))
        else:
            return self.lane.material.other(self.dice, self.lane.material.size(self.dice, most)), None
        content = checkpoint.content()
        return (content, checkpoint) if content.size <= most else (content.resized(most), None)

    def a_name(self, mine: dict[str, File], whole: bool) -> str:
        """An old name twice out of three times."""
        old = sorted(n for n, file in mine.items() if file.whole == whole)
        if old and self.dice.random() < 0.66:
            return self.dice.choice(old)
        self.made += 1
        folder = self.dice.choice(("", "", "runs/", "runs/deep/er/"))
        return f"{folder}{self.prefix}{self.made}.{'whole' if whole else 'loose'}"

    def loose(self, mine: dict[str, File]) -> tuple[str, File]:
        return self.dice.choice(sorted(((n, f) for n, f in mine.items() if not f.whole), key=lambda pair: pair[0]))

    def path(self, branch: Branch, name: str) -> Path:
        path = self.lane.folder(branch) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def maybe_sync(self, descriptor: int, chance: float = 0.3) -> None:
        if self.dice.random() < chance:
            os.fsync(descriptor)

    def look(self, path: Path, file: File) -> None:
        """Who has just written reads back, now and then."""
        if self.dice.random() < 0.25:
            self.lane.count("read_bytes", checks.expect_file(path, file.contents.now, ", read back by its writer"))

    # ---- whole files

    def fill(self, descriptor: int, content: Content, mapped: bool) -> None:
        """Sequential writes, or a mapping."""
        if content.size and mapped:
            os.ftruncate(descriptor, content.size)
            with mmap.mmap(descriptor, content.size) as view:
                for at, data in content.steps():
                    view[at : at + len(data)] = data
                if self.dice.random() < 0.5:
                    view.flush()
        else:
            for data in pieces_of(content, self.dice):
                write_all(descriptor, data)
        self.lane.count("written_bytes", content.size)

    def save(self, branch: Branch, mine: dict[str, File]) -> None:
        """Written under another name, then renamed."""
        name = self.a_name(mine, whole=True)
        content, checkpoint = self.new_content(mine.get(name))
        with self.doing(f"save {branch.name}/{name} of {content.size}"):
            self.put(branch, name, content, checkpoint, self.write_new)

    def put(
        self,
        branch: Branch,
        name: str,
        content: Content,
        checkpoint: Checkpoint | None,
        make: Callable[[Path, Content], None],
    ) -> None:
        file = File(True, Timeline(Content(()), complete=False), checkpoint)
        self.made += 1  # a commit may have had such a name in it, and a branch begins with it
        temporary = f"{name}.{self.made}.tmp"
        path, beside = self.path(branch, name), self.path(branch, temporary)
        branch.bind(temporary, file)
        file.contents.begin(content)
        make(beside, content)
        file.contents.complete()
        branch.settle(temporary)
        branch.bind(name, file)
        branch.bind(temporary, None)
        os.replace(beside, path)
        branch.settle(name, temporary)
        file.note("saved")
        if self.dice.random() < 0.2:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.look(path, file)

    def write_new(self, path: Path, content: Content) -> None:
        access = self.dice.choice((os.O_WRONLY, os.O_RDWR))
        descriptor = os.open(path, access | os.O_CREAT | self.dice.choice((os.O_TRUNC, os.O_EXCL)), 0o644)
        self.fill(descriptor, content, mapped=access == os.O_RDWR and self.dice.random() < 0.6)
        self.maybe_sync(descriptor)
        os.close(descriptor)

    def copy_in(self, branch: Branch, mine: dict[str, File]) -> None:
        """cp(1), from a disk outside."""
        name = self.a_name(mine, whole=True)
        content, checkpoint = self.new_content(mine.get(name))
        with open(self.scratch, "wb") as plain:
            for _, data in content.steps():
                plain.write(data)
        with self.doing(f"cp {branch.name}/{name} of {content.size}"):
            self.put(branch, name, content, checkpoint, lambda path, _: self.cp(self.scratch, path))
        self.lane.count("written_bytes", content.size)

    def copy_within(self, branch: Branch, mine: dict[str, File]) -> None:
        """From a commit or another file of the mount: by cp(1), or by copy_file_range."""
        name = self.a_name(mine, whole=True)
        commits = [commit for commit in self.lane.commits() if commit.tree]
        if commits and self.dice.random() < 0.6:
            commit = self.dice.choice(commits)
            with commit.gate.shared():
                if not commit.gone:
                    source = self.dice.choice(sorted(commit.tree))
                    self.copy(branch, name, self.lane.commit_folder(commit) / source, commit.tree[source], None)
        elif mine:
            source, file = self.dice.choice(sorted(mine.items(), key=lambda pair: pair[0]))
            self.copy(branch, name, self.lane.folder(branch) / source, file.contents.now, file.checkpoint)

    def copy(
        self, branch: Branch, name: str, source: Path, content: Content, checkpoint: Checkpoint | None
    ) -> None:
        by_range = self.dice.random() < 0.5

        def make(path: Path, _: Content) -> None:
            if by_range:
                copy_ranges(source, path, content.size, self.dice)
            else:
                self.cp(source, path)

        with self.doing(f"copy {source} to {branch.name}/{name} of {content.size}"):
            self.put(branch, name, content, checkpoint, make)

    def cp(self, source: Path, target: Path) -> None:
        done = self.commands.run("cp", "--reflink=auto", str(source), str(target))
        if done.code:
            raise checks.Wrong(f"cp {source} {target}: {done.err}")

    # ---- in place

    def change(self, file: File, content: Content, what: str) -> None:
        file.note(what)
        file.contents.begin(content)

    def rewrite(self, branch: Branch, mine: dict[str, File]) -> None:
        """O_TRUNC and from the beginning, at its name: what torch.save does."""
        name = self.a_name(mine, whole=False)
        old = mine.get(name)
        content, checkpoint = self.new_content(old)
        path = self.path(branch, name)
        with self.doing(f"rewrite {branch.name}/{name} of {content.size}"):
            file = old or File(False, Timeline(Content(()), complete=False))
            with file.gate.alone():
                if not old:
                    branch.bind(name, file)
                self.change(file, Content(()), "emptied")
                descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | self.dice.choice((os.O_RDWR, os.O_WRONLY)), 0o644)
                file.contents.end()
                if not old:
                    branch.settle(name)
                self.change(file, content, f"rewritten {content.size}")
                self.fill(descriptor, content, mapped=False)
                self.maybe_sync(descriptor)
                os.close(descriptor)
                file.contents.complete()
                file.checkpoint = checkpoint
                self.look(path, file)

    def patch(self, size: int) -> Content:
        return self.lane.material.checkpoint(self.dice, size + 4096).content().part(4096, size)

    def check_size(self, path: Path, descriptor: int, file: File) -> None:
        size = os.fstat(descriptor).st_size
        if size != file.contents.now.size:
            said = " | ".join(file.done)
            raise checks.Wrong(f"{path}: {size} bytes, expected {file.contents.now.size}; done to it: {said}")

    def overwrite(self, branch: Branch, mine: dict[str, File]) -> None:
        name, file = self.loose(mine)
        path = self.path(branch, name)
        if len(file.contents.now.pieces) > MOST_PIECES:
            return self.unlink(branch, {name: file})
        with self.doing(f"overwrite {branch.name}/{name}"), file.gate.alone():
            descriptor = os.open(path, self.dice.choice((os.O_RDWR, os.O_WRONLY)))
            self.check_size(path, descriptor, file)
            for _ in range(self.dice.randrange(1, 6)):
                content = file.contents.now
                data = self.patch(self.dice.choice((1, 700, 4096, 70_000, 600_000)))
                at = self.dice.randrange(content.size + 5000 if self.dice.random() < 0.2 else max(content.size, 1))
                self.change(file, content.overwritten(at, data), f"{data.size} bytes at {at}")
                if os.pwrite(descriptor, data.read(0, data.size), at) != data.size:
                    raise checks.Wrong(f"{path}: a short write of {data.size} bytes at {at}")
                file.contents.end()
                self.lane.count("written_bytes", data.size)
            self.maybe_sync(descriptor)
            os.close(descriptor)
            file.contents.complete()
            self.look(path, file)

    def append(self, branch: Branch, mine: dict[str, File]) -> None:
        name, file = self.loose(mine)
        path = self.path(branch, name)
        with self.doing(f"append {branch.name}/{name}"), file.gate.alone():
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            self.check_size(path, descriptor, file)
            for _ in range(self.dice.randrange(1, 4)):
                content, data = file.contents.now, self.patch(self.dice.choice((10, 5000, 300_000)))
                self.change(file, content.overwritten(content.size, data), f"{data.size} bytes appended at {content.size}")
                write_all(descriptor, data.read(0, data.size))
                file.contents.end()
                self.lane.count("written_bytes", data.size)
            self.maybe_sync(descriptor)
            os.close(descriptor)
            file.contents.complete()
            self.look(path, file)

    def truncate(self, branch: Branch, mine: dict[str, File]) -> None:
        name, file = self.loose(mine)
        path = self.path(branch, name)
        content = file.contents.now
        size = self.dice.choice((0, content.size // 2, max(0, content.size - 1), content.size + 70_000))
        size = size if self.dice.random() < 0.7 else self.dice.randrange(content.size + 1)
        with self.doing(f"truncate {branch.name}/{name} from {content.size} to {size}"), file.gate.alone():
            self.change(file, content.resized(size), f"truncated to {size}")
            if self.dice.random() < 0.5:
                os.truncate(path, size)
            else:
                descriptor = os.open(path, os.O_RDWR)
                os.ftruncate(descriptor, size)
                self.maybe_sync(descriptor)
                os.close(descriptor)
            file.contents.complete()
            self.look(path, file)

    def write_mapped(self, branch: Branch, mine: dict[str, File]) -> None:
        """Through a shared mapping, which may outlive its descriptor."""
        name, file = self.loose(mine)
        path = self.path(branch, name)
        if not file.contents.now.size:
            return self.append(branch, {name: file})
        if len(file.contents.now.pieces) > MOST_PIECES:
            return self.unlink(branch, {name: file})
        with self.doing(f"mmap-write {branch.name}/{name}"), file.gate.alone():
            descriptor = os.open(path, os.O_RDWR)
            self.check_size(path, descriptor, file)
            with mmap.mmap(descriptor, file.contents.now.size) as view:
                os.close(descriptor)  # mmap has a copy of its own
                for _ in range(self.dice.randrange(1, 6)):
                    content = file.contents.now
                    at = self.dice.randrange(content.size)
                    data = self.patch(self.dice.choice((1, 700, 4096, 70_000, 600_000))).part(0, content.size - at)
                    self.change(file, content.overwritten(at, data), f"{data.size} bytes mapped at {at}")
                    view[at : at + data.size] = data.read(0, data.size)
                    file.contents.end()
                    self.lane.count("written_bytes", data.size)
                if self.dice.random() < 0.4:
                    view.flush()
            file.contents.complete()
            self.look(path, file)

    # ---- names

    def rename(self, branch: Branch, mine: dict[str, File]) -> None:
        name, file = self.loose(mine)
        target = self.a_name(mine, whole=False)
        if target == name:
            return
        path = self.path(branch, name)
        with self.doing(f"rename {branch.name}/{name} to {target}"), file.gate.alone():
            branch.bind(target, file)
            branch.bind(name, None)
            os.rename(path, self.path(branch, target))
            branch.settle(target, name)
            file.note(f"renamed to {target}")
            self.look(self.path(branch, target), file)

    def unlink(self, branch: Branch, mine: dict[str, File]) -> None:
        """Half the time while it is open: it must stay readable to its end."""
        name, file = self.dice.choice(sorted(mine.items(), key=lambda pair: pair[0]))
        path = self.path(branch, name)
        with self.doing(f"unlink {branch.name}/{name}"), file.gate.alone():
            held = os.open(path, os.O_RDONLY) if self.dice.random() < 0.5 else -1
            branch.bind(name, None)
            os.unlink(path)
            branch.settle(name)
            file.note("unlinked")
            if held >= 0:
                try:
                    for at, wanted in file.contents.now.steps():
                        checks.expect(path, at, wanted, checks.read_at(held, at, len(wanted)), ", after its unlink")
                finally:
                    os.close(held)


def copy_ranges(source: Path, target: Path, size: int, dice: random.Random) -> None:
    """As cp(1) does, or in pieces cut anywhere and in any order."""
    cuts = sorted(dice.randrange(size) for _ in range(dice.choice([0, 0, 1, 4]))) if size else []
    pieces = list(zip([0, *cuts], [*cuts, size], strict=True))
    if len(cuts) > 1:
        dice.shuffle(pieces)
    with open(source, "rb", buffering=0) as reader:
        writer = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        try:
            for begin, end in pieces:
                while begin < end:
                    copied = os.copy_file_range(reader.fileno(), writer, end - begin, begin, begin)
                    if not copied:
                        raise checks.Wrong(f"{source}: copy_file_range stopped at {begin}, before {end} of {size}")
                    begin += copied
        finally:
            os.close(writer)


assert FREE < TIGHT < FULL
