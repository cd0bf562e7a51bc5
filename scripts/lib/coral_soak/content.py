# SPDX-License-Identifier: Apache-2.0
"""What a file must hold, as a list of pieces of things that never change: some kilobytes stand for gigabytes, a change
makes a new list, and any range can be made at any time to compare with what was read."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

STEP = 1 << 20
MOST_PIECES = 400
_MASK_BLOCK = 64 << 10
_MASK_TABLE = 1 << 20


class Source(Protocol):
    def read(self, at: int, length: int) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Stored:
    """A file of real weights that is mapped, or bytes that were made at the start."""

    data: bytes | memoryview

    def read(self, at: int, length: int) -> bytes:
        return bytes(self.data[at : at + length])


class _Zeros:
    def read(self, at: int, length: int) -> bytes:
        return bytes(length)


ZEROS = _Zeros()


def _mask_table(keep: tuple[int, ...]) -> bytes:
    table = bytearray(_MASK_TABLE)
    noise = random.Random(f"mask {keep}")
    for index, bits in enumerate(keep):
        lane = noise.randbytes(_MASK_TABLE // len(keep))
        table[index :: len(keep)] = lane.translate(bytes(value & bits for value in range(256)))
    return bytes(table)


# The low bits of the mantissa move, as they do from one training step to the next.
_MASKS = {4: _mask_table((0xFF, 0x0F, 0, 0)), 2: _mask_table((0x03, 0)), 1: _mask_table((0x01,))}


@dataclass(frozen=True, eq=False)
class Tuned:
    """The same tensor a few steps of training later."""

    base: Source
    seed: int
    width: int

    def read(self, at: int, length: int) -> bytes:
        begin = at // _MASK_BLOCK * _MASK_BLOCK
        mask = bytearray()
        for block in range(begin // _MASK_BLOCK, (at + length + _MASK_BLOCK - 1) // _MASK_BLOCK):
            start = (self.seed * 2654435761 + block * 40503) % ((_MASK_TABLE - _MASK_BLOCK) // 64) * 64
            mask += _MASKS[self.width][start : start + _MASK_BLOCK]
        flips = int.from_bytes(mask[at - begin : at - begin + length], "little")
        plain = self.base.read(at, length)
        return (int.from_bytes(plain, "little") ^ flips).to_bytes(len(plain), "little")


@dataclass(frozen=True)
class Piece:
    source: Source
    at: int
    length: int


@dataclass(frozen=True, eq=False)
class Content:
    pieces: tuple[Piece, ...]

    @staticmethod
    def of(data: bytes) -> Content:
        return Content((Piece(Stored(data), 0, len(data)),) if data else ())

    @staticmethod
    def zeros(length: int) -> Content:
        return Content((Piece(ZEROS, 0, length),) if length > 0 else ())

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(piece.length for piece in self.pieces))

    @property
    def size(self) -> int:
        return self.ends[-1] if self.pieces else 0

    def _cut(self, at: int, length: int) -> Iterator[Piece]:
        end = min(at + length, self.size)
        index = bisect.bisect_right(self.ends, at)
        while at < end:
            piece = self.pieces[index]
            skip = at - (self.ends[index] - piece.length)
            take = min(piece.length - skip, end - at)
            yield Piece(piece.source, piece.at + skip, take)
            at += take
            index += 1

    def read(self, at: int, length: int) -> bytes:
        return b"".join(piece.source.read(piece.at, piece.length) for piece in self._cut(at, length))

    def part(self, at: int, length: int) -> Content:
        return Content(tuple(self._cut(at, length)))

    def resized(self, size: int) -> Content:
        if size <= self.size:
            return self.part(0, size)
        return Content(self.pieces + Content.zeros(size - self.size).pieces)

    def overwritten(self, at: int, by: Content) -> Content:
        if not by.size:
            return self  # a write of nothing extends nothing
        before = self.resized(at) if at > self.size else self.part(0, at)
        after = self.part(at + by.size, max(0, self.size - at - by.size))
        return Content(before.pieces + by.pieces + after.pieces)

    def steps(self, step: int = STEP) -> Iterator[tuple[int, bytes]]:
        for at in range(0, self.size, step):
            yield at, self.read(at, step)
