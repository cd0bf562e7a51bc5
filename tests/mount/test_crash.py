# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon. What was written and closed, fsynced or committed is exact after the next `coral mount`;
everything else is as it was before or as it should have become; nothing is ever in between."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import material
from driver import Repo, assert_same_tree, cp, errno_of, is_incomplete, opened, sha256sum, tree_sums, wait_for
from small_files import UNIT, noise


def test_kill_at_rest(mounted: Repo, source: Path) -> None:
    """Each kind of change, closed and untouched since; some committed, some fsynced, most neither."""
    material.make_edge_cases(source)
    cp("-a", f"{source}/.", mounted.main)
    first = mounted.commit("all")
    (mounted.main / "one-byte").write_bytes(b"Z")
    with (mounted.main / "noise-700001").open("r+b") as file:
        file.seek(300_000)
        file.write(b"in place")
    os.truncate(mounted.main / f"size-{16 << 20}", 1_000_000)
    (mounted.main / "empty").unlink()
    (mounted.main / "new" / "folder").mkdir(parents=True)
    (mounted.main / "adam.pth").rename(mounted.main / "new" / "folder" / "adam.pth")
    (mounted.main / "two.npz").chmod(0o600)
    os.setxattr(mounted.main / "two.npz", "user.note", b"kept")
    (mounted.main / "link").symlink_to("one-byte")
    os.utime(mounted.main / "c-order.npy", ns=(1, 1_500_000_000_123_456_789))
    with opened(mounted.main / "synced", os.O_CREAT | os.O_WRONLY) as descriptor:
        os.write(descriptor, b"safe " * 100_000)
        os.fsync(descriptor)
    before, status = tree_sums(mounted.main), mounted.status()
    mounted.kill()
    mounted.heal()
    assert_same_tree(mounted.main, before, "the branch, after kill -9")
    assert mounted.status() == status
    assert_same_tree(mounted.commit_dir(first), source, "the commit, after kill -9")
    assert (mounted.main / "two.npz").stat().st_mode & 0o777 == 0o600
    assert os.getxattr(mounted.main / "two.npz", "user.note") == b"kept"
    assert (mounted.main / "c-order.npy").stat().st_mtime_ns == 1_500_000_000_123_456_789
    second = mounted.commit("after the crash")
    assert_same_tree(mounted.commit_dir(second), before, "committed after kill -9")
    mounted.run("fsck", "--full")


def test_everything_about_a_dead_mount(mounted: Repo) -> None:
    (mounted.main / "file").write_bytes(b"x")
    held = os.open(mounted.main / "file", os.O_RDONLY)
    try:
        mounted.kill()
        assert errno_of(os.listdir, mounted.mnt) in (errno.ENOTCONN, errno.ECONNABORTED)
        # The repository is usable without any daemon meanwhile.
        assert mounted.status() == {"file": "added"}
        mounted.heal()
        assert (mounted.main / "file").read_bytes() == b"x"
        assert errno_of(os.fsync, held) in (errno.ENOTCONN, errno.ECONNABORTED)
    finally:
        os.close(held)


def test_mount_heals_twice_in_a_row(mounted: Repo) -> None:
    for number in range(3):
        (mounted.main / f"file-{number}").write_bytes(b"x" * number)
        mounted.kill()
        mounted.heal()
    assert sorted(os.listdir(mounted.main)) == ["file-0", "file-1", "file-2"]
    with open("/proc/self/mounts", "rb") as mounts:
        ours = [line for line in mounts if os.fsencode(mounted.mnt) in line]
    assert len(ours) == 1, "dead mounts must not pile up under the living one"


def test_umount_of_a_dead_mount(mounted: Repo) -> None:
    (mounted.main / "file").write_bytes(b"x")
    mounted.kill()
    mounted.coral.run("umount", mounted.mnt)
    assert not mounted.mounted() and os.listdir(mounted.mnt) == []
    mounted.mount()
    assert (mounted.main / "file").read_bytes() == b"x"


# --- during a write ---------------------------------------------------------------------------------------------------

# Each line it prints is a promise that the filesystem has made: a write that returned, a close, a rename, an fsync.
WRITER = """
import os, random, sys
root, seed = sys.argv[1], int(sys.argv[2])
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def content(name, size): return random.Random(name).randbytes(size)
dice = random.Random(seed)
for number in range(100000):
    name, size = f"{seed}-{number}", dice.choice([10, 5000, 300_000, 3_000_000])
    data, temporary = content(name, size), os.path.join(root, f"tmp-{name}")
    kind = ("plain", "fsync", "rename")[number % 3]
    d = os.open(temporary, os.O_CREAT | os.O_WRONLY)
    say("begin", name, size, kind)
    at = 0
    while at < size:
        at += os.write(d, data[at : at + 131072])
        say("wrote", name, at)
    if kind == "fsync":
        os.fsync(d)
        say("fsync", name)
    if kind == "rename":
        os.rename(temporary, os.path.join(root, "latest"))
        say("renamed", name)
    os.close(d)
    say("closed", name)
"""


