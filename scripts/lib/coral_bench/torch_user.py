# SPDX-License-Identifier: Apache-2.0
"""The other end of torch_child.py, and the checkpoint that is made when none is named."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from . import places
from .places import Failure

MIX_BYTES = 1_000_000_000
MIX_FOLDERS = ("minilm-finetune-bf16", "minilm-finetune-fp32", "gpt-scratch-adamw")


class TorchUser:
    """A process that has torch, started when it is first asked for something. `with` ends it."""

    def __init__(self, python: Path) -> None:
        self.python, self.prepared = python, Path()
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [str(self.python), "-B", str(Path(__file__).with_name("torch_child.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, env=environment, text=True, **pipes)

    def __enter__(self) -> TorchUser:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.process:
            return
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()

    def ask(self, **request: object) -> float:
        """The seconds it took there."""
        if not self.process:
            self.start()
        try:
            self.process.stdin.write(json.dumps(request, default=str) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.errors.seek(0)
            raise Failure(f"torch_child.py ended: {self.errors.read().decode(errors='replace').strip()[-500:]}")
        answer = json.loads(line)
        if "failure" in answer:
            raise Failure(f"{request['do']} {request.get('how', '')}: {answer['failure']}")
        return answer["seconds"]

    def prepare(self, path: Path) -> None:
        """What is saved from now on."""
        if path != self.prepared:
            self.ask(do="prepare", path=path)
            self.prepared = path


def has(python: Path, *modules: str) -> bool:
    code = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    return subprocess.run([python, "-c", code, *modules], capture_output=True, check=False).returncode == 0


def python_of(venv: Path | None) -> Path | None:
    """Of the environment of scripts/data, unless another is named; None when it has no torch."""
    python = (venv or places.data_folder() / "venv") / "bin/python"
    return python if python.exists() and has(python, "torch", "safetensors") else None


def made_file(python: Path | None) -> Path:
    """A gigabyte of BF16 from the trained series, made once."""
    data = places.data_folder()
    target = data / "bench/mixed-bf16.safetensors"
    if target.exists():
        return target
    suffixes = (".safetensors", ".pth", ".pt")
    found = [p for name in MIX_FOLDERS for p in sorted((data / name).glob("*")) if p.suffix in suffixes]
    if not found or not python:
        lacking = "no checkpoints" if python else "no Python with torch"
        raise Failure(f"{lacking} in {data}: run scripts/data --all, or name a checkpoint with --file")
    places.note(f"making {target}, once")
    target.parent.mkdir(exist_ok=True)
    with TorchUser(python) as torch:
        torch.ask(do="mix", paths=found, path=target, limit=MIX_BYTES)
    return target


def series_pair() -> tuple[Path, Path] | None:
    """Two saves that follow each other."""
    folder = places.data_folder() / "minilm-finetune-bf16"
    base, tuned = (folder / f"step-{step}-bf16.safetensors" for step in ("0030", "0045"))
    return (base, tuned) if base.exists() and tuned.exists() else None


def pretrained_folder(python: Path | None) -> Path | None:
    """A folder that from_pretrained takes; None without one or without transformers."""
    for path in sorted(places.data_folder().glob("*minilm*/config.json")):
        if python and (path.parent / "model.safetensors").exists() and has(python, "transformers"):
            return path.parent
    return None
