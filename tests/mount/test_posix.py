# SPDX-License-Identifier: Apache-2.0
"""A branch is an ordinary directory: the calls that programs make on one, each with the answer that a disk gives."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from driver import ROOT, Repo, errno_of, linux, opened, wait_for
from small_files import UNIT, noise

sys.path.insert(0, str(ROOT / "scripts/lib"))

from coral_conformance.refusals import REFUSALS  # noqa: E402

MIB = 1 << 20
MAPS_DIRECT = linux() >= (6, 9)

# --- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True], ids=["fresh", "committed"])
@pytest.mark.parametrize("seed", range(4))
def test_random_writes_and_truncates(mounted: Repo, committed: bool, seed: int) -> None:
    """Against a bytearray: writes anywhere, holes, truncates down and up, reads between them; then all of it again from
    a commit. On a committed file this drives the overlay, and its rule that what was cut off never comes back."""
    dice = random.Random(seed)
    model = bytearray(noise(dice.choice([0, 1000, UNIT, 5 * UNIT + 77]), seed) if committed else b"")
    path = mounted.main / "file"
    path.write_bytes(model)
    if committed:
        mounted.commit("base")
        mounted.remount()
    history = []
    with opened(path, os.O_RDWR) as descriptor:
        for _ in range(60):
            match dice.randrange(6):
                case 0 | 1:
                    at, data = dice.randrange(len(model) + UNIT), dice.randbytes(dice.choice([1, 100, 4096, UNIT + 1]))
                    history.append(f"pwrite {len(data)} at {at}")
                    assert os.pwrite(descriptor, data, at) == len(data)
                    model.extend(bytes(max(0, at - len(model))))
                    model[at : at + len(data)] = data
                case 2:
                    size = dice.randrange(len(model) + 1)
                    history.append(f"truncate to {size}")
                    os.ftruncate(descriptor, size)
                    del model[size:]
                case 3:
                    size = len(model) + dice.randrange(2 * UNIT)
                    history.append(f"truncate to {size}")
                    os.ftruncate(descriptor, size)
                    model.extend(bytes(size - len(model)))
                case _:
                    at, count = dice.randrange(len(model) + 10), dice.randrange(3 * UNIT)
                    assert os.pread(descriptor, count, at) == model[at : at + count], history
            assert os.fstat(descriptor).st_size == len(model), history
    assert path.read_bytes() == model, history
    commit = mounted.commit("changed")
    assert (mounted.commit_dir(commit) / "file").read_bytes() == model, history
    mounted.remount()
    assert path.read_bytes() == (mounted.commit_dir(commit) / "file").read_bytes() == model, history


def test_truncate_by_path(main: Path) -> None:
    path = main / "file"
    data = noise(3 * UNIT)
    path.write_bytes(data)
    os.truncate(path, UNIT + 5)
    assert path.read_bytes() == data[: UNIT + 5]
    os.truncate(path, 2 * UNIT)
    assert path.read_bytes() == data[: UNIT + 5] + bytes(UNIT - 5)
    os.truncate(path, 0)
    assert path.read_bytes() == b""
    path.open("w").close()
    assert path.stat().st_size == 0
    assert errno_of(os.truncate, main, 0) == errno.EISDIR
    assert errno_of(os.truncate, main / "none", 0) == errno.ENOENT


def test_exclusive_create(main: Path) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(main / "lock", flags, 0o600))
    assert errno_of(os.open, main / "lock", flags) == errno.EEXIST
    (main / "link").symlink_to("nowhere")
    assert errno_of(os.open, main / "link", flags) == errno.EEXIST, "O_EXCL does not follow a link"
    won: list[int] = []

    def race(number: int) -> None:
        for round_ in range(30):
            try:
                os.close(os.open(main / f"race-{round_}", flags))
            except FileExistsError:
                continue
            won.append(round_)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(30)), "each file has exactly one creator"


def test_open_errors(main: Path) -> None:
    (main / "file").write_bytes(b"x")
    (main / "folder").mkdir()
    assert errno_of(os.open, main / "none", os.O_RDONLY) == errno.ENOENT
    assert errno_of(os.open, main / "file" / "below", os.O_RDONLY) == errno.ENOTDIR
    assert errno_of(os.open, main / "folder", os.O_WRONLY) == errno.EISDIR
    assert errno_of(os.open, main / "file", os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    with opened(main / "file", os.O_RDONLY) as descriptor:
        assert errno_of(os.write, descriptor, b"x") == errno.EBADF
    with opened(main / "file", os.O_WRONLY) as descriptor:
        assert errno_of(os.read, descriptor, 1) == errno.EBADF


def test_appends_from_several_processes(main: Path) -> None:
    """O_APPEND: every record whole, each writer's in its order, none lost."""
    script = "import os, sys\nd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    script += (
        "for i in range(300):\n    line = f'{sys.argv[2]} {i:06}'.ljust(79) + '\\n'\n    os.write(d, line.encode())\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(main / "log"), str(n)]) for n in range(4)]
    assert [p.wait(60) for p in running] == [0] * 4
    lines = (main / "log").read_text().splitlines()
    assert len(lines) == 1200 and {len(line) for line in lines} == {79}
    for n in range(4):
        assert [line.split() for line in lines if line.startswith(f"{n} ")] == [[str(n), f"{i:06}"] for i in range(300)]


