# SPDX-License-Identifier: Apache-2.0
"""Random calls on a few files of a branch, against what they must contain: as fsx does, with names and commits too."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import random
from pathlib import Path

import pytest

from driver import Repo, linux

LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
LARGEST = 3 << 20
MAPS_DIRECT = linux() >= (6, 9)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    done = LIBC.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))
    if done:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Model:
    """What every file holds, changed by the same call as the file; and descriptors that stay open over renames."""

    WAYS: tuple[int, ...] = (
        os.O_RDWR,
        os.O_WRONLY,
        os.O_RDWR | os.O_APPEND,
        os.O_WRONLY | os.O_APPEND,
        os.O_RDWR | os.O_DIRECT,
    )

    def __init__(self, folder: Path, seed: int, *, any_alignment: bool) -> None:
        if not any_alignment:  # O_DIRECT has the disk's (S3.19)
            self.WAYS = self.WAYS[:-1]
        self.folder, self.dice = folder, random.Random(seed)
        self.names: dict[str, bytearray] = {}
        self.open: list[tuple[int, int, bytearray]] = []  # an unlinked file's bytes live on here
        self.written_directly: set[int] = set()  # of the bytes of files that are open: a descriptor may only write
        self.history: list[str] = []

    def step(self) -> None:
        calls = [self.write] * 4 + [self.read] * 4 + [self.truncate, self.mapped, self.zero, self.copy, self.sync]
        calls += [self.open_one, self.close_one, self.rename, self.unlink, self.truncate_by_name]
        self.dice.choice(calls)()

    def pick(self, *, readable: bool = False) -> tuple[int, int, bytearray] | None:
        fitting = [o for o in self.open if not readable or o[1] & os.O_ACCMODE == os.O_RDWR]
        return self.dice.choice(fitting) if fitting else None

    def range(self, data: bytearray) -> tuple[int, int]:
        offset = self.dice.randrange(min(len(data) + 70_000, LARGEST))
        return offset, self.dice.choice([1, 511, 4096, 5000, 100_000, 700_000])

    def said(self, text: str) -> None:
        self.history.append(text)

    @staticmethod
    def put(data: bytearray, offset: int, new: bytes) -> None:
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(new)] = new

    def open_one(self) -> None:
        if len(self.open) > 6:
            return
        name, way = self.dice.choice("abcd"), self.dice.choice(self.WAYS)
        truncating = os.O_TRUNC if self.dice.random() < 0.1 else 0
        # As temporary files are made that will be renamed: written and read directly, without passthrough.
        making = os.O_EXCL if name not in self.names and self.dice.random() < 0.7 else 0
        if making:
            way = os.O_RDWR
        self.said(f"open {name} {way:#x} {truncating | making:#x}")
        data = self.names.setdefault(name, bytearray())
        descriptor = os.open(self.folder / name, way | os.O_CREAT | truncating | making, 0o644)
        if truncating:
            data.clear()
        self.open.append((descriptor, way, data))
        if way == os.O_WRONLY:
            self.written_directly.add(id(data))

    def close_one(self) -> None:
        if self.open:
            descriptor, _, data = self.open.pop(self.dice.randrange(len(self.open)))
            self.said(f"close {descriptor}")
            os.close(descriptor)
            if not any(same is data for _, _, same in self.open):
                self.written_directly.discard(id(data))

    def write(self) -> None:
        if not (found := self.pick()):
            return
        descriptor, way, data = found
        offset, length = self.range(data)
        new = self.dice.randbytes(length)
        if way & os.O_APPEND:
            if len(data) > LARGEST:
                return
            offset = len(data)  # pwrite too, on Linux
        self.said(f"write {length} at {offset} through {descriptor}")
        assert os.pwrite(descriptor, new, offset) == length
        self.put(data, offset, new)

    def read(self) -> None:
        if found := self.pick(readable=True):
            descriptor, _, data = found
            offset, length = self.range(data)
            assert os.pread(descriptor, length, offset) == data[offset : offset + length], f"read {length} at {offset}"
            assert os.fstat(descriptor).st_size == len(data)

    def truncate(self) -> None:
        if found := self.pick():
            size = self.dice.randrange(min(len(found[2]) + 200_000, LARGEST))
            self.said(f"truncate {found[0]} to {size}")
            os.ftruncate(found[0], size)
            self.resize(found[2], size)

    def truncate_by_name(self) -> None:
        if self.names:
            name = self.dice.choice(sorted(self.names))
            size = self.dice.randrange(len(self.names[name]) + 1000)
            self.said(f"truncate {name} to {size}")
            os.truncate(self.folder / name, size)
            self.resize(self.names[name], size)

    @staticmethod
    def resize(data: bytearray, size: int) -> None:
        del data[size:]
        data.extend(bytes(size - len(data)))

    def mapped(self) -> None:
        """A shared mapping: what is there, then a change through it."""
        found = self.pick(readable=True)
        if not found or not found[2] or found[1] & os.O_DIRECT:
            return
        descriptor, _, data = found
        try:
            mapping = mmap.mmap(descriptor, len(data))
        except OSError as error:
            # S4.3: opened beside a descriptor that only writes, and had written.
            assert error.errno == errno.ENODEV and id(data) in self.written_directly and not MAPS_DIRECT
            return
        with contextlib.closing(mapping) as view:
            offset, length = self.range(data)
            assert view[offset : offset + length] == data[offset : offset + length], f"mapped {length} at {offset}"
            new = self.dice.randbytes(len(data[offset : offset + length]))
            self.said(f"map {len(new)} at {offset} through {descriptor}")
            view[offset : offset + length] = new
            data[offset : offset + length] = new

    def zero(self) -> None:
        if not (found := self.pick()):
            return
        descriptor, _, data = found
        offset, length = self.range(data)
        mode = self.dice.choice([0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])
        self.said(f"fallocate {mode} {length} at {offset} through {descriptor}")
        fallocate(descriptor, mode, offset, length)
        if not mode & KEEP_SIZE and len(data) < offset + length:
            self.resize(data, offset + length)
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            length = len(data[offset : offset + length])
            data[offset : offset + length] = bytes(length)

    def copy(self) -> None:
        source, target = self.pick(readable=True), self.pick()
        if not source or not target or source[2] is target[2] or target[1] & os.O_APPEND:
            return
        offset, length = self.range(source[2])
        to, _ = self.range(target[2])
        self.said(f"copy {length} at {offset} of {source[0]} to {to} of {target[0]}")
        done = os.copy_file_range(source[0], target[0], length, offset, to)
        assert done <= len(source[2][offset : offset + length])
        if done:
            self.put(target[2], to, bytes(source[2][offset : offset + done]))

    def sync(self) -> None:
        if found := self.pick():
            os.fsync(found[0])

    def rename(self) -> None:
        if self.names:
            old, new = self.dice.choice(sorted(self.names)), self.dice.choice("abcd")
            self.said(f"rename {old} {new}")
            os.rename(self.folder / old, self.folder / new)
            self.names[new] = self.names.pop(old)

    def unlink(self) -> None:
        if self.names and self.dice.random() < 0.3:
            name = self.dice.choice(sorted(self.names))
            self.said(f"unlink {name}")
            os.unlink(self.folder / name)
            del self.names[name]

    def close_all(self) -> None:
        while self.open:
            self.close_one()

    def compare(self, folder: Path) -> None:
        assert sorted(os.listdir(folder)) == sorted(self.names)
        for name, data in self.names.items():
            assert (folder / name).read_bytes() == data, name


@pytest.mark.parametrize("passthrough", ["auto", "off"])
@pytest.mark.parametrize("seed", range(4))
def test_random_calls(repo: Repo, seed: int, passthrough: str) -> None:
    """S3.1–S3.6, S3.11, S3.13 and S4.1–S4.3 together. Between rounds a commit, a remount, and everything once more."""
    repo.mount("-o", f"passthrough={passthrough}")
    model = Model(repo.main, seed, any_alignment=passthrough == "off")
    try:
        for number in range(3):
            for _ in range(150):
                model.step()
            model.close_all()
            model.compare(repo.main)
            model.names["round"] = bytearray(b"%d" % number)  # so that there is something to commit
            (repo.main / "round").write_bytes(model.names["round"])
            commit = repo.commit(f"round {number}")
            model.compare(repo.commit_dir(commit))
            repo.remount("-o", f"passthrough={passthrough}")
            model.compare(repo.main)
    except BaseException as error:
        error.add_note("\n".join(model.history[-40:]))
        raise
    finally:
        for descriptor, _, _ in model.open:
            os.close(descriptor)
    repo.umount()
