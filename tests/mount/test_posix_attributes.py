# SPDX-License-Identifier: Apache-2.0
"""Modes, times, owners, links and extended attributes of a branch's files."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from driver import Repo, errno_of, is_incomplete, opened, wait_for


def test_modes(mounted: Repo) -> None:
    path = mounted.main / "file"
    old = os.umask(0o027)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in (0o600, 0o755, 0o444):
        path.chmod(mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    commit = mounted.commit("mode")
    assert stat.S_IMODE((mounted.commit_dir(commit) / "file").stat().st_mode) == 0o444
    path.chmod(0o755)
    assert mounted.status() == {"file": "mode"}
    mounted.commit("executable")
    mounted.remount()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((mounted.mnt / "at" / "main~1" / "file").stat().st_mode) == 0o444


def test_times(mounted: Repo) -> None:
    path = mounted.main / "file"
    before = time.time_ns()
    path.write_bytes(b"x")
    made = path.stat().st_mtime_ns
    assert before - 2_000_000_000 <= made <= time.time_ns() + 2_000_000_000
    os.utime(path, ns=(1_000_000_000_000_000_001, 1_100_000_000_123_456_789))
    assert path.stat().st_mtime_ns == 1_100_000_000_123_456_789
    first = mounted.commit("dated")
    assert (mounted.commit_dir(first) / "file").stat().st_mtime_ns == 1_100_000_000_123_456_789
    # A touch alone is no change, for status or commit, while the branch shows the time that was set.
    os.utime(path, ns=(0, 1_200_000_000_000_000_000))
    assert mounted.status() == {} and path.stat().st_mtime_ns == 1_200_000_000_000_000_000
    path.write_bytes(b"y")
    assert path.stat().st_mtime_ns > made
    # Further off than 64 bits of nanoseconds reach: the last there is, not one of another century.
    for seconds, year in ((10_413_792_000, 2262), (-14_831_769_600, 1677)):
        os.utime(path, (seconds, seconds))
        assert time.gmtime(path.stat().st_mtime_ns // 10**9).tm_year == year
    folder = mounted.main / "folder"
    folder.mkdir()
    os.utime(folder, ns=(0, 5_000_000_000))
    assert folder.stat().st_mtime_ns == 5_000_000_000
    (folder / "new").touch()
    assert folder.stat().st_mtime_ns > made, "an entry more changes the folder's time"


def test_sizes_and_numbers(main: Path) -> None:
    (main / "file").write_bytes(bytes(100_001))
    (main / "other").write_bytes(bytes(100_001))
    found, other = (main / "file").stat(), (main / "other").stat()
    assert (found.st_size, found.st_blocks, found.st_nlink) == (100_001, 196, 1)
    assert found.st_ino != other.st_ino and found.st_dev == other.st_dev == main.stat().st_dev
    assert found.st_blksize >= 128 << 10
    assert {entry.name: entry.inode() for entry in os.scandir(main)} == {"file": found.st_ino, "other": other.st_ino}


def test_owner_can_be_set(main: Path) -> None:
    path = main / "file"
    path.touch()
    assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)
    else:
        assert errno_of(os.chown, path, 0, 0) == errno.EPERM


def test_times_that_are_left_alone(main: Path) -> None:
    """UTIME_OMIT and UTIME_NOW, as touch -a and -m send them."""
    path = main / "file"
    path.touch()
    os.utime(path, ns=(1_111_111_111, 2_222_222_222))
    before = time.time_ns()
    subprocess.run(["touch", "-m", str(path)], check=True)
    assert path.stat().st_atime_ns == 1_111_111_111 and path.stat().st_mtime_ns >= before - 1_000_000_000
    subprocess.run(["touch", "-a", "-d", "@7.000000008", str(path)], check=True)
    assert path.stat().st_atime_ns == 7_000_000_008 and path.stat().st_mtime_ns >= before - 1_000_000_000


def mode_alone(path: Path) -> str:
    """As exec(2) looks at it: a stat of all makes the kernel ask anew after a write."""
    return subprocess.run(["stat", "-c", "%a", path], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
@pytest.mark.parametrize("group, kept", [(1234, 0o2666), (1235, 0o666)])
def test_set_gid_without_execution(repo: Repo, group: int, kept: int) -> None:
    """It stays where the writer is of that group."""
    repo.mount("-o", "allow_other")
    os.chmod(repo.path.parent, 0o755)
    try:
        for name, change in {"write": "os.write(d, b'x')", "fallocate": "os.posix_fallocate(d, 0, 1)"}.items():
            path = repo.main / name
            path.write_bytes(b"data")
            os.chown(path, 0, 1234)
            path.chmod(0o6666)
            program = f"import os, sys; os.setgroups([]); os.setgid({group}); os.setuid(1234); d = os.open(sys.argv[1], 1)"
            subprocess.run([sys.executable, "-c", f"{program}; {change}", path], cwd="/", check=True)
            # The kernel says of a write only whether the group may execute.
            assert int(mode_alone(path), 8) == kept, name
    finally:
        repo.umount()


def test_changes_take_set_uid_bits_away(repo: Repo) -> None:
    """A write, a truncate, a chown by who is not root; the bits are the kernel's to take, in every I/O mode."""
    as_root = os.geteuid() == 0
    repo.mount(*(["-o", "allow_other"] if as_root else []))
    changes = {
        "write-only": "d = os.open(p, os.O_WRONLY); os.write(d, b'x')",
        "appending": "d = os.open(p, os.O_WRONLY | os.O_APPEND); os.write(d, b'x')",
        "read-write": "d = os.open(p, os.O_RDWR); os.write(d, b'x')",
        "truncate": "os.truncate(p, 1)",
        "ftruncate": "d = os.open(p, os.O_WRONLY); os.ftruncate(d, 1)",
        "direct": "d = os.open(p, os.O_WRONLY | os.O_DIRECT); os.write(d, mmap.mmap(-1, 4096))",
        "fallocate": "d = os.open(p, os.O_WRONLY); os.posix_fallocate(d, 0, 100)",
        "allocated": "d = os.open(p, os.O_WRONLY); os.posix_fallocate(d, 0, 1)",
        "chown": "os.chown(p, -1, os.getgid())",
        "emptied": "d = os.open(p, os.O_WRONLY | os.O_TRUNC)",
        "emptied by creat": "d = os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o6777)",
    }
    os.chmod(repo.path.parent, 0o755)
    try:
        for name, change in changes.items():
            path = repo.main / name
            path.write_bytes(b"data")
            path.chmod(0o6777)
            if as_root:
                os.chown(path, 1234, 1234)
                path.chmod(0o6777)
            assert mode_alone(path) == "6777"  # the kernel has it now
            drop = "os.setgroups([]); os.setgid(1234); os.setuid(1234); " if as_root else ""
            command = [sys.executable, "-c", f"import mmap, os, sys; p = sys.argv[1]; {drop}{change}", str(path)]
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr}"
            assert mode_alone(path) == "777", name
            assert stat.S_IMODE(path.stat().st_mode) == 0o777, name
    finally:
        repo.umount()


