# SPDX-License-Identifier: Apache-2.0
"""Checkpoints to save: tensors of real models where scripts/data has put some, else made ones with plausible weights."""

from __future__ import annotations

import array
import json
import mmap
import os
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from .content import Content, Piece, Source, Stored, Tuned

KIB, MIB = 1 << 10, 1 << 20
_LARGEST_REAL = 512 * MIB
_WIDTHS = {"F32": 4, "BF16": 2, "F16": 2}


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    source: Source
    at: int
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """What a safetensors file is made of; it can be trained a little further."""

    tensors: tuple[Tensor, ...]

    def content(self) -> Content:
        header, at = {}, 0
        for tensor in self.tensors:
            offsets = [at, at + tensor.size]
            header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
            at += tensor.size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        start = Content.of(struct.pack("<Q", len(text)) + text)
        return Content(start.pieces + tuple(Piece(t.source, t.at, t.size) for t in self.tensors))

    def tuned(self, dice: random.Random) -> Checkpoint:
        """Some tensors frozen, the others moved a little."""
        share, seed = dice.choice((0.2, 0.7, 1.0)), dice.randrange(1 << 30)

        def step(tensor: Tensor) -> Tensor:
            if dice.random() >= share:
                return tensor
            base = tensor.source.base if isinstance(tensor.source, Tuned) else tensor.source
            return replace(tensor, source=Tuned(base, seed, _WIDTHS.get(tensor.dtype, 1)))

        return Checkpoint(tuple(step(tensor) for tensor in self.tensors))


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, in the order of their bytes, mapped."""
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(bytes(data[8 : 8 + length]))
    source, found = Stored(data), []
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found.append(Tensor(name, entry["dtype"], tuple(entry["shape"]), source, 8 + length + begin, end - begin))
    return sorted((t for t in found if t.size), key=lambda tensor: tensor.at)


def made_model(number: int, size: int) -> list[Tensor]:
    """Noise in the mantissa, a bell curve in sign and exponent: compresses as weights do."""
    dice = random.Random(f"model {number}")
    count = 1 << 18
    curve = array.array("f", (dice.gauss(0, 0.02) for _ in range(count))).tobytes()
    tensors: list[Tensor] = []
    layer = 0
    while size > 0:
        dtype, rows = ("F32", "BF16")[number % 2], dice.choice((8, 64, 384, 1024))
        width, columns = _WIDTHS[dtype], dice.choice((96, 384))
        items = rows * columns
        start = 4 * dice.randrange(count // 2)
        heads = (curve[start:] * (4 * items // (4 * count - start) + 2))[: 4 * items]
        data = bytearray(items * width)
        for index in range(width):
            kept = heads[4 - width + index :: 4]
            data[index::width] = dice.randbytes(items) if width == 4 and index < 2 else kept
        tensors.append(Tensor(f"layers.{layer}.weight", dtype, (rows, columns), Stored(bytes(data)), 0, len(data)))
        layer, size = layer + 1, size - len(data)
    return tensors


class Material:
    def __init__(self, folder: Path | None, largest: int) -> None:
        self.largest = largest
        files = sorted(folder.glob("*/*.safetensors")) if folder and folder.is_dir() else []
        fit = [path for path in files if os.access(path, os.R_OK) and 4 * KIB < path.stat().st_size <= _LARGEST_REAL]
        models = [read_header(path) for path in fit]
        self.real = bool(models)
        self.models = [tensors for tensors in models if tensors] or [made_model(n, 12 * MIB) for n in range(4)]

    def checkpoint(self, dice: random.Random, size: int) -> Checkpoint:
        """Tensors in a row of one model, up to this many bytes; a large one is cut, as a sharded save does."""
        model = dice.choice(self.models)
        begin, taken = dice.randrange(len(model)), []
        for index in range(len(model)):
            tensor = model[(begin + index) % len(model)]
            room = size - sum(t.size for t in taken)
            if tensor.size > room:
                width = _WIDTHS.get(tensor.dtype, 1)
                rest = max(room, 64) // width * width
                rest = min(rest, tensor.size // width * width)
                if rest and tensor.dtype in _WIDTHS:
                    taken.append(replace(tensor, shape=(rest // width,), size=rest))
                break
            taken.append(tensor)
        return Checkpoint(tuple(taken))

    def other(self, dice: random.Random, size: int) -> Content:
        """What lies beside checkpoints: text, noise, zeros, a checkpoint that was cut off."""
        match dice.randrange(4):
            case 0:
                row = json.dumps({"step": dice.randrange(10**6), "loss": dice.random()}).encode() + b"\n"
                return Content.of((row * (min(size, MIB) // len(row) + 1))[: min(size, MIB)])
            case 1:
                return Content.of(dice.randbytes(min(size, MIB)))
            case 2:
                return Content.zeros(size)
            case _:
                return self.checkpoint(dice, size).content().resized(dice.randrange(size) + 1)

    def size(self, dice: random.Random, most: int) -> int:
        """1 KB to 64 MB, most of them small: as many of each order of magnitude."""
        most = min(most, self.largest)
        return min(most, int(KIB * (most / KIB) ** (dice.random() ** 1.4)))
