# SPDX-License-Identifier: Apache-2.0
"""Whoever saves faster than what he saved is stored is slowed down, with everybody else who saves; readers are not."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from driver import Repo
from small_files import noise

MIB = 1 << 20
PACE = 16 * MIB
"""Bytes a second, of all writers together."""
WRITERS = 24
"""More than the daemon has threads on a small machine."""
PIECE = 256 << 10
"""One request each: everybody has had a turn after 0.4 s."""


def is_stored(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "user.coral.sha256"))
    except OSError:
        return False


@pytest.mark.parametrize("passthrough", ["auto", "off"])
def test_a_writer_is_slowed_down_while_ingest_is_behind(repo: Repo, passthrough: str) -> None:
    """What may wait is a byte: the next save waits for the one before it, and is not written by the kernel."""
    repo.mount("-o", f"passthrough={passthrough},backlog=1")
    data = noise(128 * MIB)
    for attempt in range(10):  # how long storing takes is the machine's affair
        saved, following = repo.main / f"saved-{attempt}", repo.main / f"next-{attempt}"
        saved.write_bytes(data[attempt:])
        with open(following, "wb", buffering=0) as file:
            if os.getxattr(following, "user.coral.io") == b"passthrough":
                continue
            begin = time.monotonic()
            file.write(data[:MIB])
            waited = time.monotonic() - begin
            assert is_stored(saved) or waited >= MIB / PACE, "the write did not wait"
            file.write(data[MIB:])
        assert following.read_bytes() == data
        repo.commit("both")
        return
    pytest.fail("ingest was never behind")


def write_until(path: Path, stop: threading.Event, done: list[tuple[float, int]]) -> None:
    with open(path, "wb", buffering=0) as file:
        while not stop.is_set():
            file.write(bytes([len(done) % 256]) * PIECE)
            done.append((time.monotonic(), PIECE))


def test_many_writers_share_one_pace(repo: Repo) -> None:
    """Together they bring no more than one would, so that ingest catches up; `ls` and readers do not wait for them."""
    repo.mount("-o", "passthrough=off,backlog=1")
    (repo.main / "small").write_bytes(b"small")
    repo.commit("small")
    for attempt in range(5):
        large = repo.main / f"large-{attempt}"
        large.write_bytes(b"".join(noise(128 * MIB, 10 * attempt + i) for i in range(6)))
        begin = time.monotonic()
        stop = threading.Event()
        done: list[list[tuple[float, int]]] = [[] for _ in range(WRITERS)]
        threads = [
            threading.Thread(target=write_until, args=(repo.main / f"w-{attempt}-{i}", stop, done[i]))
            for i in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        behind = begin
        slowest = 0.0
        while not is_stored(large) and time.monotonic() < begin + 60:
            behind = time.monotonic()
            assert (repo.main / "small").read_bytes() == b"small"
            assert "small" in os.listdir(repo.main)
            slowest = max(slowest, time.monotonic() - behind)
            time.sleep(0.005)
        stop.set()
        for thread in threads:
            thread.join()
        for i in range(WRITERS):
            assert (repo.main / f"w-{attempt}-{i}").stat().st_size == sum(size for _, size in done[i])
        if behind - begin < 0.5:
            continue
        brought = sum(size for writer in done for at, size in writer if at <= behind)
        assert brought <= PACE * (behind - begin) * 1.05, "writers brought more than their pace"
        assert brought >= MIB, "they were not only slowed down, but stopped"
        assert slowest < 5, "readers waited for writers"
        return
    pytest.fail("ingest was never behind for long")
