# SPDX-License-Identifier: Apache-2.0
"""Files of which nothing is decoded yet: many readers at once see the right bytes, and the daemon keeps its budget."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from driver import Repo, cp, wait_for
from material import safetensors_bytes

MIB = 1 << 20
MEMORY, BESIDES = 32, 48  # MiB; 96 are promised, with 20,000 open files
OPTIONS = f"memory={MEMORY}M,hot_size=0,materialize=never"

# FILE SOURCE HOW SEED: compares all of the file, in an order of its own.
READER = """
import mmap, os, random, sys
path, source, how, seed = sys.argv[1:]
PIECE = 1 << (12 if how == "faults" else 20)
with open(path, "rb", buffering=0) as file, open(source, "rb") as right:
    size = os.fstat(file.fileno()).st_size
    assert size == os.fstat(right.fileno()).st_size
    wanted = mmap.mmap(right.fileno(), 0, prot=mmap.PROT_READ)
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    if how == "hints":
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        view.madvise(22)  # MADV_POPULATE_READ
    pieces = list(range(0, size, PIECE))
    if how in ("random", "faults"):
        random.Random(int(seed)).shuffle(pieces)
        pieces = pieces[: 4096 if how == "faults" else None]
    elif int(seed) % 2:
        pieces.reverse()
    for at in pieces:
        end = min(size, at + PIECE)
        got = os.pread(file.fileno(), end - at, at) if how == "read" else view[at:end]
        assert got == wanted[at:end], f"{at}: other bytes"
"""


@pytest.fixture(scope="module")
def saves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A BF16 model of tensors of several sizes, and what a little training made of it."""
    folder = tmp_path_factory.mktemp("saves")
    random = np.random.default_rng(1)
    sizes = [12_000_000, 4096, 9_000_000, 700_000, 1000, 15_000_000, 3]
    weights = [random.standard_normal(size, dtype=np.float32) * np.float32(0.02) for size in sizes]
    paths = []
    for number in range(2):
        tensors = [
            (f"layer.{i}", "BF16", [w.size], (w.view(np.uint32) >> 16).astype("<u2").tobytes())
            for i, w in enumerate(weights)
        ]
        paths.append(folder / f"save-{number}.safetensors")
        paths[-1].write_bytes(safetensors_bytes(tensors))
        weights = [w + random.standard_normal(w.size, dtype=np.float32) * np.float32(2e-5) for w in weights]
    return paths


def anonymous_mib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) // 1024


def commit_cold(repo: Repo, saves: list[Path]) -> None:
    repo.mount("-o", OPTIONS)
    for path in saves:
        cp(path, repo.main / path.name)
        repo.commit(path.stem)
    wait_for("nothing is plain", lambda: repo.json("stats")["staging_bytes"] == 0, 60)
    repo.remount("-o", OPTIONS)


def eight_readers(repo: Repo, saves: list[Path], how: str) -> int:
    """The most anonymous memory that the daemon had meanwhile."""
    command = [sys.executable, "-c", READER, repo.main / saves[1].name, saves[1], how]
    readers = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE) for seed in range(8)]
    daemon, most = repo.json("mount-info", repo.mnt)["worker_pid"], 0
    try:
        while any(reader.poll() is None for reader in readers):
            most = max(most, anonymous_mib(daemon))
            time.sleep(0.005)
    finally:
        failures = [reader.communicate(timeout=120)[1].decode() for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * 8, (how, failures)
    return most


def test_eight_readers_of_one_cold_file(repo: Repo, saves: list[Path]) -> None:
    commit_cold(repo, saves)
    for how in ("map", "read", "random", "faults", "hints"):
        assert eight_readers(repo, saves, how) <= MEMORY + BESIDES, how
        repo.remount("-o", OPTIONS)


def test_what_was_read_leaves_the_daemons_memory(repo: Repo, saves: list[Path]) -> None:
    """The kernel has its pages: keeping them a second time would cost memory and page faults."""
    commit_cold(repo, saves)
    daemon = repo.json("mount-info", repo.mnt)["worker_pid"]
    before = anonymous_mib(daemon)
    assert (repo.main / saves[1].name).read_bytes() == saves[1].read_bytes()
    assert anonymous_mib(daemon) - before < 48


def test_pages_of_a_mapping_that_is_let_go_come_again(repo: Repo, saves: list[Path]) -> None:
    commit_cold(repo, saves)
    right = saves[1].read_bytes()
    with open(repo.main / saves[1].name, "rb") as file:
        for _ in range(3):
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                assert view[:] == right
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
