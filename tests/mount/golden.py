# SPDX-License-Identifier: Apache-2.0
"""The golden repository: what an earlier version left on disk, which every later one must read to the byte.

tests/golden/repository was made once, by the version that its FORMAT file names, and is never made anew: a new format
gets a second one beside it. As a program it makes one:

    CORAL_BIN=build/dev/bin PYTHON tests/mount/golden.py NEW_FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from driver import ROOT, Coral, Repo, is_incomplete, sha256sum
from small_files import noise

GOLDEN = ROOT / "tests/golden/repository"
MANIFEST = ROOT / "tests/golden/repository.json"


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Everything that a tree has of each of its names. Names that are no UTF-8 come escaped."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        row: dict[str, Any] = {"mode": oct(status.st_mode)}
        if stat.S_ISLNK(status.st_mode):
            row["link"] = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            row |= {"size": status.st_size, "sha256": sha256sum([path])[0]}
            row |= {"incomplete": True} if is_incomplete(path) else {"mtime_ns": status.st_mtime_ns}
        names = [n for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user.")]
        row |= {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in names}
        found[repr(os.fsencode(path.relative_to(folder)))[2:-1]] = row
    assert found, f"{folder} is empty"
    return found


def describe_repository(repo: Repo) -> dict[str, Any]:
    """Branches, tags, history and every tree, through a mount."""
    branches = repo.branches()
    commits = {c["id"]: c for name in branches for c in repo.log(name)}.values()
    return {
        "branches": branches,
        "current": repo.current_branch(),
        "tags": repo.tags(),
        "log": [{key: c[key] for key in ("id", "parents", "author", "message")} for c in commits],
        "commits": {c["id"]: describe(repo.commit_dir(c["id"])) for c in commits},
        "worktrees": {name: describe(repo.branch(name)) for name in branches},
        "status": repo.status(),
    }


def weights(seed: int, rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(rows, 64, generator=generator) * 0.02,
        "layer.0.weight": (torch.randn(64, 96, generator=generator) * 0.05).to(torch.bfloat16),
        "layer.0.bias": torch.zeros(96),
        "steps": torch.tensor(seed),
        "odd": torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45]),
    }


def first_version(main: Path) -> None:
    state = weights(1, 200)
    safetensors.torch.save_file(state, main / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, main / "model.pth")
    (main / "big.bin").write_bytes(noise(270_000, 1))
    (main / "runs/one").mkdir(parents=True)
    (main / "runs/one/config.json").write_text('{"hidden_size": 64}\n')
    (main / "runs/one/notes.txt").write_text("loss 0.31\n" * 40)
    (main / "empty").touch()
    (main / "zeros").write_bytes(bytes(100_000))
    (main / "train.sh").write_text("#!/bin/sh\nexec python train.py\n")
    (main / "train.sh").chmod(0o755)
    (main / "latest").symlink_to("runs/one")
    (main / os.fsdecode(b"\xff name")).write_bytes(b"a name that is no text")
    os.setxattr(main / "model.pth", "user.note", b"kept\0whole")
    os.utime(main / "big.bin", ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))


def second_version(main: Path) -> None:
    state = weights(1, 200)
    state["embed.weight"] = torch.cat([state["embed.weight"], weights(3, 16)["embed.weight"]])
    safetensors.torch.save_file(state, main / "model.safetensors", metadata={"format": "pt"})
    (main / "runs/one/notes.txt").unlink()
    (main / "runs/one").rename(main / "runs/two")
    (main / "latest").unlink()
    (main / "latest").symlink_to("runs/two")


def make(repo: Repo) -> None:
    repo.mount()
    first_version(repo.main)
    repo.commit("first version\n\nwith a body")
    repo.run("tag", "-m", "an annotated tag", "v1")
    repo.run("branch", "fine-tune")
    second_version(repo.main)
    repo.commit("rows appended, a folder renamed")
    repo.run("tag", "light")
    tuned = repo.branch("fine-tune")
    torch.save(weights(2, 200), tuned / "model.pth")
    repo.commit("another seed", branch="fine-tune")
    repo.remount()  # empties the database's log
    # What a crash leaves: a stored file changed in its middle, a file half written, both promised by fsync.
    for name, offset, data in (("big.bin", 100_000, b"changed"), ("half.bin", 0, noise(5000, 9))):
        descriptor = os.open(repo.main / name, os.O_CREAT | os.O_WRONLY, 0o644)
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    repo.kill()


def clone_golden(to: Path) -> None:
    shutil.copytree(GOLDEN, to, dirs_exist_ok=True)


def main() -> None:
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="coral-") as folder:
        repo = Repo(Coral(Path(folder) / "home"), Path(folder))
        try:
            make(repo)
            shutil.copytree(repo.path, target, ignore=shutil.ignore_patterns("run", "*-shm", "*lock"))
            repo.heal()
            described = describe_repository(repo)
            repo.umount()
        finally:
            repo.clean_up()
    target.with_suffix(".json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