def test_append_ignores_the_position(main: Path) -> None:
    with opened(main / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
        os.write(descriptor, b"one")
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, b"two")
        os.ftruncate(descriptor, 4)
        os.write(descriptor, b"three")
    assert (main / "file").read_bytes() == b"onetthree"


def test_two_descriptors_see_each_other(main: Path) -> None:
    with opened(main / "file", os.O_RDWR | os.O_CREAT) as a, opened(main / "file", os.O_RDONLY) as b:
        os.write(a, b"first")
        assert os.pread(b, 100, 0) == b"first"
        os.pwrite(a, b"F", 0)
        assert os.pread(b, 100, 0) == b"First"
        os.ftruncate(a, 2)
        assert (os.pread(b, 100, 0), os.fstat(b).st_size) == (b"Fi", 2)
    # A write-only handle may go past the page cache: a reader beside it must not be left with old pages.
    with opened(main / "file", os.O_RDONLY) as reader:
        assert os.pread(reader, 100, 0) == b"Fi"
        with opened(main / "file", os.O_WRONLY) as writer:
            os.pwrite(writer, b"tted", 2)
            assert os.pread(reader, 100, 0) == b"Fitted"
        assert os.pread(reader, 100, 0) == b"Fitted"


def test_a_copied_descriptor_that_writes_on_is_seen(repo: Repo) -> None:
    """fork and exec flush a descriptor; the parent goes on with it while somebody has read the file already."""
    repo.mount("-o", "passthrough=off")
    old, new = noise(4 * UNIT), bytearray(noise(4 * UNIT)[::-1])
    with opened(repo.main / "file", os.O_WRONLY | os.O_CREAT) as writer:
        os.write(writer, old)
        os.close(os.dup(writer))
        with opened(repo.main / "file", os.O_RDONLY) as reader:
            view = mmap.mmap(reader, len(old), prot=mmap.PROT_READ)
            assert os.pread(reader, len(old), 0) == old == view[:]
            for at in (0, 4095, UNIT + 1, 3 * UNIT):
                os.pwrite(writer, new[at : at + 5000], at)
                old = old[:at] + new[at : at + 5000] + old[at + 5000 :]
                wait_for("the reader sees it", lambda: os.pread(reader, len(old), 0) == old == view[:])
            view.close()
    repo.umount()


def test_shared_writable_mapping(mounted: Repo) -> None:
    data = bytearray(noise(6 * UNIT))
    path = mounted.main / "mapped"
    path.write_bytes(data)
    mounted.commit("before")
    with opened(path, os.O_RDWR) as descriptor:
        view = mmap.mmap(descriptor, len(data))
        for at in (0, 4095, UNIT - 3, 3 * UNIT + 11, len(data) - 9):
            view[at : at + 9] = data[at : at + 9] = b"new bytes"[: len(data[at : at + 9])]
        # No msync yet: read(2) goes through the same page cache and must see it.
        assert os.pread(descriptor, len(data), 0) == data
        view.flush()
        view[100:104] = data[100:104] = b"last"
    # The descriptor is closed, the mapping lives: its last write must arrive all the same.
    view.close()
    assert path.read_bytes() == data
    commit = mounted.commit("after")
    assert (mounted.commit_dir(commit) / "mapped").read_bytes() == data
    mounted.remount()
    assert path.read_bytes() == data
    assert (mounted.mnt / "at" / "main~1" / "mapped").read_bytes() == noise(6 * UNIT)


