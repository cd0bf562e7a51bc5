# SPDX-License-Identifier: Apache-2.0
"""Other coders behind one interface: a piece of a checkpoint in, bytes out, and back.

A piece is a tensor for those that code tensors, the whole file for those that code files. What a store would need
besides (names, lengths, offsets) is not counted against the peers.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoints import WIDTHS, Checkpoint
from .places import Failure

ZIPNN_TYPES = {"BF16": "bfloat16", "F32": "float32", "F16": "float16", "I8": "float8_e4m3fn"}


@dataclass(frozen=True)
class Piece:
    raw: np.ndarray  # of bytes
    dtype: str = "U8"
    base: np.ndarray | None = None
    files: tuple[Path, Path | None] | None = None

    @property
    def width(self) -> int:
        return WIDTHS[self.dtype]


class Peer:
    """Codes tensors, without a base unless it says so."""

    name = ""
    module = ""
    install = ""
    delta = False  # codes differences to a base
    needs_base = False  # and is something else, or nothing, without
    slow = False

    def __init__(self) -> None:
        try:
            self.library = importlib.import_module(self.module)
        except ImportError as error:
            raise Failure(f"{self.name}: {error}: {self.install}") from None

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    def pieces(self, new: Checkpoint, base: Checkpoint | None) -> Iterator[Piece]:
        """Its tensors, then the rest of the file. A base is the tensor of the same name, dtype and length."""
        known = {span.name: span for span in base.spans} if base and self.delta else {}
        for span in new.spans:
            old = known.get(span.name)
            same = old and old.dtype == span.dtype and old.length == span.length
            yield Piece(new.part(span), span.dtype, base.part(old) if same else None)
        yield Piece(new.rest())

    def take(self, piece: Piece) -> object:
        """The piece as encode() wants it; not part of the time."""
        return piece

    def encode(self, taken: object) -> bytes:
        raise NotImplementedError

    def decode(self, coded: bytes, piece: Piece) -> object:
        raise NotImplementedError


class WholeFile(Peer):
    def pieces(self, new: Checkpoint, base: Checkpoint | None) -> Iterator[Piece]:
        yield Piece(new.data, new.main_dtype(), None, (new.path, base.path if base and self.delta else None))


class Zstd(WholeFile):
    name, module, install, level = "zstd -3", "zstandard", "pip install zstandard", 3

    def encode(self, taken: Piece) -> bytes:
        # --long=27 where the level is for the smallest: as the command would be used.
        if self.level < 19:
            return self.library.ZstdCompressor(level=self.level).compress(taken.raw)
        settings = self.library.ZstdCompressionParameters.from_level(self.level, window_log=27, enable_ldm=True)
        return self.library.ZstdCompressor(compression_params=settings).compress(taken.raw)

    def decode(self, coded: bytes, piece: Piece) -> object:
        return self.library.ZstdDecompressor(max_window_size=1 << 27).decompress(coded)


class Zstd19(Zstd):
    name, level, slow = "zstd -19 --long=27", 19, True


class ZstdPatch(WholeFile):
    """The command: the Python package has no patch-from. Its time includes reading and writing the files."""

    name, install, delta = "zstd -3 --patch-from", "apt-get install zstd", True
    needs_base = True

    def __init__(self) -> None:
        if not self.available():
            raise Failure(f"{self.name}: no zstd: {self.install}")
        self.folder = tempfile.TemporaryDirectory(prefix="coral-bench-")

    @classmethod
    def available(cls) -> bool:
        return shutil.which("zstd") is not None

    def run(self, source: Path, base: Path | None, *options: str) -> bytes:
        target = Path(self.folder.name) / "out"
        told = [f"--patch-from={base}"] if base else []
        subprocess.run(
            ["zstd", "-qf", "--single-thread", "--long=30", *options, *told, source, "-o", target], check=True
        )
        return target.read_bytes()

    def encode(self, taken: Piece) -> bytes:
        new, base = taken.files or (Path(), None)
        return self.run(new, base, "-3")

    def decode(self, coded: bytes, piece: Piece) -> object:
        packed = Path(self.folder.name) / "in.zst"
        packed.write_bytes(coded)
        return self.run(packed, piece.files[1] if piece.files else None, "-d")


class ZipNN(WholeFile):
    name, module, install = "zipnn", "zipnn", "pip install zipnn==0.5.4"

    def coder(self, piece: Piece) -> object:
        told = {"delta_compressed_type": "byte"} if self.usable(piece) else {}
        kind = ZIPNN_TYPES.get(piece.dtype, "float32")
        return self.library.ZipNN(bytearray_dtype=kind, input_format="byte", is_streaming=True, threads=1, **told)

    def usable(self, piece: Piece) -> bool:
        return self.delta and piece.base is not None

    def take(self, piece: Piece) -> tuple[Piece, bytes, bytes | None]:
        """Copies, for compress() changes what it is given. 0.5.4 breaks the heap when elements are cut in two."""
        whole = piece.raw.size - piece.raw.size % 4
        return piece, piece.raw[:whole].tobytes(), piece.base[:whole].tobytes() if self.usable(piece) else None

    def encode(self, taken: tuple[Piece, bytes, bytes | None]) -> bytes:
        piece, raw, base = taken
        coder = self.coder(piece)
        coded = coder.compress(raw, delta_second_data=base) if base else coder.compress(raw)
        return bytes(coded) + piece.raw[len(raw) :].tobytes()

    def decode(self, coded: bytes, piece: Piece) -> object:
        rest = piece.raw.size % 4
        body = memoryview(coded)[: len(coded) - rest]
        told = {"delta_second_data": piece.base[: piece.raw.size - rest].tobytes()} if self.usable(piece) else {}
        return bytes(self.coder(piece).decompress(body, **told)) + coded[len(coded) - rest :]


class ZipNNDelta(ZipNN):
    """Its base must be as long as the file. So it is laid out as the new file is, with zeros where it has no such
    tensor: more than zipnn does by itself, and not part of the time."""

    name, delta, needs_base = "zipnn, delta", True, True

    def pieces(self, new: Checkpoint, base: Checkpoint | None) -> Iterator[Piece]:
        laid_out = np.zeros_like(new.data) if base else None
        if base:
            known = {span.name: span for span in base.spans}
            for span in new.spans:
                old = known.get(span.name)
                if old and old.dtype == span.dtype and old.length == span.length:
                    new_part = slice(span.begin, span.begin + span.length)
                    laid_out[new_part] = base.part(old)
        yield Piece(new.data, new.main_dtype(), laid_out)


class OpenZL(Peer):
    """The graphs of its own safetensors profile, which the wheel does not have: exponents by FSE, the rest as it is."""

    name, module, install = "openzl", "openzl.ext", "pip install openzl==0.3.0"

    def __init__(self) -> None:
        super().__init__()
        self.compressors = {dtype: self.compressor(dtype) for dtype in ("F32", "BF16", "F16", "")}

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("openzl") is not None

    def compressor(self, dtype: str) -> object:
        made = self.library.Compressor()
        nodes, graphs = self.library.nodes, self.library.graphs
        if dtype in ("F32", "BF16"):
            node = nodes.Float32Deconstruct() if dtype == "F32" else nodes.BFloat16Deconstruct()
            start = node(made, sign_frac=graphs.Store()(made), exponent=graphs.Fse()(made))
        elif dtype == "F16":
            start = nodes.ConvertNumToStructLE()(made, nodes.TransposeSplit()(made, graphs.Fse()(made)))
        else:
            start = graphs.Compress()(made)
        made.select_starting_graph(start)
        return made

    def encode(self, taken: Piece) -> bytes:
        z = self.library
        if taken.dtype in ("F32", "BF16", "F16"):
            data = z.Input(z.Type.Numeric, taken.raw.view(np.uint32 if taken.width == 4 else np.uint16))
        else:
            data = z.Input(z.Type.Serial, taken.raw)
        context = z.CCtx()
        context.ref_compressor(self.compressors.get(taken.dtype, self.compressors[""]))
        context.set_parameter(z.CParam.FormatVersion, z.MAX_FORMAT_VERSION)
        return context.compress([data])

    def decode(self, coded: bytes, piece: Piece) -> object:
        return self.library.DCtx().decompress(coded)[0].content.as_bytes()


class Blosc2(Peer):
    name, module, install = "blosc2 (bitshuffle, zstd 5)", "blosc2", "pip install blosc2"

    def encode(self, taken: Piece) -> bytes:
        b = self.library
        b.set_nthreads(1)
        return b.compress2(taken.raw, typesize=taken.width, codec=b.Codec.ZSTD, clevel=5, filters=[b.Filter.BITSHUFFLE])

    def decode(self, coded: bytes, piece: Piece) -> object:
        return self.library.decompress2(coded, nthreads=1)


class XorPlanes(Peer):
    """A yardstick rebuilt here, not a program of others: XOR with the base, planes of bytes, zstd -3."""

    name, module, install, delta = "xor + planes + zstd -3 (rebuilt)", "zstandard", "pip install zstandard", True

    def encode(self, taken: Piece) -> bytes:
        """Each plane a frame of its own, or the literals of two would share a table; their lengths first."""
        mixed = taken.raw if taken.base is None else taken.raw ^ taken.base
        planes = np.ascontiguousarray(mixed.reshape(-1, taken.width).T)
        frames = [self.library.ZstdCompressor(level=3).compress(plane) for plane in planes]
        return b"".join([*(len(frame).to_bytes(4, "little") for frame in frames), *frames])

    def decode(self, coded: bytes, piece: Piece) -> object:
        lengths, at = np.frombuffer(coded, "<u4", piece.width), 4 * piece.width
        planes = np.empty((piece.width, piece.raw.size // piece.width), np.uint8)
        for plane, length in zip(planes, lengths.tolist(), strict=True):
            plane[:] = np.frombuffer(self.library.ZstdDecompressor().decompress(coded[at : at + length]), np.uint8)
            at += length
        mixed = np.ascontiguousarray(planes.T).reshape(-1)
        return mixed if piece.base is None else mixed ^ piece.base


class FMDelta(Peer):
    """As its own code does, tensors without a base are stored raw. BF16 goes in as 16-bit words of FP16."""

    name, module, delta, needs_base = "FM-Delta", "fmd", True, True
    install = "build it from github.com/ningwanyi/FM-Delta (it has no licence), as its README says"
    TYPES = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "BF16": np.float16}

    def __init__(self) -> None:
        importlib.import_module("torch")  # before it, or its extension does not load
        super().__init__()

    def usable(self, piece: Piece) -> bool:
        return piece.base is not None and piece.dtype in self.TYPES and piece.raw.size > 0

    def viewed(self, data: np.ndarray, piece: Piece) -> np.ndarray:
        return data.view(self.TYPES[piece.dtype])

    def take(self, piece: Piece) -> tuple[Piece, np.ndarray, np.ndarray | None]:
        if not self.usable(piece):
            return piece, piece.raw, None
        return piece, self.viewed(piece.raw.copy(), piece), self.viewed(piece.base.copy(), piece)

    def encode(self, taken: tuple[Piece, np.ndarray, np.ndarray | None]) -> bytes:
        _, raw, base = taken
        return raw.tobytes() if base is None else self.library.compress_param(base, raw)

    def decode(self, coded: bytes, piece: Piece) -> object:
        if not self.usable(piece):
            return coded
        base = self.viewed(piece.base.copy(), piece)
        return np.ascontiguousarray(self.library.decompress_param(coded, base)).view(np.uint8).reshape(-1)


PEERS: dict[str, type[Peer]] = {
    "zstd": Zstd,
    "zstd-19": Zstd19,
    "zstd-patch": ZstdPatch,
    "zipnn": ZipNN,
    "zipnn-delta": ZipNNDelta,
    "openzl": OpenZL,
    "blosc2": Blosc2,
    "xor-planes": XorPlanes,
    "fm-delta": FMDelta,
}
