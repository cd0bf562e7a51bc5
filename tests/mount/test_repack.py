# SPDX-License-Identifier: Apache-2.0
"""coral repack beside a mount that is being used."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from driver import Repo
from material import safetensors_bytes


def model(names: str, step: float, number: int = 0) -> bytes:
    """Weights that differ by `step`, under names of their own: nothing but their values tells that they are related."""
    base, move = np.random.default_rng(7), np.random.default_rng(100 + number)
    tensors = []
    for n in range(3):
        values = (base.normal(0, 0.02, 90_000) + step * move.normal(0, 1, 90_000)).astype("<f4")
        tensors.append((f"{names}.{n}", "F32", [90_000], values.tobytes()))
    return safetensors_bytes(tensors)


def pack_bytes(repo: Repo) -> int:
    return sum(path.stat().st_size for path in repo.packs())


def strangers(repo: Repo) -> dict[str, bytes]:
    """Stored one by one, without a memory of those before, and in packs that the mount does not write to."""
    contents = {}
    repo.umount()
    for number, name in enumerate("abc"):
        for path in repo.path.glob("bases.db*"):
            path.unlink()
        contents[name] = model(name, 1e-5 * number, number)
        source = repo.path.parent / f"{name}.safetensors"
        source.write_bytes(contents[name])
        repo.run("add", "-q", source, "--as", name)
        repo.run("commit", "-q", "-m", name)
    repo.mount()
    return contents


def read_again(path: Path) -> bytes:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def test_readers_and_writers_go_on(mounted: Repo) -> None:
    """S12.4"""
    contents = strangers(mounted)
    commit = mounted.rev_parse("main")
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for name, content in contents.items():
                for folder in (mounted.main, mounted.commit_dir(commit)):
                    if read_again(folder / name) != content:
                        wrong.append(name)

    written: dict[str, bytes] = {}

    def save() -> None:
        number = 0
        while not stop.is_set():
            name = f"w{number % 4}"
            content = model("abc"[number % 3], 1e-5, number)
            (mounted.main / "new").write_bytes(content)
            os.replace(mounted.main / "new", mounted.main / name)
            written[name] = content
            number += 1

    threads = [threading.Thread(target=read), threading.Thread(target=save)]
    with open(mounted.commit_dir(commit) / "c", "rb") as held:
        assert held.read(100) == contents["c"][:100]
        for thread in threads:
            thread.start()
        try:
            before = pack_bytes(mounted)
            first = mounted.json("repack")
            for _ in range(2):
                mounted.json("repack", "--all")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert held.read() == contents["c"][100:]
    assert not wrong
    assert first["before_bytes"] >= before and first["segments"] > 0
    mounted.commit("all")
    for name, content in (contents | written).items():
        assert read_again(mounted.main / name) == content
    mounted.remount()
    for name, content in (contents | written).items():
        assert read_again(mounted.main / name) == content
    assert mounted.json("fsck", "--full")["ok"]


def test_it_becomes_smaller_beside_a_mount(mounted: Repo) -> None:
    contents = strangers(mounted)
    (mounted.main / "own").write_bytes(os.urandom(100_000))
    mounted.commit("the mount has a pack of its own")
    before = pack_bytes(mounted)
    done = mounted.json("repack")
    assert pack_bytes(mounted) == done["after_bytes"] <= before
    for name, content in contents.items():
        assert read_again(mounted.main / name) == content
    mounted.umount()
    done = mounted.json("repack")
    assert pack_bytes(mounted) < before * 0.85
    mounted.mount()
    for name, content in contents.items():
        assert read_again(mounted.main / name) == content
    assert mounted.json("fsck", "--full")["ok"]
