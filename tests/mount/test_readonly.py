# SPDX-License-Identifier: Apache-2.0
"""History cannot be changed through the mount: every changing call answers EROFS, and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driver import FATAL, Repo, assert_same_tree, errno_of, opened, tree_sums


def open_and_close(path: Path, flags: int) -> None:
    os.close(os.open(path, flags))


CALLS: dict[str, Callable[[Path], object]] = {
    "create": lambda d: open_and_close(d / "new", os.O_CREAT | os.O_WRONLY),
    "open for writing": lambda d: open_and_close(d / "file", os.O_WRONLY),
    "open for both": lambda d: open_and_close(d / "file", os.O_RDWR),
    "open with truncation": lambda d: open_and_close(d / "file", os.O_WRONLY | os.O_TRUNC),
    "truncate": lambda d: os.truncate(d / "file", 0),
    "mkdir": lambda d: os.mkdir(d / "new"),
    "unlink": lambda d: os.unlink(d / "file"),
    "rmdir": lambda d: os.rmdir(d / "folder"),
    "symlink": lambda d: os.symlink("x", d / "new"),
    "link": lambda d: os.link(d / "file", d / "new"),
    "mknod": lambda d: os.mknod(d / "new", stat.S_IFREG | 0o644),
    "mkfifo": lambda d: os.mkfifo(d / "new"),
    "rename": lambda d: os.rename(d / "file", d / "new"),
    "rename over": lambda d: os.rename(d / "file", d / "folder" / "inner"),
    "chmod": lambda d: os.chmod(d / "file", 0o600),
    "utimens": lambda d: os.utime(d / "file", (1, 1)),
    "setxattr": lambda d: os.setxattr(d / "file", "user.x", b"y"),
    "removexattr": lambda d: os.removexattr(d / "file", "user.kept"),
}


@pytest.fixture
def history(mounted: Repo) -> Repo:
    (mounted.main / "file").write_bytes(b"committed")
    os.setxattr(mounted.main / "file", "user.kept", b"1")
    (mounted.main / "folder").mkdir()
    (mounted.main / "folder" / "inner").write_bytes(b"too")
    mounted.commit("history")
    mounted.run("tag", "v1")
    return mounted


@pytest.mark.parametrize("call", CALLS)
def test_commits_tags_and_at(history: Repo, call: str) -> None:
    commit = history.rev_parse("main")
    before = tree_sums(history.commit_dir(commit))
    for where in (history.commit_dir(commit), history.tag_dir("v1"), history.mnt / "at" / "main"):
        found = errno_of(CALLS[call], where)
        allowed = (errno.EROFS,)
        assert found in allowed, f"{call} in {where}: {errno.errorcode.get(found, found)}"
    assert_same_tree(history.commit_dir(commit), before)
    assert os.getxattr(history.commit_dir(commit) / "file", "user.kept") == b"1"


ROOT_CALLS: dict[str, Callable[[Path], object]] = {
    "create in the root": lambda m: open_and_close(m / "new", os.O_CREAT | os.O_WRONLY),
    "mkdir in the root": lambda m: os.mkdir(m / "new"),
    "symlink in the root": lambda m: os.symlink("x", m / "new"),
    "remove HEAD": lambda m: os.unlink(m / "HEAD"),
    "rename HEAD": lambda m: os.rename(m / "HEAD", m / "TAIL"),
    "replace HEAD": lambda m: os.rename(m / "branches" / "main" / "file", m / "HEAD"),
    "remove branches": lambda m: os.rmdir(m / "branches"),
    "remove commits": lambda m: os.rmdir(m / "commits"),
    "rename branches": lambda m: os.rename(m / "branches", m / "trunks"),
    "create in commits": lambda m: open_and_close(m / "commits" / "new", os.O_CREAT | os.O_WRONLY),
    "mkdir in commits": lambda m: os.mkdir(m / "commits" / ("0" * 64)),
    "create in tags": lambda m: open_and_close(m / "tags" / "new", os.O_CREAT | os.O_WRONLY),
    "symlink in tags": lambda m: os.symlink("../commits/x", m / "tags" / "v2"),
    "remove a tag": lambda m: os.unlink(m / "tags" / "v1"),
    "mkdir in at": lambda m: os.mkdir(m / "at" / "new"),
    "create in branches": lambda m: open_and_close(m / "branches" / "new", os.O_CREAT | os.O_WRONLY),
    "chmod of the root": lambda m: os.chmod(m, 0o700),
    "setxattr on the root": lambda m: os.setxattr(m, "user.x", b"y"),
}


@pytest.mark.parametrize("call", ROOT_CALLS)
def test_the_skeleton_of_the_mount(history: Repo, call: str) -> None:
    before = sorted(os.listdir(history.mnt))
    assert before[:4] == ["HEAD", "at", "branches", "commits"] and "tags" in before
    found = errno_of(ROOT_CALLS[call], history.mnt)
    # A name in branches/ is a matter of policy (docs/semantics.md): EPERM says "not so", EROFS "never".
    allowed = (errno.EROFS, errno.EPERM) if call == "create in branches" else (errno.EROFS,)
    assert found in allowed, f"{call}: {errno.errorcode.get(found, found)}"
    assert sorted(os.listdir(history.mnt)) == before
    assert os.listdir(history.mnt / "tags") == ["v1"]
    assert os.readlink(history.mnt / "HEAD") == "branches/main"
    assert (history.main / "file").read_bytes() == b"committed"


def test_rename_between_branches_is_exdev(history: Repo) -> None:
    history.run("branch", "other")
    other = history.branch("other")
    assert errno_of(os.rename, history.main / "file", other / "moved") == errno.EXDEV
    assert errno_of(os.rename, history.main / "folder", other / "moved") == errno.EXDEV
    assert errno_of(os.link, history.main / "file", other / "moved") in (errno.EXDEV, errno.EPERM)
    assert sorted(os.listdir(other)) == sorted(os.listdir(history.main)) == ["file", "folder"]
    # mv falls back to copying, as between disks.
    os.system(f"mv {history.main / 'file'} {other / 'moved'}")
    assert (other / "moved").read_bytes() == b"committed" and not (history.main / "file").exists()


def test_rename_into_and_out_of_history(history: Repo) -> None:
    commit = history.commit_dir(history.rev_parse("main"))
    for a, b in ((history.main / "file", commit / "new"), (commit / "file", history.main / "new")):
        assert errno_of(os.rename, a, b) in (errno.EROFS, errno.EXDEV)
    assert sorted(os.listdir(history.main)) == sorted(os.listdir(commit)) == ["file", "folder"]


def test_read_only_mount(history: Repo) -> None:
    history.umount()
    history.mount("-o", "ro")
    for name, call in CALLS.items():
        assert errno_of(call, history.main) == errno.EROFS, name
    assert (history.main / "file").read_bytes() == b"committed"
    history.remount()
    (history.main / "file").write_bytes(b"writable again")


def test_copy_from_a_commit_is_a_copy(history: Repo) -> None:
    """cp decides by inode number what is "the same file", and writes into what it opens: a branch entry has its own."""
    commit = history.commit_dir(history.rev_parse("main"))
    assert (commit / "file").stat().st_ino != (history.main / "file").stat().st_ino
    (history.main / "file").write_bytes(b"changed")
    os.system(f"cp {commit / 'file'} {history.main / 'file'}")
    assert (history.main / "file").read_bytes() == b"committed"
    with opened(history.main / "file", os.O_WRONLY) as descriptor:
        os.pwrite(descriptor, b"C", 0)
    assert (history.main / "file").read_bytes() == b"Committed"
    assert (commit / "file").read_bytes() == b"committed"


def test_equal_files_of_commits_share_pages(history: Repo) -> None:
    """One file that did not change is one inode (one copy in the page cache) in both commits, never two in one."""
    first = history.rev_parse("main")
    (history.main / "same-bytes").write_bytes(b"committed")
    second = history.commit("more")
    a, b = history.commit_dir(first), history.commit_dir(second)
    assert (a / "file").stat().st_ino == (b / "file").stat().st_ino
    inodes = [(b / n).stat().st_ino for n in ("file", "same-bytes", "folder", "folder/inner")]
    assert len(set(inodes)) == len(inodes)
    assert (a / "folder").stat().st_ino != (b / "folder").stat().st_ino, "directories are never shared"


@contextlib.contextmanager
def read_only_media(folder: Path) -> Iterator[None]:
    """As root a read-only bind mount, which stops root too; else no permission to write."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    else:
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)
        else:
            subprocess.run(["chmod", "-R", "u+w", folder], check=True)


