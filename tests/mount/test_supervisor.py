# SPDX-License-Identifier: Apache-2.0
"""A daemon's death is a pause: clients of a mount whose worker is killed, or replaced, see neither an error nor a wrong
byte (docs/semantics.md, S8)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from driver import FATAL, Coral, Repo, wait_for

MIB = 1 << 20
SECONDS = float(os.environ.get("CORAL_KILL_SECONDS", "8"))
"""How long the clients of the last tests are tormented; 60 is what docs/benchmarks.md speaks of."""


@pytest.fixture(params=["passthrough", "plain"])
def served(repo: Repo, request: pytest.FixtureRequest) -> Repo:
    repo.mount(*(() if request.param == "passthrough" else ("-o", "passthrough=off")))
    return repo


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_what_was_open_goes_on(served: Repo) -> None:
    main = served.main
    (main / "old").write_bytes(noise(3 * MIB, 1))
    first = served.commit("before")
    (main / "dir").mkdir()
    for n in range(300):
        (main / "dir" / f"file-{n:03}").touch()
    committed = open(served.commit_dir(first) / "old", "rb", buffering=0)
    reader = open(main / "old", "rb", buffering=0)
    writer = open(main / "new", "w+b", buffering=0)
    writer.write(noise(MIB, 2))
    appender = open(main / "log", "ab", buffering=0)
    appender.write(b"one\n")
    listing = os.scandir(main / "dir")
    seen = [next(listing).name for _ in range(3)]
    mapped = mmap.mmap(writer.fileno(), MIB)
    fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
    here = os.open(main / "dir", os.O_RDONLY)
    for _ in range(3):
        served.kill_worker()
        assert committed.read(10) == noise(3 * MIB, 1)[committed.tell() - 10 : committed.tell()]
        assert reader.read(10) == noise(3 * MIB, 1)[reader.tell() - 10 : reader.tell()]
        appender.write(b"more\n")
        mapped[:4] = b"mine"
        seen += [next(listing).name for _ in range(90)]
        assert len(os.listdir(here)) == 300
    with open(main / "old", "rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    seen += [entry.name for entry in listing]
    assert sorted(seen) == [f"file-{n:03}" for n in range(300)], "each name exactly once"
    writer.write(b"the end")
    mapped.close()
    for file in (committed, reader, writer, appender):
        file.close()
    os.close(here)
    assert (main / "new").read_bytes() == b"mine" + noise(MIB, 2)[4:] + b"the end"
    assert (main / "log").read_bytes() == b"one\nmore\nmore\nmore\n"
    served.commit("after")
    served.remount()
    assert (main / "new").read_bytes() == b"mine" + noise(MIB, 2)[4:] + b"the end"


def test_removed_and_replaced_files_live_on(served: Repo) -> None:
    """Their names are gone, and so nothing but the handle leads to them."""
    main = served.main
    (main / "stored").write_bytes(noise(2 * MIB, 3))
    served.commit("one")
    stored = open(main / "stored", "r+b", buffering=0)
    fresh = open(main / "fresh", "w+b", buffering=0)
    fresh.write(noise(MIB, 4))
    (main / "next").write_bytes(b"another")
    described = open(main / "described", "w+b", buffering=0)
    os.unlink(main / "described")
    os.fchmod(described.fileno(), 0o600)
    os.setxattr(described.fileno(), "user.a", b"1")
    os.utime(described.fileno(), ns=(10**18, 10**18))
    os.unlink(main / "stored")
    os.replace(main / "next", main / "fresh")
    for n in range(2):
        served.kill_worker()
        about = os.fstat(described.fileno())
        assert (about.st_mode & 0o7777, about.st_mtime_ns) == (0o600, 10**18)
        assert os.getxattr(described.fileno(), "user.a") == b"1"
        assert os.pread(stored.fileno(), 100, MIB) == noise(2 * MIB, 3)[MIB : MIB + 100]
        assert os.pwrite(stored.fileno(), b"%d" % n, n) == 1
        assert os.pread(fresh.fileno(), 100, 50) == noise(MIB, 4)[50:150]
        fresh.write(b"more")
        assert os.fstat(fresh.fileno()).st_size == MIB + 4 * (n + 1)
        assert os.pread(stored.fileno(), 2, 0)[: n + 1] == b"01"[: n + 1]
    for file in (stored, fresh, described):
        file.close()
    assert sorted(os.listdir(main)) == ["fresh"] and (main / "fresh").read_bytes() == b"another"
    served.commit("two")
    served.umount()
    rows = served.json("fsck")
    assert rows["errors"] == [] if "errors" in rows else True
    wait_for("nothing is left of them", lambda: not any((served.path / "staging").rglob("*-*-*-*-*/*")))


def test_upgrade(served: Repo) -> None:
    path = served.main / "f"
    with open(path, "wb", buffering=0) as file:
        file.write(b"begun")
        before = served.coral.json("mount-info", served.mnt)
        done = served.coral.json("upgrade-mount", served.mnt)
        after = served.coral.json("mount-info", served.mnt)
        assert before["supervised"] and before["pid"] == after["pid"], "the supervisor stays"
        assert done["after"]["pid"] == after["worker_pid"] != before["worker_pid"] == done["before"]["pid"]
        assert after["workers"] == before["workers"] + 1
        os.kill(after["pid"], signal.SIGHUP)  # the same by signal
        wait_for("another", lambda: served.coral.json("mount-info", served.mnt)["workers"] == after["workers"] + 1)
        file.write(b", ended")
    assert path.read_bytes() == b"begun, ended"
    served.umount()


def test_a_new_version_that_does_not_work(place: Path, machine: Path) -> None:
    """`coral upgrade-mount` onto a broken program: the one that has served so far goes on."""
    bin_dir = place / "bin"
    shutil.copytree(machine, bin_dir)
    repo = Repo(Coral(place / "home2", bin_dir), place)
    try:
        repo.mount()
        (repo.main / "f").write_bytes(b"data")
        os.rename(bin_dir / "coralfs", bin_dir / "coralfs.good")
        (bin_dir / "coralfs").write_text("#!/bin/sh\nexit 3\n")
        (bin_dir / "coralfs").chmod(0o755)
        repo.coral.run("upgrade-mount", repo.mnt)
        assert (repo.main / "f").read_bytes() == b"data"
        (repo.main / "g").write_bytes(b"more")
    finally:
        repo.clean_up()


def test_without_a_supervisor(repo: Repo) -> None:
    repo.mount("-o", "supervisor=off")
    info = repo.coral.json("mount-info", repo.mnt)
    assert not info["supervised"] and info["pid"] == info["worker_pid"] and not repo.workers()
    assert b"supervisor" in repo.coral.run("upgrade-mount", repo.mnt, expect=FATAL).stderr
    repo.kill()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(repo.mnt)
    repo.heal()
    repo.umount()


def test_ten_that_do_nothing_are_enough(repo: Repo) -> None:
    """A daemon that cannot serve is not started for ever: the mount is dead, and mounting again heals it."""
    repo.mount()
    (repo.main / "f").write_bytes(b"kept")
    killed: set[int] = set()
    end = time.monotonic() + 60
    while repo.coral.daemons() and time.monotonic() < end:
        for pid in repo.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    assert not repo.coral.daemons(), "the supervisor never gave up"
    assert 10 <= len(killed) <= 14, killed
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(repo.mnt)
    assert "did not answer anything" in (repo.path / "run" / "coralfs.log").read_text()
    repo.heal()
    assert (repo.main / "f").read_bytes() == b"kept"
    repo.umount()


def test_a_restore_that_was_cut_off_is_seen_whole(repo: Repo) -> None:
    """The kernel is told everything anew, and may not be told before the new process can tell it."""
    repo.mount()
    files = [repo.main / f"f{n:04}" for n in range(1500)]
    commits = []
    gone = [repo.main / f"gone{n}" for n in range(20)]  # in the second commit only
    for size in (10, 20):
        for path in files + gone * (size == 20):
            path.write_bytes(b"x" * size)
        commits.append((size, repo.commit(f"of {size} bytes")))
    for n, after in enumerate((0.05, 0.1, 0.15, 0.2)):
        size, source = commits[n % 2]
        for path in files + gone * (size == 10):
            os.stat(path)  # the kernel keeps the answer until it is told otherwise
        command = [str(repo.coral.bin / "coral"), "restore", "--source", source, "--all"]
        asks = ["python3", "-c", "import os; input(); print(os.getcwd())"]
        shell = subprocess.Popen(asks, cwd=repo.main, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        restore = subprocess.Popen(command, cwd=repo.main, env=repo.coral.environment)
        time.sleep(after)
        repo.kill_worker()
        assert restore.wait(60) == 0
        time.sleep(0.2)
        assert shell.communicate("\n", 60)[0].strip() == str(repo.main), "who stands in the branch knows where it is"
        stale = [path.name for path in files if os.stat(path).st_size != size]
        assert not stale, f"killed after {after} s: {len(stale)} files, {stale[:3]}"
        assert sum(os.path.exists(path) for path in gone) == (len(gone) if size == 20 else 0), f"killed after {after} s"
    repo.umount()


def supervisor_of(repo: Repo) -> int:
    workers = repo.workers()
    [pid] = [pid for pid in repo.coral.daemons() if pid not in workers]
    return pid


@contextlib.contextmanager
def waiting_commit(repo: Repo) -> Iterator[tuple[BinaryIO, subprocess.Popen[str]]]:
    """A file that is open for writing, and `coral commit --wait`, which waits for it."""
    command = [str(repo.coral.bin / "coral"), "commit", "--wait", "-m", "waits"]
    with open(repo.main / "f", "wb", buffering=0) as file:
        file.write(b"whole")
        commit = subprocess.Popen(
            command, cwd=repo.main, env=repo.coral.environment, stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        try:
            time.sleep(1)
            assert commit.poll() is None, "it waits"
            yield file, commit
        finally:
            commit.kill()
            commit.wait()


def test_a_commit_that_waits_outlives_an_upgrade(repo: Repo) -> None:
    repo.mount()
    with waiting_commit(repo) as (file, commit):
        before = repo.workers()
        os.kill(supervisor_of(repo), signal.SIGHUP)
        wait_for("another process", lambda: len(repo.workers()) == 1 and repo.workers() != before)
        assert repo.coral.json("mount-info", repo.mnt)["workers"] == 2, "commands are answered"
        assert commit.poll() is None, "it goes on waiting"
        file.close()
        said, _ = commit.communicate(timeout=60)
    assert commit.returncode == 0, said
    assert (repo.commit_dir(repo.rev_parse("main")) / "f").read_bytes() == b"whole"
    repo.umount()


def test_a_commit_that_waits_and_is_interrupted_is_none(repo: Repo) -> None:
    repo.mount()
    (repo.main / "first").write_bytes(b"x")
    before = repo.commit("first")
    with waiting_commit(repo) as (file, commit):
        commit.send_signal(signal.SIGINT)
        commit.wait(20)
        time.sleep(5)  # the daemon looks after its client every two seconds
        file.close()
        time.sleep(1)
        assert repo.rev_parse("main") == before
    repo.commit("another one")
    repo.umount()


def test_a_commit_that_waits_does_not_hold_up_the_end(repo: Repo) -> None:
    repo.mount()
    with waiting_commit(repo) as (file, commit):
        os.kill(supervisor_of(repo), signal.SIGTERM)
        said, _ = commit.communicate(timeout=40)
        assert commit.returncode == FATAL and "nothing was committed" in said, said
        wait_for("the daemon ends", lambda: not repo.coral.daemons(), 40)
        assert not repo.mounted()
        with contextlib.suppress(OSError):
            file.close()
    repo.mount()
    (repo.main / "g").write_bytes(b"writable again")
    repo.umount()


def test_stopped_while_a_worker_starts(repo: Repo) -> None:
    """Whenever SIGTERM comes, the mount ends; none is left dead."""
    for after in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        repo.mount()
        supervisor = supervisor_of(repo)
        for pid in repo.workers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(after)
        os.kill(supervisor, signal.SIGTERM)
        wait_for("the daemon ends", lambda: not repo.coral.daemons())
        assert not repo.mounted(), f"{after} s after a worker's death"


# ---- clients under a killer


class Torment:
    """Runs clients in threads, each until time is over; the first error of any of them is the test's."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.rounds: dict[str, int] = {}
        self.killed = 0

    def client(self, name: str, body: Callable[[int], None]) -> threading.Thread:
        self.rounds[name] = 0

        def run() -> None:
            try:
                while not self.stop.is_set():
                    body(self.rounds[name])
                    self.rounds[name] += 1
            except BaseException as error:  # noqa: BLE001
                error.add_note(f"client {name}, round {self.rounds[name]}")
                self.errors.append(error)
                self.stop.set()

        return threading.Thread(target=run, name=name, daemon=True)

    def run(self, clients: dict[str, Callable[[int], None]], seconds: float, every: float = 0.2) -> None:
        threads = [self.client(name, body) for name, body in clients.items()]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop.wait(every):
            for pid in self.repo.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.killed += 1
        self.stop.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.errors:
            log = (self.repo.path / "run" / "coralfs.log").read_text().splitlines()
            print("\n".join(line for line in log if " info " not in line)[-3000:])
            raise self.errors[0]
        print(self.killed, "killed;", self.rounds)
        assert self.killed >= seconds / every / 4, "the killer did not come to his work"
        assert all(n > 0 for n in self.rounds.values()), f"somebody came to nothing: {self.rounds}"


