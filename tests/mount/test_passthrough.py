# SPDX-License-Identifier: Apache-2.0
"""The kernel reads and writes staging files itself. What a user sees must not depend on it: sizes, times, bytes, other
processes' writes, crashes.

Where the kernel or the user's rights do not allow passthrough, the same is checked without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from driver import Repo, is_incomplete, linux, opened, wait_for
from small_files import noise

MIB = 1 << 20


def possible() -> bool:
    return os.geteuid() == 0 and linux() >= (6, 9)


def mode(path: Path) -> str:
    return os.getxattr(path, "user.coral.io").decode()


@pytest.fixture(params=["auto", "off"])
def either(repo: Repo, request: pytest.FixtureRequest) -> Repo:
    """Mounted with passthrough and without: the same must be seen."""
    repo.mount("-o", f"passthrough={request.param}")
    return repo


def test_fcntl_takes_append_away_and_gives_it(either: Repo) -> None:
    path = either.main / "file"
    path.write_bytes(b"hello")
    with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        os.lseek(descriptor, 20, os.SEEK_SET)
        os.pwrite(descriptor, b"AA", 10)
        os.pwrite(descriptor, b"BB", 30)
        os.write(descriptor, b"CC")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        os.write(descriptor, b"end")
    assert path.read_bytes() == b"hello" + b"\0" * 5 + b"AA" + b"\0" * 8 + b"CC" + b"\0" * 8 + b"BBend"
    with opened(path, os.O_WRONLY) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        os.write(descriptor, b"!")
    assert path.read_bytes().endswith(b"BBend!")


def test_a_file_that_nobody_wrote_is_complete(either: Repo) -> None:
    """flock(1) opens with O_RDONLY and O_CREAT: no writer will ever close that file."""
    subprocess.run(["flock", either.main / "lock", "true"], check=True, timeout=60)
    descriptor = os.open(either.main / "open", os.O_RDONLY | os.O_CREAT | os.O_TRUNC | os.O_EXCL)
    try:
        first = either.commit("with locks")
    finally:
        os.close(descriptor)
    assert sorted(p.name for p in either.commit_dir(first).iterdir()) == ["lock", "open"]
    (either.main / "data").write_bytes(noise(MIB, 7))
    os.close(os.open(either.main / "data", os.O_RDONLY | os.O_TRUNC))
    assert (either.commit_dir(either.commit("emptied")) / "data").stat().st_size == 0


def test_what_is_closed_is_in_a_commit_beside_open_files(either: Repo) -> None:
    """The kernel lets a file go a moment after close(2): that moment is waited for, a writer that stays is not."""
    content = noise(MIB, 8)
    script = (
        "import mmap, os, sys, time\nf = open(sys.argv[1], 'wb+')\nf.write(sys.stdin.buffer.read())\nf.flush()\n"
        "m = mmap.mmap(f.fileno(), 0)\nf.close()\nprint('closed', flush=True)\ntime.sleep(0.05)\nos._exit(0)\n"
    )
    with open(either.main / "other", "wb", buffering=0) as other:
        other.write(b"x")
        for number in range(5):
            with open(either.main / f"n{number}", "wb+") as file:  # may be mapped: nothing else tells its end
                file.write(content)
            commit = either.commit(f"with {number}", "--allow-open")
            assert (either.commit_dir(commit) / f"n{number}").read_bytes() == content
            # As the kernel does it, but long enough to be met each time.
            command = [sys.executable, "-c", script, str(either.main / f"m{number}")]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
                assert child.stdin and child.stdout
                child.stdin.write(content)
                child.stdin.close()
                assert child.stdout.readline() == b"closed\n"
                commit = either.commit(f"with m{number}", "--allow-open")
            assert (either.commit_dir(commit) / f"m{number}").read_bytes() == content
            assert not (either.commit_dir(commit) / "other").exists()


def test_pieces_of_writes(either: Repo) -> None:
    """What writes to the disk by itself does it in pieces that the disk takes well; requests to the daemon are large."""
    passthrough = either.coral.json("mount-info", either.mnt)["passthrough"]
    (either.main / "f").write_bytes(b"x")
    with open(either.main / "f", "r+b") as file:
        sizes = {os.fstat(file.fileno()).st_blksize, (either.main / "f").stat().st_blksize, either.main.stat().st_blksize}
    assert sizes == {(128 << 10) if passthrough else MIB}
    assert (either.mnt / "commits").stat().st_blksize == MIB


def test_a_hole_is_not_filled_to_make_a_hole(either: Repo) -> None:
    """fallocate(1) of what may be larger than the disk, whoever writes it."""
    with open(either.main / "f", "w+b", buffering=0) as file:
        file.truncate(64 * MIB)
        os.pwrite(file.fileno(), noise(MIB), 40 * MIB)
        subprocess.run(["fallocate", "-p", "-o", "0", "-l", str(60 * MIB), f"/proc/self/fd/{file.fileno()}"],
                       check=True, pass_fds=[file.fileno()])  # fmt: skip
        below = [path.stat() for path in (either.path / "staging").rglob("*") if path.is_file()]
        assert 512 * sum(stat.st_blocks for stat in below) <= 8 * MIB
        assert os.fstat(file.fileno()).st_size == 64 * MIB and os.pread(file.fileno(), MIB, 40 * MIB) == bytes(MIB)
    assert (either.main / "f").read_bytes() == bytes(64 * MIB)


def test_mount_info_tells(repo: Repo) -> None:
    repo.mount()
    info = repo.coral.json("mount-info", repo.mnt)
    assert info["passthrough"] == possible()
    assert possible() or info["passthrough_off_because"]
    with open(repo.main / "f", "wb") as file:
        file.write(b"x")
        file.flush()
        info = repo.coral.json("mount-info", repo.mnt / "branches")
        assert (info["open_files"], info["passthrough_files"]) == (1, int(possible()))
    assert info["mount_point"] == str(repo.mnt) and info["hot_limit"] > 0
    assert info["kernel_readahead_kb"] == (1024 if os.geteuid() == 0 else 128)
    repo.remount("-o", "passthrough=off,hot_size=0,readahead_kb=2048")
    info = repo.coral.json("mount-info", repo.path)
    assert info["kernel_readahead_kb"] == (2048 if os.geteuid() == 0 else 128)
    assert not info["passthrough"] and "passthrough=off" in info["passthrough_off_because"]
    assert info["hot_limit"] == 0
    repo.remount("-o", "ro")
    info = repo.coral.json("mount-info", repo.mnt)
    assert not info["passthrough"] and "read-only" in info["passthrough_off_because"] and info["read_only"]


def test_a_file_grows_for_everybody(either: Repo) -> None:
    """tail -f: who reads while another writes sees every byte at once, and the size."""
    path = either.main / "log"
    with open(path, "wb", buffering=0) as writer, open(path, "rb", buffering=0) as reader:
        for number in range(50):
            line = b"line %d\n" % number * (number + 1)
            writer.write(line)
            assert reader.read() == line
            assert path.stat().st_size == writer.tell() == os.fstat(reader.fileno()).st_size


def test_times_move_with_writes_and_stay_when_set(either: Repo) -> None:
    path = either.main / "f"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"a" * MIB)
    first = path.stat().st_mtime_ns
    time.sleep(0.1)
    os.write(descriptor, b"b" * MIB)
    assert path.stat().st_mtime_ns > first
    os.utime(descriptor, ns=(10**18, 10**18 + 123))  # cp -p: between the last write and the close
    os.close(descriptor)
    assert path.stat().st_mtime_ns == 10**18 + 123
    either.commit("with its time")
    assert path.stat().st_mtime_ns == 10**18 + 123
    either.remount()
    assert path.stat().st_mtime_ns == 10**18 + 123


def test_cut_grown_and_appended(either: Repo) -> None:
    path, data = either.main / "f", bytearray(noise(3 * MIB, 1))
    with open(path, "w+b", buffering=0) as file:
        file.write(data)
        file.truncate(MIB)
        file.truncate(2 * MIB)
        data[MIB:] = bytes(MIB)
        with open(path, "ab", buffering=0) as appender:
            assert appender.write(b"tail") == 4
        os.truncate(path, 2 * MIB + 2)
        os.posix_fallocate(file.fileno(), 0, 2 * MIB + 100)
        wanted = bytes(data[: 2 * MIB]) + b"ta" + bytes(98)
        assert os.pread(file.fileno(), 4 * MIB, 0) == wanted
        assert path.read_bytes() == wanted
    either.commit("cut and grown")
    assert path.read_bytes() == wanted


def test_shared_mappings_and_descriptors_agree(either: Repo) -> None:
    path = either.main / "f"
    with open(path, "w+b", buffering=0) as file:
        file.truncate(4 * MIB)
        with mmap.mmap(file.fileno(), 4 * MIB) as area, open(path, "rb", buffering=0) as reader:
            area[MIB : MIB + 4] = b"here"
            area.flush()
            assert os.pread(reader.fileno(), 4, MIB) == b"here"
            os.pwrite(file.fileno(), b"there", 2 * MIB)
            assert area[2 * MIB : 2 * MIB + 5] == b"there"
    either.commit("mapped")
    assert path.read_bytes()[2 * MIB : 2 * MIB + 5] == b"there"


def test_a_mapping_that_outlives_its_descriptor(either: Repo) -> None:
    """It may write after the close. No commit takes the file before it is gone, and none of its bytes is lost."""
    path = either.main / "f"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    os.ftruncate(descriptor, MIB)
    area = mmap.mmap(descriptor, MIB)
    os.close(descriptor)
    time.sleep(0.3)
    area[5000:5004] = b"late"
    area.close()
    wait_for("the file is complete", lambda: not is_incomplete(path))
    either.commit("late")
    either.remount()
    assert path.read_bytes()[5000:5004] == b"late"


def test_opens_of_all_kinds_at_the_same_time(either: Repo) -> None:
    """The kernel answers EIO when the modes of two opens do not go together: nobody may ever see that."""
    path, errors, stop = either.main / "f", [], threading.Event()
    path.write_bytes(noise(2 * MIB, 2))
    kinds = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT]

    def work(number: int) -> None:
        for round_ in range(500):
            try:
                descriptor = os.open(path, kinds[(number + round_) % len(kinds)])
                if (number + round_) % 3 == 0:
                    with contextlib.suppress(OSError):
                        os.pwrite(descriptor, b"x" * 4096, 4096 * number)
                os.close(descriptor)
            except OSError as error:
                errors.append(error)
            if stop.is_set():
                return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    assert not errors, errors[:3]


def test_what_was_saved_is_plain_until_there_is_no_room(repo: Repo) -> None:
    repo.mount("-o", "hot_size=5M")
    old, young = noise(3 * MIB, 3), noise(3 * MIB, 4)
    (repo.main / "old").write_bytes(old)
    (repo.main / "young").write_bytes(young)
    repo.commit("both")

    def hot(name: str) -> bool:
        with open(repo.main / name, "rb"):
            return mode(repo.main / name) == "passthrough"

    if possible():
        wait_for("the younger one is left", lambda: hot("young") and not hot("old"))
    wait_for("one is left", lambda: repo.coral.json("mount-info", repo.mnt)["hot_bytes"] == 3 * MIB)
    assert (repo.main / "old").read_bytes() == old and (repo.main / "young").read_bytes() == young
    repo.umount()
    assert not [f for f in (repo.path / "staging").rglob("*") if f.is_file()], "nothing stays plain unmounted"


def test_copying_within_the_mount_moves_no_bytes(repo: Repo) -> None:
    repo.mount()
    data = noise(40 * MIB, 5)
    (repo.main / "a").write_bytes(data)
    commit = repo.commit("one")
    time.sleep(2.1)  # whoever copies right after reading something else is copying all the same
    subprocess.run(["cp", repo.main / "a", repo.main / "b"], check=True)
    subprocess.run(["cp", repo.commit_dir(commit) / "a", repo.main / "c"], check=True)
    for name in "bc":
        assert os.getxattr(repo.main / name, "user.coral.sha256"), "known at once: nothing had to be stored"
        assert (repo.main / name).read_bytes() == data


WRITER = """
import os, sys, time
d = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for number in range(40):
    os.write(d, bytes([number]) * 100_000)
    if number == 10:
        print("ready", flush=True)
    time.sleep(0.1)
