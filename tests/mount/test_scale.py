# SPDX-License-Identifier: Apache-2.0
"""Many: opens, handles, files, levels, bytes in a name, threads on one cold file."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import material
import small_files
from driver import Repo, cp, errno_of, opened, sha256sum
from small_files import noise, small_file

ANONYMOUS_LIMIT = (512 + 96) << 20  # the default cache budget and what may come on top of it


def daemon_memory(repo: Repo) -> int:
    """Anonymous bytes of the daemon: what cannot be dropped, unlike pages of files."""
    total = 0
    for pid in repo.coral.daemons():
        status = Path(f"/proc/{pid}/status").read_text()
        total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))
    assert total > 0
    return total


def test_a_thousand_opens_of_one_file(mounted: Repo) -> None:
    data = noise(3 << 20)
    (mounted.main / "file").write_bytes(data)
    commit = mounted.commit("one file")
    dice = random.Random(1)
    for path in (mounted.main / "file", mounted.commit_dir(commit) / "file"):
        held = [os.open(path, os.O_RDONLY) for _ in range(1000)]
        try:
            for descriptor in dice.sample(held, 1000):
                at = dice.randrange(len(data))
                assert os.pread(descriptor, 5000, at) == data[at : at + 5000]
        finally:
            for descriptor in held:
                os.close(descriptor)
    # All of them gone again, for the daemon too: replacing the file and unmounting work.
    (mounted.main / "new").write_bytes(b"new")
    (mounted.main / "new").rename(mounted.main / "file")
    mounted.remount()
    assert (mounted.main / "file").read_bytes() == b"new"


HOLDER = """
import os, resource, sys
folder, count, first = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
names = sorted(os.listdir(folder))
held = [os.open(os.path.join(folder, names[(first + i) % len(names)]), os.O_RDONLY) for i in range(count)]
print("held", flush=True)
sys.stdin.readline()
wrong = sum(os.pread(d, 50, 0) != names[(first + i) % len(names)].ljust(50, b".") for i, d in enumerate(held))
print(wrong, flush=True)
sys.stdin.readline()
"""


@pytest.mark.heavy
def test_twenty_thousand_open_handles(mounted: Repo) -> None:
    """In as few processes as the limit on descriptors allows: it is the filesystem's handles that count here."""
    folder = mounted.main / "many"
    folder.mkdir()
    for number in range(400):
        name = f"file-{number:03}"
        (folder / name).write_bytes(name.encode().ljust(50, b".") + noise(2000, number))
    commit = mounted.commit("many")
    mounted.remount()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    each = min(5000, hard - 200)
    jobs = -(-20_000 // each)
    places = [folder if n % 2 else mounted.commit_dir(commit) / "many" for n in range(jobs)]
    commands = [[sys.executable, "-c", HOLDER, str(p), str(each), str(n * 17)] for n, p in enumerate(places)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for command in commands]
    try:
        assert [p.stdout.readline().strip() for p in running] == ["held"] * jobs
        assert each * jobs >= 20_000
        assert daemon_memory(mounted) < ANONYMOUS_LIMIT
        # The mount goes on working for everybody else.
        (mounted.main / "meanwhile").write_bytes(b"fine")
        assert (mounted.main / "meanwhile").read_bytes() == b"fine"
        for p in running:
            p.stdin.write("\n")
            p.stdin.flush()
        assert [p.stdout.readline().strip() for p in running] == ["0"] * jobs
    finally:
        for p in running:
            p.stdin.close()
            p.wait(60)
            p.stdout.close()


@pytest.mark.heavy
def test_a_hundred_thousand_files(mounted: Repo) -> None:
    total, jobs = 100_000, 4
    mounted.remount()  # the watchdog begins anew
    share = total // jobs
    maker = [sys.executable, small_files.__file__, str(mounted.main)]
    running = [subprocess.Popen([*maker, str(n * share), str((n + 1) * share)]) for n in range(jobs)]
    assert [p.wait(500) for p in running] == [0] * jobs
    root = os.fsencode(mounted.main)
    names = {os.path.join(d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d))}
    assert names == {small_file(n)[0] for n in range(total)}
    commit = mounted.commit("a hundred thousand", timeout=400)
    assert len(mounted.ls(commit)) == total
    dice = random.Random(7)
    began = time.monotonic()
    mounted.remount()
    assert time.monotonic() - began < 20, "mounting does not read what is in the branch"
    for where in (mounted.main, mounted.commit_dir(commit)):
        for number in dice.sample(range(total), 1000):
            path, data = small_file(number)
            found = os.fsencode(where) + b"/" + path
            with open(found, "rb") as file:
                assert file.read() == data, path
            assert os.stat(found).st_size == len(data)
    assert mounted.status() == {}
    assert daemon_memory(mounted) < ANONYMOUS_LIMIT
    # The hundred-thousand-and-first change costs what one change costs.
    (mounted.main / "000" / "000000.json").write_bytes(b"changed")
    began = time.monotonic()
    mounted.commit("one of them")
    assert time.monotonic() - began < 10, "a commit of one file walks the whole branch"
    assert mounted.json("show", "main")["changes"] and len(mounted.json("show", "main")["changes"]) == 1