def test_a_file_is_made_with_its_set_uid_bits(repo: Repo) -> None:
    """O_TRUNC takes them from a file that was there, not from one that it makes; the first write does."""
    as_root = os.geteuid() == 0
    repo.mount(*(["-o", "allow_other"] if as_root else []))
    os.chmod(repo.path.parent, 0o755)
    try:
        folder = repo.main / "folder"
        folder.mkdir()
        folder.chmod(0o777)
        drop = "os.setgroups([]); os.setgid(1234); os.setuid(1234); " if as_root else ""
        for flags in ("0", "os.O_TRUNC", "os.O_EXCL", "os.O_TRUNC | os.O_EXCL"):
            make = f"d = os.open(p, os.O_WRONLY | os.O_CREAT | {flags}, 0o6755); a = os.fstat(d).st_mode & 0o7777"
            change = f"os.umask(0); {make}; b = os.stat(p).st_mode & 0o7777; os.write(d, b'x')"
            program = f"import os, sys; p = sys.argv[1]; {drop}{change}; print(oct(a), oct(b))"
            command = [sys.executable, "-c", program, str(folder / flags)]
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            assert done.stdout == "0o6755 0o6755\n", f"{flags}: {done.stdout}{done.stderr}"
            assert stat.S_IMODE((folder / flags).stat().st_mode) == 0o755, flags
    finally:
        repo.umount()


def test_set_gid_folders_hand_down_their_group(main: Path) -> None:
    folder = main / "shared"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 0, 4321)
    folder.chmod(0o3777)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o3777, "the sticky bit is kept as well"
    (folder / "below").mkdir(0o755)
    (folder / "file").touch()
    gid = folder.stat().st_gid
    assert ((folder / "below").stat().st_gid, (folder / "file").stat().st_gid) == (gid, gid)
    assert stat.S_IMODE((folder / "below").stat().st_mode) == 0o2755
    assert not (folder / "file").stat().st_mode & stat.S_ISGID


