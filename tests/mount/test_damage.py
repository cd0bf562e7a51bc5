# SPDX-License-Identifier: Apache-2.0
"""What may be lost (the index) and what may rot (a pack). A loss is repaired or told; wrong bytes are never read."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

import material
from driver import Repo, assert_same_tree, cp, errno_of, tree_sums
from small_files import noise


def small_history(repo: Repo) -> dict[str, dict[bytes, tuple[str, str]]]:
    known = {}
    for number, name in enumerate(("silero-vad-5.1.2", "chgnet-0.1.4", "silero-vad-6.2.3")):
        cp("-r", material.folder(name), repo.main / f"model-{number % 2}")
        (repo.main / "notes.txt").write_text(f"run {number}\n" * 50)
        known[repo.commit(name)] = tree_sums(repo.main)
    (repo.main / "uncommitted").write_bytes(noise(300_000))
    return known


@pytest.mark.parametrize("damage", ["deleted", "truncated", "garbage", "foreign", "old"])
def test_index_is_disposable(mounted: Repo, place: Path, damage: str) -> None:
    (mounted.main / "early").write_bytes(b"early")
    mounted.commit("early")
    mounted.umount()
    index = mounted.path / "index.db"
    old = index.read_bytes()
    mounted.mount()
    known = small_history(mounted)
    branch = tree_sums(mounted.main)
    mounted.umount()
    stored = mounted.stored_bytes()
    for path in mounted.path.glob("index.db*"):
        if path != index:
            path.unlink()  # its write-ahead log belongs to it
    match damage:
        case "deleted":
            index.unlink()
        case "truncated":
            os.truncate(index, index.stat().st_size // 2)
        case "garbage":
            index.write_bytes(noise(100_000))
        case "old":
            index.write_bytes(old)
        case "foreign":
            (place / "other").mkdir()
            other = Repo(mounted.coral, place / "other")
            (place / "file").write_bytes(b"of another repository")
            other.run("add", place / "file")
            other.run("commit", "-m", "other")
            index.write_bytes((other.path / "index.db").read_bytes())
    mounted.mount()
    for commit, sums in known.items():
        assert_same_tree(mounted.commit_dir(commit), sums, f"index {damage}")
    assert_same_tree(mounted.main, branch, f"index {damage}")
    assert mounted.stored_bytes() == stored, "nothing was stored again"
    (mounted.main / "more").write_bytes(b"more")
    mounted.commit("goes on")
    mounted.run("fsck", "--full")


def test_reindex_command(mounted: Repo) -> None:
    known = small_history(mounted)
    mounted.umount()
    mounted.run("reindex")
    mounted.mount()
    for commit, sums in known.items():
        assert_same_tree(mounted.commit_dir(commit), sums)


def test_a_torn_record_at_the_end_of_a_pack(mounted: Repo) -> None:
    """What a crash leaves of an append: it is passed over, and nothing before it is lost."""
    known = small_history(mounted)
    mounted.kill()
    last = max(mounted.packs(), key=lambda p: p.stat().st_mtime_ns)
    whole = last.read_bytes()
    with last.open("ab") as file:
        file.write(whole[64:4000])
    mounted.heal()
    for commit, sums in known.items():
        assert_same_tree(mounted.commit_dir(commit), sums)
    (mounted.main / "more").write_bytes(noise(100_000, 5))
    commit = mounted.commit("goes on")
    mounted.remount()
    assert (mounted.commit_dir(commit) / "more").read_bytes() == noise(100_000, 5)
    assert last.read_bytes()[: len(whole)] == whole, "packs are never rewritten in place"


def test_rot_is_an_error_and_never_wrong_bytes(mounted: Repo) -> None:
    """A bit of a pack turned over, at many places in turn: a read gives the right bytes or EIO, and fsck finds it."""
    cp("-r", material.folder("chgnet-0.1.4"), mounted.main / "model")
    (mounted.main / "text").write_text("some words\n" * 40_000)
    commit = mounted.commit("good")
    wanted = tree_sums(mounted.commit_dir(commit))
    files = [p for p in mounted.commit_dir(commit).rglob("*") if p.is_file()]
    contents = {p: p.read_bytes() for p in files}
    mounted.umount()
    pack = max(mounted.packs(), key=lambda p: p.stat().st_size)
    good, dice, refused = pack.read_bytes(), random.Random(3), 0
    for _ in range(12):
        at = dice.randrange(4096, len(good) - 4096)
        with pack.open("r+b") as file:
            file.seek(at)
            file.write(bytes([good[at] ^ 0x10]))
        mounted.mount()
        for path, data in contents.items():
            try:
                found = path.read_bytes()
            except OSError as error:
                assert error.errno == errno.EIO, f"{path}: {error}"
                refused += 1
            else:
                assert found == data, f"wrong bytes after rot at {at}: {path}"
        mounted.umount()
        problems = mounted.run("fsck", "--full", expect=1)
        assert problems.stdout + problems.stderr
        with pack.open("r+b") as file:
            file.seek(at)
            file.write(good[at : at + 1])
    assert refused >= 6, "rot in the data was hardly ever noticed by a read"
    mounted.run("fsck", "--full")
    mounted.mount()
    assert_same_tree(mounted.commit_dir(commit), wanted, "mended")


def test_a_lost_pack_is_told(mounted: Repo) -> None:
    cp("-r", material.folder("chgnet-0.1.4"), mounted.main / "model")
    mounted.commit("good")
    mounted.umount()
    largest = max(mounted.packs(), key=lambda p: p.stat().st_size)
    largest.rename(mounted.path / "elsewhere")
    found = mounted.run("fsck", expect=(1, 128))
    assert found.stdout + found.stderr
    (mounted.path / "elsewhere").rename(largest)
    mounted.run("fsck", "--full")


def test_a_second_daemon_is_kept_out(mounted: Repo, place: Path) -> None:
    """One owner per worktree: a second mount fails, or shows the branch read-only; it never writes beside the first."""
    second = place / "second"
    second.mkdir()
    done = mounted.coral.run("mount", mounted.path, second, expect=(0, 128))
    try:
        if done.returncode == 0:
            assert b"branch main is read-only in this mount" in done.stderr
            assert mounted.coral.json("mount-info", second)["read_only_branches"] == ["main"]
            assert b"Read-only:    main; another process" in mounted.coral.run("mount-info", second).stdout
            assert mounted.coral.json("mount-info", mounted.mnt)["read_only_branches"] == []
            assert errno_of(os.open, second / "branches/main/x", os.O_CREAT | os.O_WRONLY) == errno.EROFS
            (mounted.main / "file").write_bytes(b"from the owner")
            commit = mounted.commit("seen by both")
            assert (second / "commits" / commit / "file").read_bytes() == b"from the owner"
        else:
            assert str(mounted.path.name).encode() in done.stderr or b"mounted" in done.stderr
    finally:
        if done.returncode == 0:
            mounted.coral.run("umount", second)
    (mounted.main / "other").write_bytes(b"the first still writes")
    mounted.commit("alone")