def test_private_mapping_changes_nothing(mounted: Repo) -> None:
    data = noise(2 * UNIT)
    (mounted.main / "file").write_bytes(data)
    commit = mounted.commit("base")
    for path in (mounted.main / "file", mounted.commit_dir(commit) / "file"):
        with opened(path, os.O_RDONLY) as descriptor, mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY) as view:
            view[10:20] = b"0123456789"
            assert view[:30] == data[:10] + b"0123456789" + data[20:30]
        assert path.read_bytes() == data
    assert mounted.status() == {}


def test_fallocate_and_holes(main: Path) -> None:
    with opened(main / "file", os.O_RDWR | os.O_CREAT) as descriptor:
        os.write(descriptor, b"head")
        os.posix_fallocate(descriptor, 0, 100_000)
        assert os.fstat(descriptor).st_size == 100_000
        assert os.pread(descriptor, 100_000, 0) == b"head" + bytes(99_996)
        os.pwrite(descriptor, b"tail", 5 * UNIT)
        assert os.pread(descriptor, 5 * UNIT, 4) == bytes(5 * UNIT - 4) + b"tail"
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
        assert os.lseek(descriptor, 0, os.SEEK_END) == 5 * UNIT + 4
        hole = os.lseek(descriptor, 0, os.SEEK_HOLE)
        assert 4 <= hole <= 5 * UNIT + 4 and not any(os.pread(descriptor, 1 << 20, hole)[: 5 * UNIT - hole]), (
            "data in a hole"
        )
        assert errno_of(os.lseek, descriptor, 5 * UNIT + 5, os.SEEK_DATA) == errno.ENXIO


def test_punched_and_zeroed_ranges(mounted: Repo) -> None:
    """fallocate(1) of a file in packs: -p keeps the size, -z does not; moving what follows is refused."""
    path, data = mounted.main / "file", bytearray(noise(5 * UNIT))
    path.write_bytes(data)
    mounted.commit("whole")
    mounted.remount()
    for mode, at, size in (("-p", 100, 2 * UNIT), ("-z", 3 * UNIT - 1, 7), ("-p", 5 * UNIT - 10, UNIT)):
        subprocess.run(["fallocate", mode, "-o", str(at), "-l", str(size), str(path)], check=True)
        end = min(at + size, len(data))
        data[at:end] = bytes(end - at)
        assert path.read_bytes() == data and path.stat().st_size == len(data)
    subprocess.run(["fallocate", "-z", "-o", str(5 * UNIT), "-l", "100", str(path)], check=True)
    assert path.read_bytes() == data + bytes(100)
    for mode in ("--collapse-range", "--insert-range"):
        refused = ["fallocate", mode, "-o", str(UNIT), "-l", str(UNIT), str(path)]
        done = subprocess.run(refused, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
        assert done.returncode != 0 and "not supported" in done.stderr, done.stderr
    commit = mounted.commit("with zeros")
    assert (mounted.commit_dir(commit) / "file").read_bytes() == data + bytes(100)


@pytest.mark.parametrize("options", ["", "passthrough=off"], ids=["auto", "off"])
def test_a_temporary_file_that_is_written_read_and_mapped(repo: Repo, options: str) -> None:
    """O_EXCL for reading and writing, as safetensors and mkstemp do: direct without passthrough, and mapped all the same."""
    repo.mount(*(["-o", options] if options else []))
    path, whole = repo.main / ".tmp1", bytearray(noise(3 * MIB + 77, 5))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, len(whole))
    assert os.pread(descriptor, 10, MIB) == bytes(10)
    assert os.pwrite(descriptor, whole, 0) == len(whole)
    if MAPS_DIRECT:
        assert options == "" or os.getxattr(path, "user.coral.io") == b"direct"
    assert os.pread(descriptor, 5000, 12345) == whole[12345:17345]
    with contextlib.closing(mmap.mmap(descriptor, len(whole))) as view, open(path, "rb") as beside:
        assert view[:] == whole
        view[MIB : MIB + 4] = whole[MIB : MIB + 4] = b"mmap"
        assert os.pread(descriptor, 4, MIB) == b"mmap" == os.pread(beside.fileno(), 4, MIB), "what is mapped is read"
        os.pwrite(descriptor, b"call", MIB + 2)
        whole[MIB + 2 : MIB + 6] = b"call"
        assert view[MIB : MIB + 8] == whole[MIB : MIB + 8], "what is written is mapped"
        with contextlib.closing(mmap.mmap(beside.fileno(), 0, prot=mmap.PROT_READ)) as other:
            view[9000:9004] = whole[9000:9004] = b"both"
            assert other[:] == whole
            # Closed before the mapping ends: what it changes then is written back by the kernel.
            os.close(descriptor)
            view[2 * MIB] = whole[2 * MIB] = 7
            assert other[:] == whole and path.read_bytes() == whole
    os.rename(path, repo.main / "model.safetensors")
    assert (repo.main / "model.safetensors").read_bytes() == whole
    repo.commit("all of it")
    repo.remount()
    assert (repo.main / "model.safetensors").read_bytes() == whole