def test_statfs(mounted: Repo) -> None:
    below = os.statvfs(mounted.path)
    for where in (mounted.mnt, mounted.main):
        found = os.statvfs(where)
        assert found.f_namemax == 255 and found.f_bsize > 0
        free, real = found.f_bavail * found.f_frsize, below.f_bavail * below.f_frsize
        assert abs(free - real) < max(real // 5, 1 << 30), "free space is that of the disk below"
    out = subprocess.run(["df", str(mounted.main)], capture_output=True, text=True, check=True).stdout
    assert str(mounted.mnt) in out


def test_symlinks(mounted: Repo) -> None:
    main = mounted.main
    (main / "folder").mkdir()
    (main / "folder" / "file").write_bytes(b"there")
    targets = {"relative": "folder/file", "dangling": "no/where", "outside": "/etc/hostname", "long": "x" * 4000}
    for name, target in targets.items():
        (main / name).symlink_to(target)
    assert (main / "relative").read_bytes() == b"there"
    assert errno_of(os.symlink, "x", main / "relative") == errno.EEXIST
    commit = mounted.commit("links")
    mounted.remount()
    for where in (main, mounted.commit_dir(commit)):
        assert {name: os.readlink(where / name) for name in targets} == targets
        assert (where / "relative").lstat().st_size == len(targets["relative"])
        assert (where / "relative").read_bytes() == b"there"


def test_xattrs(mounted: Repo) -> None:
    path = mounted.main / "file"
    path.write_bytes(b"weights")
    values = {"user.author": b"me", "user.empty": b"", "user.binary": bytes(range(256)), "user.large": bytes(30_000)}
    for name, value in values.items():
        os.setxattr(path, name, value)
    assert errno_of(os.setxattr, path, "user.author", b"x", os.XATTR_CREATE) == errno.EEXIST
    assert errno_of(os.setxattr, path, "user.none", b"x", os.XATTR_REPLACE) == errno.ENODATA
    assert errno_of(os.getxattr, path, "user.none") == errno.ENODATA
    assert errno_of(os.removexattr, path, "user.none") == errno.ENODATA
    # Not ENODATA: `ls -l` would ask for it at each file.
    for never in ("security.selinux", "security.capability", "system.posix_acl_access"):
        assert errno_of(os.getxattr, path, never) == errno.EOPNOTSUPP
    os.setxattr(path, "user.author", b"somebody else", os.XATTR_REPLACE)
    values["user.author"] = b"somebody else"
    os.setxattr(mounted.main, "user.on-the-branch", b"1")
    first = mounted.commit("with attributes")
    os.removexattr(path, "user.large")
    assert mounted.status() != {}, "an attribute is content"
    mounted.commit("one less")
    mounted.remount()

    def own(where: Path) -> dict[str, bytes]:
        return {n: os.getxattr(where, n) for n in os.listxattr(where) if not n.startswith("user.coral.")}

    assert own(mounted.commit_dir(first) / "file") == values
    del values["user.large"]
    assert own(path) == own(mounted.mnt / "at" / "main" / "file") == values
    assert os.getxattr(mounted.main, "user.on-the-branch") == b"1"


def test_coral_xattrs_are_read_only(mounted: Repo) -> None:
    path = mounted.main / "file"
    path.write_bytes(b"weights")
    commit = mounted.commit("one")
    digest = "9a129c50e0d1cfd3a4a6c4bd0ddd4bbc7d4a6ee5c4d4e1a1e2a1e3d3fbc30aab"
    for where in (path, mounted.main):
        assert errno_of(os.setxattr, where, "user.coral.digest", digest.encode()) == errno.EPERM
        assert errno_of(os.setxattr, where, "user.coral.anything", b"") == errno.EPERM
        assert errno_of(os.removexattr, where, "user.coral.digest") == errno.EPERM
    there = mounted.commit_dir(commit) / "file"
    sums = subprocess.run(["sha256sum", str(there)], capture_output=True, text=True, check=True).stdout
    assert os.getxattr(there, "user.coral.digest").decode() == sums.split()[0]
    assert os.getxattr(mounted.main, "user.coral.branch") == b"main"
    assert os.getxattr(mounted.main, "user.coral.commit").decode() == commit
    assert os.getxattr(mounted.main, "user.coral.repository") == os.fsencode(mounted.path.resolve())


def test_incomplete_is_told(mounted: Repo) -> None:
    path = mounted.main / "file"
    with opened(path, os.O_CREAT | os.O_WRONLY) as descriptor:
        os.write(descriptor, b"half of it")
        assert is_incomplete(path)
    wait_for("a closed file is complete", lambda: not is_incomplete(path), 5)