os.close(d)
print("closed", flush=True)
"""


def test_a_writer_outlives_the_daemon(repo: Repo) -> None:
    """kill -9 under a writer whose bytes the kernel takes: he goes on, and the file is taken once he is gone."""
    repo.mount()
    path = repo.main / "f"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
        repo.kill()
        repo.heal()
        if possible():
            assert is_incomplete(path)
            refused = repo.coral.run("commit", "-m", "too early", cwd=repo.main, expect=(1, 128))
            assert b"f" in refused.stderr
        out, err = writer.communicate(timeout=60)
    if not possible():
        assert writer.returncode != 0 and ("ENOTCONN" in err or "not connected" in err), err
        return
    assert writer.returncode == 0 and "closed" in out, err
    wait_for("the file is complete", lambda: not is_incomplete(path))
    repo.commit("all of it")
    assert path.read_bytes() == b"".join(bytes([n]) * 100_000 for n in range(40))


def test_a_writer_that_is_killed_leaves_what_it_wrote(either: Repo) -> None:
    path = either.main / "f"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
        writer.send_signal(signal.SIGKILL)
    found = path.read_bytes()
    assert len(found) >= 1_100_000 and found == b"".join(bytes([n]) * 100_000 for n in range(40))[: len(found)]
    either.commit("what there is")


def test_removed_and_replaced_while_the_kernel_writes(either: Repo) -> None:
    """safetensors renames before it closes; and an unlinked file lives as long as its descriptors."""
    with open(either.main / "tmp", "wb", buffering=0) as file:
        file.write(noise(MIB, 6))
        os.rename(either.main / "tmp", either.main / "final")
        file.write(b"more")
    either.commit("renamed")
    assert (either.main / "final").stat().st_size == MIB + 4
    with open(either.main / "final", "r+b", buffering=0) as file:
        os.unlink(either.main / "final")
        file.seek(0, os.SEEK_END)
        file.write(b"unseen")
        assert os.fstat(file.fileno()).st_size == MIB + 10
    with pytest.raises(FileNotFoundError):
        (either.main / "final").stat()


def test_fsync_and_no_space(either: Repo) -> None:
    with open(either.main / "f", "wb", buffering=0) as file:
        file.write(noise(2 * MIB, 7))
        os.fsync(file.fileno())
        file.write(b"after")
        os.fdatasync(file.fileno())
    directory = os.open(either.main, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    either.commit("synced")
    assert (either.main / "f").stat().st_size == 2 * MIB + 5
    with open(either.main / "g", "wb") as file:
        for size in ((16 << 40) + 1, 1 << 62):
            with pytest.raises(OSError) as failed:
                os.truncate(file.fileno(), size)
            assert failed.value.errno == errno.EFBIG