def test_direct_io_of_any_alignment(repo: Repo) -> None:
    repo.mount("-o", "passthrough=off")
    path, data = repo.main / "file", noise(UNIT + 777)
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT) as descriptor:
        for at in range(0, len(data), 100_003):
            part = data[at : at + 100_003]
            assert os.pwrite(descriptor, part, at) == len(part)
        assert os.pread(descriptor, len(data), 0) == data
        assert os.pread(descriptor, 333, 12_345) == data[12_345:12_678]
    assert path.read_bytes() == data
    repo.umount()


def test_direct_io_of_the_disks_alignment(main: Path) -> None:
    """Works in every mode, from memory that is aligned as a mapping is."""
    path, data = main / "file", noise(2 * UNIT)
    with mmap.mmap(-1, len(data)) as memory, opened(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT) as descriptor:
        memory[:] = data
        assert os.pwritev(descriptor, [memory], 0) == len(data)
        memory[:] = bytes(len(data))
        assert os.preadv(descriptor, [memory], 0) == len(data)
        assert memory[:] == data
    assert path.read_bytes() == data


def test_temporary_files_without_a_name_are_refused(main: Path) -> None:
    """EOPNOTSUPP is what tempfile and others take as: make one with a name."""
    assert errno_of(os.open, main, os.O_TMPFILE | os.O_RDWR) == errno.EOPNOTSUPP
    with tempfile.TemporaryFile(dir=main) as file:
        file.write(b"x")
    assert os.listdir(main) == []


# --- what is refused, and durability ----------------------------------------------------------------------------------


def test_no_links_and_no_devices(main: Path) -> None:
    (main / "file").touch()
    assert errno_of(os.link, main / "file", main / "other") == errno.EPERM
    assert errno_of(os.mkfifo, main / "pipe") == errno.EPERM
    assert errno_of(os.mknod, main / "socket", stat.S_IFSOCK | 0o600) == errno.EPERM
    if os.geteuid() == 0:
        assert errno_of(os.mknod, main / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3)) == errno.EPERM
    assert os.listdir(main) == ["file"]