def test_a_hundred_levels(mounted: Repo) -> None:
    relative = Path(*(f"level-{n:03}" for n in range(100)))
    folder = mounted.main
    for part in relative.parts:
        folder = folder / part
        folder.mkdir()
    (folder / "file").write_bytes(b"deep down")
    commit = mounted.commit("deep")
    mounted.remount()
    assert (mounted.commit_dir(commit) / relative / "file").read_bytes() == b"deep down"
    assert (mounted.main / relative / "file").read_bytes() == b"deep down"
    (mounted.main / "level-000").rename(mounted.main / "renamed")
    assert (mounted.main / "renamed" / Path(*relative.parts[1:]) / "file").read_bytes() == b"deep down"
    assert set(mounted.status().values()) == {"added", "deleted"}


NAMES = [
    b"x" * 255,
    "\N{SNOWMAN}".encode() * 85,
    b"\xff\xfe not utf-8 \x80.bin",
    b"new\nline",
    b"tab\tand \\ and \"quotes'",
    b" leading and trailing ",
    b"-rf",
    b"*",
    b"...",
    b".hidden",
    b"\x01\x7f",
    "é".encode(),
    "e\N{COMBINING ACUTE ACCENT}".encode(),
    b"CON",
    b"UPPER",
    b"upper",
]


def test_names_of_all_kinds(mounted: Repo) -> None:
    """A name is bytes: any but NUL and slash, up to 255 of them, and no two are taken for one."""
    main = os.fsencode(mounted.main)
    for name in NAMES:
        with open(os.path.join(main, name), "xb") as file:
            file.write(name)
        os.mkdir(os.path.join(main, b"d" + name[1:]))
        with open(os.path.join(main, b"d" + name[1:], name), "xb") as file:
            file.write(name * 2)
    everything = {*NAMES, *(b"d" + name[1:] for name in NAMES)}
    assert set(os.listdir(main)) == everything
    commit = mounted.commit("names")
    mounted.remount()
    for where in (main, os.fsencode(mounted.commit_dir(commit))):
        assert set(os.listdir(where)) == everything
        for name in NAMES:
            with open(os.path.join(where, name), "rb") as file:
                assert file.read() == name
            with open(os.path.join(where, b"d" + name[1:], name), "rb") as file:
                assert file.read() == name * 2
    assert mounted.run("cat", b"main:" + NAMES[2]).stdout == NAMES[2]
    # A name that is no text does not break the listing: it comes a second time, in hexadecimal.
    rows = mounted.json("ls", "main")["entries"]
    assert {bytes.fromhex(r["path_hex"]) if "path_hex" in r else r["path"].encode() for r in rows} == everything
    # And the same names as symlink targets, and renamed.
    for number, name in enumerate(NAMES):
        os.rename(os.path.join(main, name), os.path.join(main, b"renamed-%d" % number))
        os.symlink(name, os.path.join(main, name))
        assert os.readlink(os.path.join(main, name)) == name
    mounted.commit("links")
    assert mounted.status() == {}


