# SPDX-License-Identifier: Apache-2.0
"""Just enough of safetensors and torch files for the benchmarks: which bytes belong to which tensor, and casts.

On purpose not our own parsers: a benchmark that shares code with what it measures would share its mistakes. Only for
files that scripts/data made; nothing here defends itself against hostile ones.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}


@dataclass(frozen=True)
class Span:
    """A tensor's bytes in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    length: int


class Checkpoint:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = np.fromfile(path, dtype=np.uint8)
        self.spans = sorted(spans(path, self.data), key=lambda span: span.begin)

    def part(self, span: Span) -> np.ndarray:
        return self.data[span.begin : span.begin + span.length]

    def rest(self) -> np.ndarray:
        """Headers, padding, and whatever else is no tensor's."""
        parts, at = [], 0
        for span in self.spans:
            parts.append(self.data[at : span.begin])
            at = max(at, span.begin + span.length)
        return np.concatenate([*parts, self.data[at:]])

    def main_dtype(self) -> str:
        """The one that most bytes are of."""
        totals: dict[str, int] = {}
        for span in self.spans:
            totals[span.dtype] = totals.get(span.dtype, 0) + span.length
        return max(totals, key=totals.__getitem__, default="U8")


def spans(path: Path, data: np.ndarray) -> list[Span]:
    if path.suffix == ".safetensors":
        return list(safetensors_spans(data))
    if zipfile.is_zipfile(path):
        return list(torch_spans(path, data))
    return []


def safetensors_header(data: np.ndarray) -> tuple[dict, int]:
    length = int.from_bytes(data[:8].tobytes(), "little")
    return json.loads(data[8 : 8 + length].tobytes()), 8 + length


def safetensors_spans(data: np.ndarray) -> Iterator[Span]:
    header, begin = safetensors_header(data)
    for name, about in header.items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            yield Span(name, about["dtype"], tuple(about["shape"]), begin + first, last - first)


class Stub:
    """Stands for anything of a pickle that is neither a container nor a tensor."""

    def __init__(self, *_: object) -> None:
        pass


class TensorPickle(pickle.Unpickler):
    """torch.save's pickle without torch: a tensor becomes (dtype, storage key, first element, shape)."""

    def find_class(self, module: str, name: str) -> object:
        if name == "OrderedDict":
            return OrderedDict
        if name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return lambda storage, first, shape, *_: ("tensor", *storage, first, tuple(shape))
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return STORAGES.get(name) or Stub

    def persistent_load(self, saved: tuple) -> tuple[str, str]:
        return saved[1], saved[2]


def flattened(thing: object, path: str = "") -> Iterator[tuple[str, tuple]]:
    if isinstance(thing, tuple) and len(thing) == 5 and thing[0] == "tensor":
        yield path, thing[1:]
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from flattened(value, f"{path}.{key}" if path else str(key))
    elif isinstance(thing, list | tuple):
        for index, value in enumerate(thing):
            yield from flattened(value, f"{path}.{index}")


def torch_spans(path: Path, data: np.ndarray) -> Iterator[Span]:
    seen: set[int] = set()
    with zipfile.ZipFile(path) as archive:
        where = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        tree = TensorPickle(io.BytesIO(archive.read(where["data.pkl"]))).load()
    for name, (dtype, key, first, shape) in flattened(tree):
        entry = where[f"data/{key}"]
        # The local header's own name and extra lengths: torch pads there to align the bytes.
        names, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
        begin = entry.header_offset + 30 + names + extra + first * WIDTHS[dtype]
        length = WIDTHS[dtype] * int(np.prod(shape, dtype=np.int64))
        if length and begin not in seen:  # tied weights are one storage under two names
            seen.add(begin)
            yield Span(name, dtype, shape, begin, length)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest, ties to even, as torch does. No NaNs in published weights."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, raw in tensors.values():
            file.write(raw)
    return path


def cast(source: Path, target: Path, dtype: str) -> Path:
    """The F32 tensors of a safetensors file in another dtype, the others as they are."""
    model = Checkpoint(source)
    tensors = {}
    for span in model.spans:
        raw = model.part(span)
        if span.dtype == "F32":
            values = np.frombuffer(raw.tobytes(), np.float32)
            raw = to_bf16(values) if dtype == "BF16" else values.astype(np.float16)
        tensors[span.name] = (dtype if span.dtype == "F32" else span.dtype, span.shape, raw.tobytes())
    return write_safetensors(target, tensors)


def join_shards(shards: list[Path], target: Path) -> Path:
    """One file with the tensors of all shards."""
    tensors = {}
    for shard in map(Checkpoint, shards):
        tensors.update({span.name: (span.dtype, span.shape, shard.part(span).tobytes()) for span in shard.spans})
    return write_safetensors(target, dict(sorted(tensors.items())))