def names_client(root: Path) -> Callable[[int], None]:
    """mkdir, create, rename, exchange by three renames, symlink, unlink, rmdir, against a model; none idempotent."""
    root.mkdir()
    dice = random.Random(7)
    model: dict[str, str] = {}

    def play(round_: int) -> None:
        name, other = f"n{dice.randrange(6)}", f"n{dice.randrange(6)}"
        path, to = root / name, root / other
        if name not in model:
            match dice.randrange(3):
                case 0:
                    path.mkdir()
                    model[name] = "dir"
                case 1:
                    os.symlink(f"to-{round_}", path)
                    model[name] = f"to-{round_}"
                case _:
                    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    os.write(fd, b"%d" % round_)
                    os.close(fd)
                    model[name] = f"={round_}"
        elif name != other and (other not in model) and dice.random() < 0.6:
            os.rename(path, to)
            model[other] = model.pop(name)
        elif name != other and model.get(other, "dir") != "dir" and model[name] != "dir":
            os.replace(path, to)
            model[other] = model.pop(name)
        else:
            os.rmdir(path) if model[name] == "dir" else os.unlink(path)
            del model[name]
        assert sorted(os.listdir(root)) == sorted(model)
        for entry, what in model.items():
            if what.startswith("to-"):
                assert os.readlink(root / entry) == what
            elif what.startswith("="):
                assert (root / entry).read_bytes() == what[1:].encode()

    return play