def test_names_that_are_too_long(mounted: Repo) -> None:
    main = mounted.main
    long = "x" * 256
    assert errno_of(os.open, main / long, os.O_CREAT | os.O_WRONLY) == errno.ENAMETOOLONG
    assert errno_of(os.mkdir, main / long) == errno.ENAMETOOLONG
    assert errno_of(os.stat, main / long) == errno.ENAMETOOLONG
    (main / "short").touch()
    assert errno_of(os.rename, main / "short", main / long) == errno.ENAMETOOLONG
    assert os.listdir(main) == ["short"]


# --- one big cold file ------------------------------------------------------------------------------------------------


def big_checkpoint(path: Path) -> None:
    """Real weights and real Adam moments under other names, in one file: about 450 MB, nothing in it twice."""
    short = material.folder("short")
    tensors: dict[str, torch.Tensor] = {}
    for step in (5, 10, 15):
        state = safetensors.torch.load_file(short / f"step-{step:04d}.safetensors")
        tensors |= {f"step{step}.{k}": v for k, v in state.items() if v.is_floating_point()}
    training = torch.load(short / "training-step-0015.pth", weights_only=True, mmap=True)
    for index, moments in training["optimizer"]["state"].items():
        tensors |= {f"adam.{index}.{k}": v for k, v in moments.items() if v.dim()}
    safetensors.torch.save_file(tensors, path)


@pytest.mark.heavy
def test_32_threads_on_one_cold_file(mounted: Repo, source: Path) -> None:
    """Half of them fault pages of one mapping, half pread, all over the file: every byte right, nobody waits long."""
    big_checkpoint(source / "big.safetensors")
    cp(source / "big.safetensors", mounted.main)
    commit = mounted.commit("big")
    mounted.remount()  # cold: neither the kernel nor the daemon has anything of it
    wanted = np.memmap(source / "big.safetensors", mode="r")
    path = mounted.commit_dir(commit) / "big.safetensors"
    slowest, failures = [0.0] * 32, []
    with opened(path, os.O_RDONLY) as descriptor:
        view = np.memmap(path, mode="r")
        assert len(view) == len(wanted)

        def work(number: int) -> None:
            dice = random.Random(number)
            end = time.monotonic() + 12
            try:
                while time.monotonic() < end:
                    began = time.monotonic()
                    size = dice.choice([1, 4096, 70_000, 1 << 20])
                    at = dice.randrange(len(wanted) - size)
                    # The comparison faults the mapping's pages without Python's lock: the threads do run side by side.
                    if number % 2:
                        found = view[at : at + size]
                        equal = np.array_equal(found, wanted[at : at + size])
                    else:
                        equal = os.pread(descriptor, size, at) == wanted[at : at + size].tobytes()
                    slowest[number] = max(slowest[number], time.monotonic() - began)
                    if not equal:
                        failures.append((number, at, size))
            except Exception as error:
                failures.append((number, repr(error), 0))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in threads), "stalled"
    assert not failures, failures[:5]
    assert max(slowest) < 10, f"one access took {max(slowest):.1f} s"
    assert daemon_memory(mounted) < ANONYMOUS_LIMIT
    assert sha256sum([path]) == sha256sum([source / "big.safetensors"])


@pytest.mark.heavy
def test_memory_stays_bounded_while_writing(mounted: Repo, source: Path) -> None:
    """Ingest follows behind the writer; what it holds does not grow with the file."""
    big_checkpoint(source / "big.safetensors")
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], daemon_memory(mounted))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cp(source / "big.safetensors", mounted.main / "one")
        mounted.commit("one")
    finally:
        stop.set()
        watcher.join()
    assert peak[0] < ANONYMOUS_LIMIT, f"{peak[0] >> 20} MiB of anonymous memory"
    assert sha256sum([mounted.main / "one"]) == sha256sum([source / "big.safetensors"])