def test_refused_calls(main: Path) -> None:
    """Everything that scripts/conformance forgives is refused with the errno it names, and documented."""
    path, other = main / "file", main / "other"
    path.write_bytes(noise(UNIT))
    other.touch()
    (main / "folder").mkdir()
    flags = struct.pack("i", 0x10)  # FS_IMMUTABLE_FL

    def with_file(call: Callable[[int], object]) -> int:
        with opened(path, os.O_RDWR) as descriptor:
            return errno_of(call, descriptor)

    def first_hole(descriptor: int) -> None:
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == path.stat().st_size

    def holes_count(descriptor: int) -> None:
        os.ftruncate(descriptor, 16 * UNIT)
        assert os.fstat(descriptor).st_blocks == 16 * UNIT // 512

    def read_later(path: Path) -> int:
        """Its atime before it is read; where the disk below has relatime, such a read would change it."""
        os.utime(path, ns=(1_000_000_000, 2_000_000_000))
        path.read_bytes()
        return 1_000_000_000

    def clone(descriptor: int) -> None:
        with opened(other, os.O_RDWR) as target:
            fcntl.ioctl(target, 0x40049409, descriptor)  # FICLONE

    def collapse(descriptor: int) -> None:
        if ctypes.CDLL(None, use_errno=True).fallocate(descriptor, 8, ctypes.c_long(0), ctypes.c_long(4096)):
            raise OSError(ctypes.get_errno(), "fallocate")

    tried = {
        "link": errno_of(os.link, path, main / "second"),
        "special": errno_of(os.mkfifo, main / "pipe"),
        "tmpfile": errno_of(os.open, main, os.O_TMPFILE | os.O_RDWR),
        "shift": with_file(collapse),
        "clone": with_file(clone),
        "flags": with_file(lambda d: fcntl.ioctl(d, 0x40086602, flags)),  # FS_IOC_SETFLAGS
        "xattr": errno_of(os.setxattr, path, "trusted.x", b"1"),
        "namespaces": errno_of(os.setxattr, path, "system.x", b"1"),
        "extents": with_file(lambda d: fcntl.ioctl(d, 0xC020660B, bytearray(32))),  # FS_IOC_FIEMAP
        "holes": with_file(first_hole),
        "uncached": with_file(lambda d: os.preadv(d, [bytearray(4096)], 0, 0x80)),  # RWF_DONTCACHE
        "blocks": with_file(holes_count),
        "atime": 0 if read_later(path) == path.stat().st_atime_ns else -1,
        "nlink": 0 if main.stat().st_nlink == 2 else -1,
    }
    assert tried == {key: refusal.code for key, refusal in REFUSALS.items()}
    documented = (ROOT / "docs/semantics.md").read_text()
    for refusal in REFUSALS.values():
        assert f"- {refusal.sentence} " in documented, refusal.text


def test_mknod_of_a_regular_file(main: Path) -> None:
    """NFS servers and some tools create files this way; it may work or be refused, but not do something else."""
    code = errno_of(os.mknod, main / "file", stat.S_IFREG | 0o644)
    assert code in (0, errno.EPERM)
    assert os.listdir(main) == (["file"] if code == 0 else [])


def test_fsync_of_files_and_directories(main: Path) -> None:
    with opened(main / "file", os.O_CREAT | os.O_RDWR) as descriptor:
        os.write(descriptor, b"kept")
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.pwrite(descriptor, b"K", 0)
        os.fsync(descriptor)
    for folder in (main, main.parent, main.parent.parent):
        with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)
    with opened(main / "file", os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
    subprocess.run(["sync", "-f", str(main)], check=True)
    assert (main / "file").read_bytes() == b"Kept"


def test_locks(main: Path) -> None:
    (main / "file").touch()
    with opened(main / "file", os.O_RDWR) as a, opened(main / "file", os.O_RDWR) as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        assert errno_of(fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EWOULDBLOCK
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(b, fcntl.LOCK_UN)
        fcntl.lockf(a, fcntl.LOCK_EX)
        taken = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = [sys.executable, "-c", taken, str(main / "file")]
        assert subprocess.run(other, capture_output=True, check=False).returncode != 0
        fcntl.lockf(a, fcntl.LOCK_UN)
        assert subprocess.run(other, capture_output=True, check=False).returncode == 0


def test_sqlite_database_in_the_mount(main: Path) -> None:
    """Locks, small writes anywhere, fsync, truncation and journals together: what experiment trackers do."""
    import sqlite3

    for number in range(3):
        with sqlite3.connect(main / "runs.db") as database:
            database.execute("create table if not exists metric(step integer, loss real)")
            database.executemany("insert into metric values(?, ?)", [(i, 1 / (i + 1)) for i in range(500)])
        database.close()
        check = sqlite3.connect(main / "runs.db")
        assert check.execute("pragma integrity_check").fetchone() == ("ok",)
        assert check.execute("select count(*) from metric").fetchone() == (500 * (number + 1),)
        check.close()


def test_closing_in_a_child_does_not_complete_a_file(mounted: Repo) -> None:
    """fork and exec flush a descriptor while the parent still writes: no commit may take the half-written file."""
    path = mounted.main / "file"
    with opened(path, os.O_CREAT | os.O_WRONLY) as descriptor:
        os.write(descriptor, b"first half, ")
        os.set_inheritable(descriptor, True)
        subprocess.run(["true"], close_fds=False, check=True)
        os.write(descriptor, b"second half")
        done = mounted.coral.run("commit", "-m", "too early", cwd=mounted.main, expect=(1, 128))
        assert b"file" in done.stdout + done.stderr
    commit = mounted.commit("whole")
    assert (mounted.commit_dir(commit) / "file").read_bytes() == b"first half, second half"
