# SPDX-License-Identifier: Apache-2.0
"""coral gc beside a mount that is being used."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from driver import Repo, wait_for


def pack_bytes(repo: Repo) -> int:
    return sum(path.stat().st_size for path in repo.packs())


def write(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def make_garbage(repo: Repo, size: int = 3 << 20) -> None:
    """A commit on a branch that is deleted; its pack is nobody's any more."""
    repo.run("branch", "lost")
    write(repo.branch("lost") / "lost.bin", size)
    repo.commit("lost", branch="lost")
    repo.run("branch", "-D", "lost")
    repo.remount()


def test_open_files_stay_readable(mounted: Repo) -> None:
    """S11.2"""
    kept = write(mounted.main / "kept", 1 << 20)
    mounted.commit("kept")
    mounted.run("branch", "side")
    deleted = write(mounted.main / "deleted", 2 << 20)
    of_commit = write(mounted.branch("side") / "of-commit", 2 << 20)
    commit = mounted.commit("side", branch="side")
    mounted.remount()  # `deleted` is stored and was never committed
    with open(mounted.main / "deleted", "rb") as first, open(mounted.commit_dir(commit) / "of-commit", "rb") as second:
        assert first.read(10) == deleted[:10] and second.read(10) == of_commit[:10]
        os.unlink(mounted.main / "deleted")
        mounted.run("branch", "-D", "side")
        mounted.run("gc", "--prune=now")
        os.posix_fadvise(second.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert first.read() == deleted[10:] and second.read() == of_commit[10:]
    before = pack_bytes(mounted)
    done = mounted.json("gc", "--prune=now")
    assert done["freed_bytes"] > 1 << 20 and before - pack_bytes(mounted) == done["freed_bytes"]
    assert (mounted.main / "kept").read_bytes() == kept
    assert mounted.json("fsck", "--full")["ok"]


def test_the_disk_gets_its_room_back(mounted: Repo) -> None:
    write(mounted.main / "kept", 100_000)
    mounted.commit("kept")
    mounted.run("branch", "lost")
    write(mounted.branch("lost") / "lost.bin", 3 << 20)
    commit = mounted.commit("lost", branch="lost")
    mounted.remount()
    assert len((mounted.commit_dir(commit) / "lost.bin").read_bytes()) == 3 << 20
    mounted.run("branch", "-D", "lost")
    mounted.run("gc", "--prune=now")
    pid = mounted.workers()[0]

    def held() -> list[str]:
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        return [link for link in links if ".pack" in link and "(deleted)" in link]

    assert pack_bytes(mounted) < 1 << 20
    wait_for("the daemon lets go of packs that went", lambda: not held(), 15)


def test_readers_and_writers_go_on(mounted: Repo) -> None:
    """S11.3"""
    wanted = {f"f{n}": write(mounted.main / f"f{n}", 600_000) for n in range(4)}
    commit = mounted.commit("files")
    make_garbage(mounted)
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for name, content in wanted.items():
                for folder in (mounted.main, mounted.commit_dir(commit)):
                    with open(folder / name, "rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        if file.read() != content:
                            wrong.append(name)

    written: dict[str, bytes] = {}

    def save() -> None:
        number = 0
        while not stop.is_set():
            name = f"w{number % 5}"
            content = os.urandom(300_000) + wanted[f"f{number % 4}"]
            (mounted.main / "new").write_bytes(content)
            os.replace(mounted.main / "new", mounted.main / name)
            written[name] = content
            number += 1

    threads = [threading.Thread(target=read), threading.Thread(target=save)]
    for thread in threads:
        thread.start()
    try:
        freed = sum(mounted.json("gc", "--prune=now")["freed_bytes"] for _ in range(6))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and freed > 2 << 20
    mounted.commit("all")
    for name, content in written.items():
        assert (mounted.main / name).read_bytes() == content
    mounted.remount()
    for name, content in (written | wanted).items():
        assert (mounted.main / name).read_bytes() == content
    assert mounted.json("fsck", "--full")["ok"]


def test_uncommitted_files_stay(mounted: Repo) -> None:
    write(mounted.main / "a", 200_000)
    mounted.commit("a")
    make_garbage(mounted)
    fresh = write(mounted.main / "fresh", 500_000)
    with open(mounted.main / "a", "r+b") as file:
        file.write(b"changed")
        file.flush()
        assert mounted.json("gc", "--prune=now")["freed_bytes"] > 2 << 20
        file.seek(0)
        assert file.read(7) == b"changed"
    assert (mounted.main / "fresh").read_bytes() == fresh
    mounted.kill()
    mounted.run("gc", "--prune=now")
    mounted.heal()
    assert (mounted.main / "fresh").read_bytes() == fresh and (mounted.main / "a").read_bytes()[:7] == b"changed"
    mounted.commit("more")
    assert mounted.json("fsck", "--full")["ok"]
