# SPDX-License-Identifier: Apache-2.0
"""Loads a checkpoint in every way its format has, and compares two outcomes bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equality of the bytes, whatever the dtype: it must tell NaNs apart, and -0.0 from 0.0."""
    if a.dtype != b.dtype or a.shape != b.shape or a.stride() != b.stride():
        return False
    if a.numel() == 0:
        return True
    return torch.equal(*(t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


def differ(a: Any, b: Any, where: str = "") -> str:
    """Where and how two loaded things differ; empty when they are equal to the bit."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} and {type(b).__name__}"
    if isinstance(a, torch.Tensor):
        if a.is_sparse:
            return differ(a.coalesce().indices(), b.coalesce().indices(), where) or differ(
                a.coalesce().values(), b.coalesce().values(), where
            )
        return "" if same_bits(a, b) else f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)} differ"
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.flags.f_contiguous == b.flags.f_contiguous
        if same and a.dtype == object:
            return differ(a.tolist(), b.tolist(), where)
        return "" if same and a.tobytes() == b.tobytes() else f"{where}: arrays differ"
    if isinstance(a, Mapping):
        if list(a) != list(b):
            return f"{where}: keys {list(a)[:5]} and {list(b)[:5]}"
        return next((d for k in a if (d := differ(a[k], b[k], f"{where}.{k}"))), "")
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{where}: lengths {len(a)} and {len(b)}"
        return next((d for i, (x, y) in enumerate(zip(a, b, strict=True)) if (d := differ(x, y, f"{where}[{i}]"))), "")
    if isinstance(a, torch.jit.ScriptModule):
        return differ(dict(a.state_dict()), dict(b.state_dict()), where)
    if isinstance(a, float) and a != a:
        return "" if b != b else f"{where}: nan and {b}"
    return "" if a == b else f"{where}: {a!r} and {b!r}"


def outcome(load: Callable[[Path], Any], path: Path) -> Any:
    """What loading gives, or how it fails: a file that torch refuses must be refused in the same way from the mount."""
    try:
        return load(path)
    except Exception as error:
        # An OSError is the filesystem's doing and never the same as a parser's refusal of the same bytes.
        return {"refused": type(error).__name__, "errno": getattr(error, "errno", None)}


def load_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt", device="cpu") as file:
        found: dict[str, Any] = {name: file.get_tensor(name) for name in sorted(file.keys())}
        found["metadata"] = file.metadata()
        # A slice reads only a part of the mapping: another path through the page cache than whole tensors.
        found["slices"] = [
            file.get_slice(name)[: max(1, file.get_slice(name).get_shape()[0] // 3)]
            for name in sorted(file.keys())
            if len(file.get_slice(name).get_shape()) > 1 and 0 not in file.get_slice(name).get_shape()
        ]
    return found


def load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def load_torch_mapped(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def load_script(path: Path) -> Any:
    return torch.jit.load(str(path), map_location="cpu")


def load_array(path: Path) -> Any:
    return np.load(path, mmap_mode="r")


def load_archive(path: Path) -> Any:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def loaders(path: Path) -> list[Callable[[Path], Any]]:
    if path.suffix == ".safetensors":
        return [load_safetensors]
    if path.suffix in TORCH_SUFFIXES:
        return [load_torch, load_torch_mapped]
    return {".jit": [load_script], ".npy": [load_array], ".npz": [load_archive]}.get(path.suffix, [])


def assert_loads_alike(places: list[Path], source: Path) -> int:
    """Every checkpoint in each place loads, in each way it can be loaded, to what the one in `source` does. Returns how
    many loads of the source gave something: a test of refusals alone would prove little."""
    count = 0
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        for load in loaders(path):
            wanted = plain(outcome(load, path))
            count += not (isinstance(wanted, dict) and "refused" in wanted)
            for place in places:
                there = place / path.relative_to(source)
                difference = differ(wanted, plain(outcome(load, there)))
                assert not difference, f"{load.__name__}({there}): {difference}"
    return count


def plain(value: Any) -> Any:
    """A memory-mapped array as an ordinary one; the mapping's own type says nothing about the bytes."""
    return np.asarray(value) if isinstance(value, np.memmap) else value