def content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


class Promises:
    """What the writer was told before the daemon died."""

    def __init__(self, lines: list[str]) -> None:
        self.size: dict[str, int] = {}
        self.kind: dict[str, str] = {}
        self.wrote: dict[str, int] = {}
        self.closed: set[str] = set()
        self.latest = ""
        for line in lines:
            match line.split():
                case ["begin", name, size, kind]:
                    self.size[name], self.kind[name], self.wrote[name] = int(size), kind, 0
                case ["wrote", name, at]:
                    self.wrote[name] = int(at)
                case ["renamed", name]:
                    self.latest = name
                case ["closed", name]:
                    self.closed.add(name)

    def check(self, root: Path) -> None:
        last = list(self.size)[-1]
        for name, size in self.size.items():
            data, path = content(name, size), root / f"tmp-{name}"
            if name in self.closed and self.kind[name] != "rename":
                assert path.read_bytes() == data, f"{name} was closed"
            elif name == last and path.exists():
                found = path.read_bytes()
                assert len(found) >= self.wrote[name], (
                    f"{name}: {self.wrote[name]} bytes were written, {len(found)} are there"
                )
                assert found == data[: len(found)], f"{name}: torn"
            else:
                assert self.kind[name] == "rename" and not path.exists(), f"{name}: renamed, so not there"
        if self.latest:
            found = (root / "latest").read_bytes()
            # Old or new: the rename that was under way when the daemon died may or may not have happened.
            possible = [self.latest, last] if self.kind[last] == "rename" else [self.latest]
            whole = [
                name
                for name in possible
                if found == content(name, self.size[name])[: max(len(found), self.wrote[name])]
            ]
            assert whole, "latest is neither the old nor the new content"
        seed, _, number = last.partition("-")
        coming = f"{seed}-{int(number) + 1}"  # created, and dead before it could say so
        names = {f"tmp-{n}" for n in (*self.size, coming)} | {"latest"}
        assert set(os.listdir(root)) <= names, "names that nobody made"


@pytest.mark.heavy
def test_kill_during_writes(mounted: Repo) -> None:
    dice = random.Random(42)
    promises: dict[str, Promises] = {}
    for round_ in range(6):
        root = mounted.main / f"round-{round_}"
        root.mkdir()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(round_)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(0.3 + dice.random() * 2.5, mounted.coral.kill_daemons)
        timer.start()
        out, err = writer.communicate(timeout=60)
        timer.join()
        assert writer.returncode != 0 and ("ENOTCONN" in err or "not connected" in err or "abort" in err), err
        wait_for("the mount point is dead", mounted.dead)
        promises[f"round-{round_}"] = Promises(out.splitlines())
        assert promises[f"round-{round_}"].wrote, "the daemon was killed before anything was written"
        mounted.heal()
        for name, promised in promises.items():
            promised.check(mounted.main / name)
    assert sum(len(p.closed) for p in promises.values()) > 20
    # Whole files can be committed; what the crash cut off is marked, and left to the user.
    commit = mounted.commit("after six crashes", "--allow-open")
    mounted.remount()
    for name, promised in promises.items():
        for whole in promised.closed:
            if promised.kind[whole] != "rename":
                wanted = hashlib.sha256(content(whole, promised.size[whole])).hexdigest()
                assert sha256sum([mounted.commit_dir(commit) / name / f"tmp-{whole}"]) == [wanted]
    mounted.run("fsck", "--full")


def test_kill_while_a_file_is_half_written(mounted: Repo) -> None:
    """Such a file is there with all that was written, marked, and no commit takes it by itself.

    Its writer has seen an error. (One whose bytes the kernel takes by itself has not: test_passthrough.py.)
    """
    mounted.remount("-o", "passthrough=off")
    (mounted.main / "whole").write_bytes(b"whole")
    data = noise(5 * UNIT)
    descriptor = os.open(mounted.main / "half", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, data)
    mounted.kill()
    assert errno_of(os.fsync, descriptor) in (errno.ENOTCONN, errno.ECONNABORTED)
    with contextlib.suppress(OSError):  # whether close of a dead handle tells is the kernel's business
        os.close(descriptor)
    mounted.heal()
    assert (mounted.main / "half").read_bytes() == data
    assert is_incomplete(mounted.main / "half")
    assert not is_incomplete(mounted.main / "whole")
    mounted.coral.run("commit", "-m", "not this", cwd=mounted.main, expect=(1, 128))
    commit = mounted.commit("whole ones", "--allow-open")
    assert os.listdir(mounted.commit_dir(commit)) == ["whole"]
    # Writing it again, or only opening and closing it for writing, completes it.
    (mounted.main / "half").write_bytes(data + b"rest")
    commit = mounted.commit("now")
    assert (mounted.commit_dir(commit) / "half").read_bytes() == data + b"rest"


