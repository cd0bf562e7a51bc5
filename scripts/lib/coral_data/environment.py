# SPDX-License-Identifier: Apache-2.0
"""The Python environment that trains and tests: made once, topped up when this file asks for more."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

from .report import Failure, say

# torch by its exact version and first of all: a plain `torch`, or one that another package asks for, would be the
# newest build with gigabytes of CUDA packages.
TORCH = "torch==2.13.0"
TRAINING = ("numpy", "safetensors", "transformers")
TESTS = (*TRAINING, "accelerate", "gguf", "lightning", "onnx", "pytest", "pytest-timeout", "pytest-xdist")
LEVELS = {"training": TRAINING, "tests": TESTS}
CUDA = re.compile(r"^(nvidia|cuda|triton)\b", re.IGNORECASE)
# What pip says on its way, before it ends with a mere "No matching distribution found": the first pattern is the better one.
CAUSES = ("Could not fetch URL", "after connection broken by")


def pip(venv: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def last_lines(text: str, count: int = 6) -> str:
    return "\n".join([line for line in text.strip().splitlines() if not line.startswith("WARNING")][-count:])


def why(pip_run: subprocess.CompletedProcess[str]) -> str:
    """The last lines of a pip that failed, after the one that names the cause. Not for --quiet, which leaves that out."""
    lines = (pip_run.stdout + "\n" + pip_run.stderr).splitlines()
    named = [[line.strip() for line in lines if cause in line] for cause in CAUSES]
    cause = next((found[-1] for found in named if found), "")
    return "\n".join(filter(None, [cause, last_lines(pip_run.stderr)]))


def create(venv: Path) -> None:
    if (venv / "bin" / "python").exists() and pip(venv, "--version").returncode == 0:
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise Failure("this Python cannot make environments; install it: apt-get install python3-venv")
    say(f"making a Python environment in {venv}")
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"no Python environment in {venv}: {last_lines(done.stdout + done.stderr)}")


def installed(venv: Path) -> dict[str, str]:
    done = pip(venv, "list", "--format=json")
    if done.returncode:
        raise Failure(f"pip in {venv} does not work: {last_lines(done.stderr)}")
    return {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(done.stdout)}


def install(venv: Path, level: str, allow_cuda: bool) -> None:
    """Make sure of torch and of the packages of `level`, and that they did not change torch behind our back."""
    have = installed(venv)
    wanted_torch = TORCH.partition("==")[2]
    if have.get("torch", "").partition("+")[0] != wanted_torch:
        install_torch(venv, allow_cuda)
        have = installed(venv)
    missing = [name for name in LEVELS[level] if name not in have]
    if not missing:
        return
    say(f"installing {', '.join(missing)}")
    pinned = venv / "constraints.txt"
    pinned.write_text(f"torch=={have['torch']}\n")
    done = pip(venv, "install", "--constraint", pinned, *missing)
    if done.returncode:
        raise Failure(f"pip could not install {' '.join(missing)}: {why(done)}")
    now = installed(venv)
    if now["torch"] != have["torch"]:
        raise Failure(f"torch {have['torch']} was replaced by {now['torch']}: remove {venv} and run this again")
    check_no_cuda(set(now) - set(have), allow_cuda)


def install_torch(venv: Path, allow_cuda: bool) -> None:
    report = venv / "torch-plan.json"
    plan = pip(venv, "install", "--dry-run", "--report", report, TORCH)
    if plan.returncode:
        raise Failure(f"pip finds no {TORCH} for this Python {sys.version.split()[0]}: {why(plan)}")
    # Asked before it is downloaded: gigabytes are no surprise to spring on somebody who wants to try a filesystem.
    check_no_cuda({item["metadata"]["name"] for item in json.loads(report.read_text())["install"]}, allow_cuda)
    report.unlink()
    say(f"installing {TORCH}")
    done = pip(venv, "install", TORCH)
    if done.returncode:
        raise Failure(f"pip could not install {TORCH}: {why(done)}")


def check_no_cuda(names: set[str], allow_cuda: bool) -> None:
    cuda = sorted(name for name in names if CUDA.match(name))
    if cuda and not allow_cuda:
        raise Failure(
            f"pip would bring {len(cuda)} CUDA packages ({', '.join(cuda[:3])}, …); a CPU build of torch suffices: "
            "configure pip to find one (find-links or an extra index in pip.conf), or say --allow-cuda"
        )
