# SPDX-License-Identifier: Apache-2.0
"""CoralFS through its real programs: a repository for stored bytes, codec_bench for speed in memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

from .places import Failure

ANSWERS = (0, 1)  # 1: nothing to commit, as when a file is there already


class Repository:
    def __init__(self, programs: Path, place: Path) -> None:
        self.coral, self.path = programs / "coral", place
        self.environment = {**os.environ, "CORAL_AUTHOR_NAME": "bench", "CORAL_AUTHOR_EMAIL": "bench@example.org"}
        self.run("init", place)

    def run(self, *arguments: object, ok: tuple[int, ...] = (0,)) -> bytes:
        command = [str(self.coral), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        if done.returncode not in ok:
            raise Failure(f"coral {' '.join(command[1:])}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def add(self, file: Path, name: str | Path) -> None:
        self.run("-C", self.path, "add", "-q", file, "--as", name)

    def commit(self, message: str) -> None:
        self.run("-C", self.path, "commit", "-q", "-m", message, ok=ANSWERS)

    def pack_bytes(self) -> int:
        return sum(pack.stat().st_size for pack in (self.path / "packs").rglob("*") if pack.is_file())

    def all_bytes(self) -> int:
        return sum(file.lstat().st_size for file in self.path.rglob("*") if file.is_file())

    def comes_back(self, name: str, file: Path) -> tuple[bool, float]:
        """Whether the file of the last commit has the bytes of `file`, and the seconds that `coral cat` took."""
        began = time.monotonic()
        command = [str(self.coral), "-C", str(self.path), "cat", f"HEAD:{name}"]
        digest = hashlib.sha256()
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE)
        spent = 0.0
        with process, process.stdout as pipe:
            while part := pipe.read(1 << 20):
                before = time.monotonic()
                digest.update(part)
                spent += time.monotonic() - before
        seconds = time.monotonic() - began - spent
        with file.open("rb") as source:
            wanted = hashlib.file_digest(source, "sha256")
        return process.returncode == 0 and digest.digest() == wanted.digest(), seconds


def stored(programs: Path, place: Path, given: tuple[Path, ...], new: tuple[Path, ...]) -> dict[str, object]:
    """What the new files add to the packs of a repository that has the given ones, each in a commit of its own."""
    repository = Repository(programs, place)
    for number, file in enumerate(given):
        repository.add(file, f"given-{number}/{file.name}")
        repository.commit(f"given {number}")
    before, seconds, reading, exact = repository.pack_bytes(), 0.0, 0.0, True
    for number, file in enumerate(new):
        began = time.monotonic()
        repository.add(file, f"new-{number}/{file.name}")
        repository.commit(f"new {number}")
        seconds += time.monotonic() - began
    for number, file in enumerate(new):
        same, took = repository.comes_back(f"new-{number}/{file.name}", file)
        exact, reading = exact and same, reading + took
    grown = repository.pack_bytes() - before
    return {"stored_bytes": grown, "exact": exact, "add_seconds": seconds, "cat_seconds": reading}


def in_memory(programs: Path, new: Path, base: Path | None) -> dict[str, float] | None:
    """Seconds of processor time for one encoding and one decoding, and the raw bytes; None without codec_bench."""
    program = programs / "codec_bench"
    if not program.exists():
        return None
    command = [program, new, *([base] if base else []), "1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise Failure(f"codec_bench: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    size = said["raw_bytes"]
    return {
        "raw": size,
        "encode": size / 1e9 / said["encode_gbs"],
        "decode": size / 1e9 / said["decode_gbs"],
        "exact": said["exact"],
    }
