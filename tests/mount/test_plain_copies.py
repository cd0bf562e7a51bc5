# SPDX-License-Identifier: Apache-2.0
"""Plain copies: stored files that the kernel reads by itself, because they are read again or somebody said so."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest
from driver import FATAL, NO, Repo, wait_for
from small_files import noise

MIB = 1 << 20


def possible() -> bool:
    numbers = re.findall(r"\d+", platform.release())
    return os.geteuid() == 0 and (int(numbers[0]), int(numbers[1])) >= (6, 9)


def opened_mode(path: Path) -> str:
    with open(path, "rb"):
        return os.getxattr(path, "user.coral.io").decode()


def copies(repo: Repo) -> list[Path]:
    return [path for path in (repo.path / "cache").glob("plain-*/*") if path.name != "lock"]


@pytest.fixture
def stored(repo: Repo) -> tuple[Repo, str, bytes]:
    """A commit with a file of 8 MiB, and nothing of it plain."""
    data = noise(8 * MIB, 1)
    repo.mount("-o", "hot_size=0")
    (repo.main / "model").write_bytes(data)
    (repo.main / "small").write_bytes(b"small")
    commit = repo.commit("one")
    repo.umount()
    return repo, commit, data


def test_read_again(stored: tuple[Repo, str, bytes]) -> None:
    repo, commit, data = stored
    repo.mount()
    for path in (repo.commit_dir(commit) / "model", repo.main / "model"):
        assert path.read_bytes() == data
        assert opened_mode(path) == "cached", "read once only"
        if possible():
            wait_for("the second open has brought a plain copy", lambda p=path: opened_mode(p) == "passthrough")
        assert path.read_bytes() == data
    if possible():
        assert repo.coral.json("mount-info", repo.mnt)["plain_bytes"] == 8 * MIB
        wait_for("it is counted", lambda: repo.coral.json("mount-info", repo.mnt)["hot_bytes"] == 8 * MIB)
    # Written to, a branch's file leaves the commit's alone.
    with open(repo.main / "model", "r+b") as file:
        file.write(b"changed")
    assert (repo.main / "model").read_bytes() == b"changed" + data[7:]
    assert (repo.commit_dir(commit) / "model").read_bytes() == data
    repo.umount()
    assert not copies(repo) and not list((repo.path / "cache").glob("plain-*"))


def test_never_and_always(stored: tuple[Repo, str, bytes]) -> None:
    repo, commit, data = stored
    path = repo.commit_dir(commit) / "model"
    repo.mount("-o", "materialize=never")
    for _ in range(3):
        assert path.read_bytes() == data and opened_mode(path) == "cached"
    repo.remount("-o", "materialize=always")
    assert opened_mode(path) == "cached"
    if possible():
        wait_for("the first open was enough", lambda: opened_mode(path) == "passthrough")
    assert path.read_bytes() == data


def test_warm(stored: tuple[Repo, str, bytes]) -> None:
    repo, commit, data = stored
    said = repo.coral.run("warm", "main", cwd=repo.path, expect=NO).stderr
    assert b"not mounted" in said and b"coral mount" in said
    repo.mount()
    assert b"no such file" in repo.coral.run("warm", commit, "nothing", cwd=repo.path, expect=NO).stderr
    if not possible():
        assert b"mount-info" in repo.coral.run("warm", "main", cwd=repo.path, expect=FATAL).stderr
        return
    answer = repo.coral.json("warm", "main", "model", cwd=repo.path)
    assert (answer["files"], answer["plain_bytes"], answer["without_room"]) == (1, 8 * MIB, 0)
    path = repo.commit_dir(commit) / "model"
    assert opened_mode(path) == "passthrough" and path.read_bytes() == data
    answer = repo.coral.json("warm", "main", cwd=repo.main)
    assert (answer["files"], answer["plain_bytes"], answer["too_small"]) == (2, 8 * MIB, 1)
    assert len(copies(repo)) == 1, "what is small is read as fast without, and may be many"
    said = repo.coral.run("warm", "main", cwd=repo.path).stdout
    assert b"1 of 2 file(s) plain, 8.00 MiB; 1 smaller than 1 MiB left out" in said


def test_never_more_than_the_limit(repo: Repo) -> None:
    if not possible():
        return  # test_warm says what is said
    repo.mount("-o", "hot_size=0,cache_size=5M")
    for seed, (name, size) in enumerate((("a", 3), ("b", 3), ("c", 6))):
        (repo.main / name).write_bytes(noise(size * MIB, seed))
    commit = repo.commit("three")
    warm = repo.coral.json("warm", "main", "a", cwd=repo.path)
    assert warm["plain_bytes"] == 3 * MIB
    with open(repo.commit_dir(commit) / "a", "rb") as file:
        refused = repo.coral.run("warm", "main", "b", cwd=repo.path, expect=NO)
        assert b"no room" in refused.stderr, "a is in use"
        assert file.read() == noise(3 * MIB, 0)
    wait_for("a may go", lambda: repo.coral.json("mount-info", repo.mnt)["open_files"] == 0)
    repo.coral.run("warm", "main", "b", cwd=repo.path)
    assert [path.stat().st_size for path in copies(repo)] == [3 * MIB]
    assert opened_mode(repo.commit_dir(commit) / "b") == "passthrough"
    assert opened_mode(repo.commit_dir(commit) / "a") == "cached"
    repo.coral.run("warm", "main", "c", cwd=repo.path, expect=NO)
    assert repo.coral.json("mount-info", repo.mnt)["plain_bytes"] <= 5 * MIB


def test_copies_of_a_dead_daemon_are_not_trusted(stored: tuple[Repo, str, bytes]) -> None:
    repo, commit, data = stored
    if not possible():
        return
    repo.mount()
    repo.coral.run("warm", "main", "model", cwd=repo.path)
    repo.kill()
    (left,) = copies(repo)
    left.write_bytes(bytes(8 * MIB))  # what a crash may leave
    repo.heal()
    wait_for("the dead one's folder is gone", lambda: not left.exists())
    path = repo.commit_dir(commit) / "model"
    assert path.read_bytes() == data
    repo.coral.run("warm", "main", "model", cwd=repo.path)
    assert opened_mode(path) == "passthrough" and path.read_bytes() == data
    assert len(copies(repo)) == 1


def test_a_damaged_pack_makes_no_copy(stored: tuple[Repo, str, bytes]) -> None:
    repo, _, _ = stored
    if not possible():
        return
    for pack in (repo.path / "packs").iterdir():
        content = bytearray(pack.read_bytes())
        if len(content) < 4 * MIB:
            continue
        content[len(content) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)
    repo.mount()
    repo.coral.run("warm", "main", "model", cwd=repo.path, expect=FATAL)
    assert not copies(repo)