def writing_client(path: Path) -> Callable[[int], None]:
    def write(round_: int) -> None:
        data = noise(MIB + round_ % 7, round_)
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb", buffering=0) as file:
            for at in range(0, len(data), 128 << 10):
                assert file.write(data[at : at + (128 << 10)]) == len(data[at : at + (128 << 10)])
            if round_ % 3 == 0:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        assert path.read_bytes() == data
        with open(path, "r+b") as file:
            file.seek(1000)
            file.write(b"in the middle")
        assert path.read_bytes() == data[:1000] + b"in the middle" + data[1013:]

    return write


def reading_client(path: Path, wanted: bytes) -> Callable[[int], None]:
    def read(round_: int) -> None:
        dice = random.Random(round_)
        with open(path, "rb", buffering=0) as file:
            for _ in range(20):
                at = dice.randrange(len(wanted) - 70_000)
                assert os.pread(file.fileno(), 70_000, at) == wanted[at : at + 70_000]
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                for _ in range(20):
                    at = dice.randrange(len(wanted) - 10_000)
                    assert mapped[at : at + 10_000] == wanted[at : at + 10_000]
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert path.read_bytes() == wanted

    return read


def test_killed_every_200_ms(served: Repo) -> None:
    main = served.main
    old = noise(12 * MIB, 11)
    (main / "old").write_bytes(old)
    first = served.commit("first")
    (served.main / "again").write_bytes(old[: 4 * MIB])
    commits: dict[str, bytes] = {}
    note = main / "note"

    def commit(round_: int) -> None:
        text = b"note %d" % round_
        note.write_bytes(text)
        served.coral.run("commit", "-m", f"round {round_}", "note", cwd=main, timeout=120)
        commits[served.rev_parse("main")] = text

    torment = Torment(served)
    torment.run(
        {
            "names": names_client(main / "names"),
            "writer": writing_client(main / "written"),
            "branch reader": reading_client(main / "again", old[: 4 * MIB]),
            "commit reader": reading_client(served.commit_dir(first) / "old", old),
            "committer": commit,
        },
        SECONDS,
    )
    assert len(commits) == torment.rounds["committer"], "each commit is one, and is made once"
    assert len(served.log()) == 1 + len(commits), "no commit was made twice"
    for commit_id, text in commits.items():
        assert (served.commit_dir(commit_id) / "note").read_bytes() == text
    served.commit("the rest")
    served.umount()
    assert served.run("fsck").returncode == 0
    served.mount()
    assert (main / "old").read_bytes() == old


def test_names_are_changed_once(repo: Repo) -> None:
    """Killed as fast as another one comes: most requests are met by a death."""
    repo.mount()
    root = repo.main / "many"
    Torment(repo).run({"names": names_client(root)}, SECONDS / 2, every=0.05)
    repo.umount()
