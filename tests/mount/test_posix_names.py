# SPDX-License-Identifier: Apache-2.0
"""Names in a branch: rename, unlink, directories, each with the answer that a disk gives."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import subprocess
from pathlib import Path

from driver import Repo, errno_of, opened
from small_files import UNIT, noise

LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(old: Path, new: Path, flags: int) -> int:
    done = LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), ctypes.c_uint(flags))
    return ctypes.get_errno() if done else 0


def test_rename_over_existing(main: Path) -> None:
    (main / "a").write_bytes(b"new")
    (main / "b").write_bytes(b"old")
    with opened(main / "b", os.O_RDONLY) as held:
        inode = os.fstat(held).st_ino
        os.rename(main / "a", main / "b")
        assert os.pread(held, 10, 0) == b"old" and os.fstat(held).st_ino == inode
        assert (main / "b").stat().st_ino != inode, "a replaced name is another file"
    assert (main / "b").read_bytes() == b"new" and not (main / "a").exists()
    assert os.listdir(main) == ["b"]


def test_rename_while_it_is_written(mounted: Repo) -> None:
    """As safetensors saves: temporary name, size first, bytes, rename, and the flush only after it."""
    target = mounted.main / "model.safetensors"
    target.write_bytes(b"the version before")
    data = noise(5 * UNIT + 3)
    with opened(mounted.main / ".tmp", os.O_RDWR | os.O_CREAT | os.O_TRUNC) as descriptor:
        os.ftruncate(descriptor, len(data))
        os.pwrite(descriptor, data, 0)
        os.rename(mounted.main / ".tmp", target)
        assert target.read_bytes() == data, "between rename and flush"
    assert target.read_bytes() == data
    commit = mounted.commit("saved")
    assert (mounted.commit_dir(commit) / "model.safetensors").read_bytes() == data
    assert sorted(os.listdir(mounted.commit_dir(commit))) == ["model.safetensors"]


def test_rename_of_an_open_file_follows_it(main: Path) -> None:
    (main / "folder").mkdir()
    with opened(main / "a", os.O_RDWR | os.O_CREAT) as descriptor:
        os.write(descriptor, b"before ")
        os.rename(main / "a", main / "folder" / "b")
        os.write(descriptor, b"after")
    assert (main / "folder" / "b").read_bytes() == b"before after"


def test_unlink_while_open(mounted: Repo) -> None:
    data = noise(2 * UNIT)
    (mounted.main / "committed").write_bytes(data)
    mounted.commit("base")
    with opened(mounted.main / "file", os.O_RDWR | os.O_CREAT) as a, opened(mounted.main / "committed", os.O_RDWR) as b:
        os.write(a, b"still here")
        os.unlink(mounted.main / "file")
        os.unlink(mounted.main / "committed")
        assert os.listdir(mounted.main) == []
        os.pwrite(a, b"STILL", 0)
        os.pwrite(b, b"over", 5)
        assert os.pread(a, 100, 0) == b"STILL here"
        assert os.pread(b, len(data), 0) == data[:5] + b"over" + data[9:]
        assert os.fstat(a).st_nlink == 0
        (mounted.main / "file").write_bytes(b"another")
        assert os.pread(a, 100, 0) == b"STILL here"
    assert (mounted.main / "file").read_bytes() == b"another"
    assert mounted.status() == {"committed": "deleted", "file": "added"}


def test_rename_rules(main: Path) -> None:
    (main / "file").write_bytes(b"x")
    (main / "empty").mkdir()
    (main / "full" / "inner").mkdir(parents=True)
    assert errno_of(os.rename, main / "file", main / "empty") == errno.EISDIR
    assert errno_of(os.rename, main / "empty", main / "file") == errno.ENOTDIR
    assert errno_of(os.rename, main / "empty", main / "full") in (errno.ENOTEMPTY, errno.EEXIST)
    assert errno_of(os.rename, main / "full", main / "full" / "inner" / "x") == errno.EINVAL
    assert errno_of(os.rename, main / "none", main / "x") == errno.ENOENT
    os.rename(main / "full", main / "empty")
    assert sorted(os.listdir(main)) == ["empty", "file"] and os.listdir(main / "empty") == ["inner"]
    os.rename(main / "file", main / "file")
    assert (main / "file").read_bytes() == b"x"


def test_rename_noreplace_and_exchange(main: Path) -> None:
    (main / "a").write_bytes(b"a")
    (main / "b").write_bytes(b"b")
    (main / "folder").mkdir()
    (main / "folder" / "in").write_bytes(b"in")
    assert renameat2(main / "a", main / "b", RENAME_NOREPLACE) == errno.EEXIST
    assert renameat2(main / "a", main / "c", RENAME_NOREPLACE) == 0
    assert renameat2(main / "c", main / "b", RENAME_EXCHANGE) == 0
    assert ((main / "b").read_bytes(), (main / "c").read_bytes()) == (b"a", b"b")
    assert renameat2(main / "b", main / "folder", RENAME_EXCHANGE) == 0
    assert (main / "folder").read_bytes() == b"a" and (main / "b" / "in").read_bytes() == b"in"
    assert renameat2(main / "b", main / "none", RENAME_EXCHANGE) == errno.ENOENT


def test_rename_of_directories(mounted: Repo) -> None:
    """As the Hugging Face Trainer saves: a temporary folder, filled, then renamed."""
    for step in (1, 2):
        folder = mounted.main / "tmp-checkpoint"
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "model.bin").write_bytes(noise(UNIT, step))
        (folder / "deep" / "er" / "state").write_bytes(noise(99, step))
        with opened(folder / "model.bin", os.O_RDWR) as held:
            os.rename(folder, mounted.main / f"checkpoint-{step}")
            os.pwrite(held, b"late", 0)
        mounted.commit(f"step {step}")
    os.rename(mounted.main / "checkpoint-1", mounted.main / "checkpoint-2" / "moved")
    last = mounted.commit("moved")
    mounted.remount()
    for where in (mounted.main, mounted.commit_dir(last)):
        assert os.listdir(where) == ["checkpoint-2"]
        for step, folder in ((1, where / "checkpoint-2" / "moved"), (2, where / "checkpoint-2")):
            assert (folder / "model.bin").read_bytes() == b"late" + noise(UNIT, step)[4:]
            assert (folder / "deep" / "er" / "state").read_bytes() == noise(99, step)
    assert sorted(os.listdir(mounted.mnt / "at" / "main~1")) == ["checkpoint-1", "checkpoint-2"]


def test_directories(main: Path) -> None:
    links = main.stat().st_nlink
    (main / "a").mkdir(mode=0o750)
    assert stat.S_IMODE((main / "a").stat().st_mode) == 0o750
    assert errno_of(os.mkdir, main / "a") == errno.EEXIST
    assert errno_of(os.mkdir, main / "none" / "a") == errno.ENOENT
    (main / "a" / "file").write_bytes(b"")
    assert errno_of(os.rmdir, main / "a") == errno.ENOTEMPTY
    assert errno_of(os.unlink, main / "a") in (errno.EISDIR, errno.EPERM)
    assert errno_of(os.rmdir, main / "a" / "file") == errno.ENOTDIR
    (main / "a" / "file").unlink()
    os.rmdir(main / "a")
    assert os.listdir(main) == [] and main.stat().st_nlink == links
    assert errno_of(os.rmdir, main / "a") == errno.ENOENT


def test_removed_directory_that_is_still_open(main: Path) -> None:
    (main / "a").mkdir()
    with opened(main / "a", os.O_RDONLY | os.O_DIRECTORY) as held:
        os.rmdir(main / "a")
        assert errno_of(lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=held)) == errno.ENOENT
        assert os.listdir(held) == []


def test_listing_while_it_changes(main: Path) -> None:
    """Whoever is there during the whole listing is listed once, whatever comes and goes meanwhile."""
    for number in range(3000):
        (main / f"stays-{number:05}").touch()
    renamed = 0
    with os.scandir(main) as entries:
        seen = []
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 100 == 0:
                (main / f"comes-{count}").touch()
                (main / f"stays-{2999 - renamed:05}").rename(main / f"goes-{count}")
                renamed += 1
    stayed = [name for name in seen if name.startswith("stays-")]
    assert len(stayed) == len(set(stayed))
    still = {name for name in os.listdir(main) if name.startswith("stays-")}
    assert still <= set(stayed) and len(still) == 3000 - renamed < 3000


def test_rm_rf_and_find(main: Path) -> None:
    for a in range(10):
        for b in range(10):
            (main / f"a{a}" / f"b{b}").mkdir(parents=True)
            (main / f"a{a}" / f"b{b}" / "file").write_bytes(bytes([a, b]))
    count = subprocess.run(["find", str(main), "-type", "f", "-size", "2c"], capture_output=True, check=True).stdout
    assert len(count.splitlines()) == 100
    subprocess.run(["rm", "-rf", *map(str, main.iterdir())], check=True)
    assert os.listdir(main) == []


def test_names_and_links_that_are_too_long_or_go_round(main: Path) -> None:
    (main / ("n" * 255)).touch()
    for call in (os.mkdir, os.unlink, os.rmdir, os.stat, os.readlink):
        assert errno_of(call, main / ("n" * 256)) == errno.ENAMETOOLONG, call.__name__
    assert errno_of(os.open, main / ("n" * 256), os.O_CREAT | os.O_WRONLY) == errno.ENAMETOOLONG
    assert errno_of(os.symlink, "x", main / ("n" * 256)) == errno.ENAMETOOLONG
    assert errno_of(os.rename, main / ("n" * 255), main / ("n" * 256)) == errno.ENAMETOOLONG
    assert errno_of(os.symlink, "x" * 4096, main / "link") == errno.ENAMETOOLONG
    assert errno_of(os.symlink, "", main / "link") == errno.ENOENT
    (main / "round").symlink_to("about")
    (main / "about").symlink_to("round")
    assert errno_of(os.stat, main / "round") == errno.ELOOP
    assert errno_of(os.open, main / "round", os.O_RDONLY | os.O_NOFOLLOW) == errno.ELOOP
    assert errno_of(os.open, main / "about" / "x", os.O_CREAT | os.O_WRONLY) == errno.ELOOP


def test_every_place_of_a_listing_can_be_gone_to(main: Path) -> None:
    """telldir(3) of each entry, then seekdir(3) in any order: also forward again after going back."""
    count = 3000
    for i in range(count):
        (main / f"{i:04}-{'x' * (i % 60)}").touch()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    for name in ("readdir", "telldir", "closedir"):
        getattr(libc, name).argtypes = [ctypes.c_void_p]
    directory = libc.opendir(os.fsencode(main))
    try:

        def entry() -> bytes:
            ctypes.set_errno(0)
            found = libc.readdir(directory)
            assert found, os.strerror(ctypes.get_errno())
            return ctypes.string_at(found + 19)  # d_name

        places = []
        for _ in range(count + 2):
            place = libc.telldir(directory)
            places.append((place, entry()))
        assert not libc.readdir(directory)
        dice = random.Random(1)
        for place, name in [places[0], places[-1], *dice.choices(places, k=500)]:
            libc.seekdir(directory, place)
            assert entry() == name
        libc.seekdir(directory, 1 << 40)
        assert not libc.readdir(directory) and ctypes.get_errno() == 0, "behind the end there is nothing"
    finally:
        libc.closedir(directory)


class Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


def test_file_handles(mounted: Repo) -> None:
    """name_to_handle_at(2): good for the next mount, too, as long as the file is there."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = mounted.main / "folder"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    (folder / "gone").write_text("gone")
    handles = []
    for path in (folder / "kept", folder / "gone", folder):
        handle, mount = Handle(bytes=128), ctypes.c_int()
        assert libc.name_to_handle_at(-1, bytes(path), ctypes.byref(handle), ctypes.byref(mount), 0) == 0
        handles.append(handle)
    (folder / "gone").unlink()
    mounted.remount()

    def opened_by(handle: Handle, flags: int) -> int:
        where = os.open(mounted.main, os.O_RDONLY)
        try:
            descriptor = libc.open_by_handle_at(where, ctypes.byref(handle), flags)
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), "open_by_handle_at")
            return descriptor
        finally:
            os.close(where)

    if os.geteuid() != 0:
        assert errno_of(opened_by, handles[0], os.O_RDONLY) == errno.EPERM
        return
    descriptor = opened_by(handles[0], os.O_RDWR)
    assert os.read(descriptor, 10) == b"kept"
    os.pwrite(descriptor, b"K", 0)
    os.close(descriptor)
    assert (mounted.main / "folder/kept").read_text() == "Kept"
    assert errno_of(opened_by, handles[1], os.O_RDONLY) == errno.ESTALE
    directory = opened_by(handles[2], os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(directory) == ["kept"]
    assert os.readlink(f"/proc/self/fd/{directory}") == str(mounted.main / "folder"), "connected to the root"
    os.close(directory)
