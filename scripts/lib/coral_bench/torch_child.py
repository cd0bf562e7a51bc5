# SPDX-License-Identifier: Apache-2.0
"""Saves and loads in a process of their own: run by the Python that has torch, with one JSON request per line.

  {"do": "prepare", "path": …}               the tensors to save are those of this file
  {"do": "save", "how": …, "path": …}        how: torch.save, save_file
  {"do": "load", "how": …, "path": …}        how: torch.load, load_file, load_file and touch, from_pretrained
  {"do": "mix", "paths": […], "path": …, "limit": …}   a checkpoint of BF16 tensors of all these files

Each answer is a line: {"seconds": …} or {"failure": …}. Only what is named is timed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import safetensors.torch
import torch

PAGE = 4096
SMALL = 1000  # elements: norms and biases stay as they are


def load(path: str) -> object:
    return safetensors.torch.load_file(path) if path.endswith(".safetensors") else torch.load(path, weights_only=True)


def tensors_of(value: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Optimizers and steps are in dictionaries and lists inside each other."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_of(inner, f"{name}.{key}" if name else str(key))


def load_and_touch(path: str) -> None:
    for _, tensor in tensors_of(safetensors.torch.load_file(path)):
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        flat[::PAGE].sum().item()


def from_pretrained(path: str) -> object:
    import transformers

    return transformers.AutoModel.from_pretrained(path)


def mix(paths: list[str], target: str, limit: int) -> None:
    found, size = {}, 0
    for number, path in enumerate(paths):
        for name, tensor in tensors_of(load(path)) if size < limit else ():
            if size >= limit:
                break
            if tensor.is_floating_point() and tensor.numel() > SMALL:
                tensor = tensor.to(torch.bfloat16)
            found[f"{number}.{name}"] = tensor.clone().contiguous()
            size += tensor.numel() * tensor.element_size()
    safetensors.torch.save_file(found, f"{target}.part")
    os.rename(f"{target}.part", target)


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    kept = action()
    took = time.perf_counter() - begin
    del kept
    gc.collect()
    return took


class Child:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.savers = {
            "torch.save": lambda path: torch.save(self.tensors, path),
            "save_file": lambda path: safetensors.torch.save_file(self.tensors, path),
        }
        self.loaders = {
            "torch.load": lambda path: torch.load(path, weights_only=True),
            "load_file": safetensors.torch.load_file,
            "load_file and touch": load_and_touch,
            "from_pretrained": from_pretrained,
        }

    def answer(self, request: dict) -> float:
        path = request["path"]
        if request["do"] == "prepare":
            # Copies: load_file's tensors would be read from the file while they are saved.
            self.tensors = {name: tensor.clone() for name, tensor in tensors_of(load(path))}
            return 0
        if request["do"] == "mix":
            return seconds(lambda: mix(request["paths"], path, request["limit"]))
        action = (self.savers if request["do"] == "save" else self.loaders)[request["how"]]
        return seconds(lambda: action(path))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not get between
    child = Child()
    for line in sys.stdin:
        try:
            answer = {"seconds": child.answer(json.loads(line))}
        except Exception as error:  # noqa: BLE001  whatever it is, the parent says it
            answer = {"failure": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