def test_a_repository_on_read_only_media(history: Repo, place: Path) -> None:
    temporary = place / "temporary"
    temporary.mkdir()
    history.coral.environment["TMPDIR"] = str(temporary)
    commit = history.rev_parse("main")
    before = tree_sums(history.commit_dir(commit))
    history.kill()  # what state.db says is partly in its WAL now
    subprocess.run(["umount", history.mnt] if os.geteuid() == 0 else ["fusermount3", "-u", history.mnt], check=True)
    assert (history.path / "state.db-wal").stat().st_size > 0
    kept = tree_sums(history.path)
    with read_only_media(history.path):
        assert history.rev_parse("v1") == commit
        history.run("fsck")
        assert b"read-only" in history.run("tag", "v2", expect=FATAL).stderr
        history.mount()
        assert_same_tree(history.commit_dir(commit), before)
        assert_same_tree(history.main, before)
        assert errno_of(open_and_close, history.main / "new", os.O_CREAT | os.O_WRONLY) == errno.EROFS
        assert list(temporary.iterdir()), "it is not where this test looks for it"
        history.umount()
        assert not list(temporary.iterdir()), "the copy of state.db goes with the process"
    assert tree_sums(history.path) == kept


def test_an_older_repository_on_read_only_media(history: Repo) -> None:
    """state.db of version 1 cannot be brought up to date there; its copy can."""
    commit = history.rev_parse("main")
    before = tree_sums(history.commit_dir(commit))
    history.umount()
    with contextlib.closing(sqlite3.connect(history.path / "state.db")) as state:
        state.executescript("DROP TABLE overlay_link; PRAGMA user_version = 1;")
    kept = tree_sums(history.path)
    with read_only_media(history.path):
        assert history.rev_parse("v1") == commit
        history.run("fsck")
        history.mount()
        assert_same_tree(history.main, before)
        history.umount()
    assert tree_sums(history.path) == kept
    history.mount()
    assert_same_tree(history.main, before)


def test_attributes_in_commits(mounted: Repo) -> None:
    path = mounted.main / "file"
    (mounted.main / "folder").mkdir(0o700)
    (mounted.main / "link").symlink_to("file")
    path.write_bytes(b"x")
    path.chmod(0o6751)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    root = mounted.commit_dir(mounted.commit("one"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    found = (root / "file").stat()
    assert stat.S_IMODE(found.st_mode) == 0o751, "set-uid and set-gid are not part of history"
    assert found.st_atime_ns == found.st_mtime_ns == found.st_ctime_ns == 1_234_567_890_123_456_789
    made = root.stat().st_mtime_ns
    assert (root / "folder").stat().st_mtime_ns == (root / "link").lstat().st_mtime_ns == made
    assert abs(made - time.time_ns()) < 60_000_000_000
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())


def test_branches_are_not_renamed_by_mv(mounted: Repo) -> None:
    (mounted.mnt / "branches" / "other").mkdir()
    assert errno_of(os.rename, mounted.branch("other"), mounted.branch("another")) == errno.EROFS