def test_kill_during_an_overwrite_of_committed_content(mounted: Repo) -> None:
    """Changes in place reach a file unit by unit; a crash leaves each write done or not, and the commit untouched."""
    data = bytearray(noise(12 * UNIT))
    path = mounted.main / "model"
    path.write_bytes(data)
    commit = mounted.commit("base")
    # close(2) on a dead mount may tell: that is the kernel's business
    with contextlib.suppress(OSError), opened(path, os.O_WRONLY) as descriptor:
        for number in range(12):
            at = number * UNIT + 1000 * number
            os.pwrite(descriptor, b"changed!" * 500, at)
            data[at : at + 4000] = b"changed!" * 500
        os.ftruncate(descriptor, len(data) - 777)
        del data[-777:]
        mounted.coral.kill_daemons()
    wait_for("the mount point is dead", mounted.dead)
    mounted.heal()
    assert path.read_bytes() == data
    assert (mounted.commit_dir(commit) / "model").read_bytes() == noise(12 * UNIT)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.4])
def test_kill_while_taking_in_what_was_copied(mounted: Repo, delay: float) -> None:
    """cp has ended, the file is being encoded behind it, the daemon dies."""
    source = material.folder("short") / "step-0015-bf16.safetensors"
    cp(source, mounted.main / "model.safetensors")
    time.sleep(delay)
    mounted.kill()
    mounted.heal()
    assert sha256sum([mounted.main / "model.safetensors"]) == sha256sum([source])
    commit = mounted.commit("taken in")
    assert sha256sum([mounted.commit_dir(commit) / "model.safetensors"]) == sha256sum([source])
    mounted.run("fsck")


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3, 0.8])
def test_kill_during_a_commit(mounted: Repo, delay: float) -> None:
    """The branch names the old commit or the new one, complete; the command's answer agrees with it."""
    (mounted.main / "before").write_bytes(b"before")
    old = mounted.commit("old")
    for number in range(60):
        (mounted.main / f"file-{number:02}").write_bytes(noise(200_000, number))
    wanted = tree_sums(mounted.main)
    command = [str(mounted.coral.bin / "coral"), "commit", "-m", "new"]
    running = subprocess.Popen(
        command, cwd=mounted.main, env=mounted.coral.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    time.sleep(delay)
    mounted.coral.kill_daemons()
    said = running.communicate(timeout=60)[1]
    wait_for("the mount point is dead", mounted.dead)
    mounted.heal()
    now = mounted.rev_parse("main")
    if running.returncode == 0:
        assert now != old, "the command said that it committed"
    if now == old:
        assert running.returncode != 0 and said, "no commit, and no error"
        assert len(mounted.log()) == 1 and len(mounted.status()) == 60
    else:
        assert mounted.log()[0]["message"].strip() == "new" and mounted.log()[0]["parents"] == [old]
        assert_same_tree(mounted.commit_dir(now), wanted, "the new commit")
        assert mounted.status() == {}
    assert_same_tree(mounted.main, wanted, "the branch")
    assert os.listdir(mounted.commit_dir(old)) == ["before"]
    mounted.run("fsck", "--full")
    if now == old:
        assert_same_tree(mounted.commit_dir(mounted.commit("again")), wanted)


@pytest.mark.heavy
def test_many_crashes_and_commits(mounted: Repo) -> None:
    """History written across crashes: every commit that was ever answered stays exact."""
    dice = random.Random(9)
    known: dict[str, dict[bytes, tuple[str, str]]] = {}
    for round_ in range(8):
        for _ in range(5):
            name = f"file-{dice.randrange(8)}"
            if dice.random() < 0.2 and (mounted.main / name).exists():
                (mounted.main / name).unlink()
            else:
                (mounted.main / name).write_bytes(dice.randbytes(dice.choice([0, 100, 70_000, 1_000_000])))
        (mounted.main / "round").write_text(str(round_))
        if round_ % 2:
            known[mounted.commit(f"round {round_}")] = tree_sums(mounted.main)
        before = tree_sums(mounted.main)
        mounted.kill()
        mounted.heal()
        assert_same_tree(mounted.main, before, f"round {round_}")
    for commit, sums in known.items():
        assert_same_tree(mounted.commit_dir(commit), sums)
    assert [row["id"] for row in mounted.log()] == list(reversed(known))
    mounted.run("fsck", "--full")


def test_kill_during_add_without_a_mount(repo: Repo, source: Path) -> None:
    """The command line is killed, not a daemon: what it was adding is there as a whole, or not at all."""
    cp(material.folder("short") / "step-0015-bf16.safetensors", source / "model.safetensors")
    (source / "small").write_bytes(b"small")
    for delay in (0.01, 0.05, 0.15, 0.4):
        adding = subprocess.Popen(
            [str(repo.coral.bin / "coral"), "-C", str(repo.path), "add", str(source), "--as", "in"],
            env=repo.coral.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        adding.send_signal(signal.SIGKILL)
        adding.wait()
        repo.run("fsck", "--full")
        for path in repo.status():
            assert path in ("in", "in/model.safetensors", "in/small"), path
    repo.run("add", source, "--as", "in")
    repo.run("commit", "-m", "added")
    repo.mount()
    assert_same_tree(repo.main / "in", source)
    repo.umount()
