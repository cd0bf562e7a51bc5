# SPDX-License-Identifier: Apache-2.0
"""Drives the real programs. Every command line and every JSON field name that the tests rely on is in this file."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

OK, NO, FATAL, USAGE = 0, 1, 128, 129
"""git's exit codes: fine; "differs", "nothing", "not found"; a failure; wrong usage."""


def binaries() -> Path:
    named = os.environ.get("CORAL_BIN")
    places = [Path(named)] if named else [ROOT / "build/dev/bin", ROOT / "build/release/bin"]
    for place in places:
        if os.access(place / "coral", os.X_OK) and os.access(place / "coralfs", os.X_OK):
            return place.resolve()
    raise AssertionError(
        f"no coral and coralfs in {' or '.join(map(str, places))}: build them "
        "(cmake --preset dev && cmake --build --preset dev) or name their folder in CORAL_BIN"
    )


def wait_for(what: str, condition: Any, seconds: float = 20.0, step: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(step)


class Coral:
    """The command, in an environment of its own: no configuration of whoever runs the tests is seen or changed."""

    def __init__(self, home: Path, bin_dir: Path | None = None) -> None:
        self.bin = bin_dir or binaries()
        self.mark = uuid.uuid4().hex
        home.mkdir(parents=True, exist_ok=True)
        runtime = home / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CORAL_", "XDG_", "GIT_"))}
        sanitizers = {k: v for k, v in os.environ.items() if k.startswith("CORAL_LOG")}
        self.environment = {
            **kept,
            **sanitizers,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "CORAL_AUTHOR_NAME": "Tess Ter",
            "CORAL_AUTHOR_EMAIL": "tess@example.org",
            "CORAL_TEST_MARK": self.mark,  # how the tests know their own daemons
            "NO_COLOR": "1",
            "EDITOR": "false",
            # A build with ThreadSanitizer writes what it finds there; the daemon has no terminal. Others do not care.
            "TSAN_OPTIONS": f"{os.environ.get('TSAN_OPTIONS', '')}:log_path={home / 'tsan'}",
        }
        self.home = home

    def run(
        self,
        *arguments: str | bytes | Path,
        cwd: Path | None = None,
        expect: int | tuple[int, ...] = OK,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        stdin: Any = subprocess.DEVNULL,
    ) -> subprocess.CompletedProcess[bytes]:
        command = [os.fsencode(self.bin / "coral"), *(os.fsencode(a) for a in arguments)]
        environment = self.environment if env is None else env
        done = subprocess.run(
            command, cwd=cwd, stdin=stdin, capture_output=True, timeout=timeout, env=environment, check=False
        )
        expected = (expect,) if isinstance(expect, int) else expect
        assert done.returncode in expected, (
            f"{b' '.join(command).decode(errors='replace')}\nin {cwd or os.getcwd()}: exit {done.returncode}, expected "
            f"{' or '.join(map(str, expected))}\n{done.stdout[-4000:].decode(errors='replace')}"
            f"{done.stderr[-4000:].decode(errors='replace')}"
        )
        if done.returncode != OK:
            said = done.stdout + done.stderr
            # `config KEY` of an unset key and `-q` are silent, as git's; whatever else goes wrong says why.
            assert said.strip() or b"config" in arguments or "config" in arguments or "-q" in arguments, (
                f"{command}: exit {done.returncode} without a word"
            )
        return done

    def text(self, *arguments: str | bytes | Path, **options: Any) -> str:
        return self.run(*arguments, **options).stdout.decode().rstrip("\n")

    def json(self, *arguments: str | bytes | Path, **options: Any) -> dict[str, Any]:
        document = json.loads(self.run(*arguments, "--json", **options).stdout)
        assert document["schema"].startswith("coral."), "every document says what it is"
        return document

    def races(self) -> str:
        """What ThreadSanitizer has found so far, in the daemon or a command."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.glob("tsan.*")))

    def daemons(self) -> list[int]:
        """Process ids of the daemons that this object's commands started, and of no others."""
        found = []
        wanted = b"CORAL_TEST_MARK=" + self.mark.encode()
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if Path(entry.path, "comm").read_text().strip() != "coralfs":
                    continue
                if Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue  # dead already; whoever is its parent has not looked yet
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def kill_daemons(self) -> None:
        """SIGKILL, all at the same time: a supervisor gets no chance to start another worker."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in self.daemons():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        wait_for("the killed daemon is gone", lambda: not self.daemons())


def linux() -> tuple[int, int]:
    """The running kernel's version."""
    major, minor = re.findall(r"\d+", platform.release())[:2]
    return int(major), int(minor)


def is_incomplete(path: Path) -> bool:
    """user.coral.* answers when asked by name and is never listed: cp -a and rsync -X would try to copy it."""
    try:
        return os.getxattr(path, "user.coral.incomplete") == b"1"
    except OSError as error:
        assert error.errno == errno.ENODATA, error
        return False


class Repo:
    """A repository and the place where it is mounted."""

    def __init__(self, coral: Coral, folder: Path) -> None:
        self.coral, self.path, self.mnt = coral, folder / "models.coral", folder / "mnt"
        self.mnt.mkdir()
        self.watchdog: threading.Timer | None = None
        self.hung = False
        coral.run("init", self.path)

    # ---- places in the mount

    @property
    def main(self) -> Path:
        return self.mnt / "branches" / "main"

    def branch(self, name: str) -> Path:
        return self.mnt / "branches" / name

    def commit_dir(self, commit: str) -> Path:
        return self.mnt / "commits" / commit

    def tag_dir(self, name: str) -> Path:
        return self.mnt / "tags" / name

    # ---- the mount's life

    def mount(self, *options: str, watch: float = 560) -> None:
        self.coral.run("mount", *options, self.path, self.mnt, timeout=60)
        assert self.mounted(), "coral mount returned 0, but nothing is mounted"
        if self.watchdog:
            self.watchdog.cancel()
        self.watchdog = threading.Timer(watch, self.bark)
        self.watchdog.daemon = True
        self.watchdog.start()

    def bark(self) -> None:
        self.hung = True
        self.coral.kill_daemons()

    def workers(self) -> list[int]:
        """Those of the daemon's processes that serve: children of a supervisor."""
        found = []
        for pid in self.coral.daemons():
            with contextlib.suppress(OSError):
                if b"--worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    def kill_worker(self) -> None:
        """The daemon dies, its supervisor does not; returns when another one answers."""
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.statvfs(self.mnt)

    def umount(self) -> None:
        gc.collect()  # mappings that a framework left in a reference cycle keep the mount busy
        self.coral.run("umount", self.mnt, timeout=180)
        if self.watchdog:
            self.watchdog.cancel()
        assert not self.mounted(), "coral umount returned 0, but something is still mounted"
        wait_for("the daemon leaves after umount", lambda: not self.coral.daemons(), 10)

    def remount(self, *options: str) -> None:
        self.umount()
        self.mount(*options)

    def mounted(self) -> bool:
        here = os.fsencode(str(self.mnt.resolve() if not self.dead() else self.mnt))
        with open("/proc/self/mounts", "rb") as mounts:
            return any(line.split()[1] == here for line in mounts)

    def dead(self) -> bool:
        try:
            os.stat(self.mnt)
        except OSError:
            return True
        return False

    def kill(self) -> None:
        """kill -9 of the daemon; the mount point is dead afterwards."""
        assert self.coral.daemons(), "there is no daemon to kill"
        self.coral.kill_daemons()
        wait_for("the mount point is dead", self.dead)

    def heal(self) -> None:
        """What a person does after a crash: mount again, on the dead mount point."""
        assert self.dead()
        self.mount()

    def clean_up(self) -> None:
        """Whatever state a failed test left: no process, no mount. Never raises for a mount that is gone."""
        if self.watchdog:
            self.watchdog.cancel()
        self.coral.kill_daemons()
        for command in (["umount", "-l"], ["fusermount3", "-uz"]):
            if not self.mounted():
                break
            subprocess.run([*command, str(self.mnt)], capture_output=True, check=False)
        assert not self.mounted(), f"{self.mnt} cannot be unmounted"

    # ---- commands

    def commit(self, message: str, *options: str | bytes, branch: str = "main", timeout: float = 180) -> str:
        """Commit from inside the mount, as people do; returns the commit's id."""
        inside = self.branch(branch)
        self.coral.run("commit", "-m", message, *options, cwd=inside, timeout=timeout)
        return self.rev_parse(branch)

    def run(self, *arguments: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """On the repository directory, as without a mount."""
        return self.coral.run("-C", self.path, *arguments, **options)

    def text(self, *arguments: str | bytes | Path, **options: Any) -> str:
        return self.coral.text("-C", self.path, *arguments, **options)

    def json(self, *arguments: str | bytes | Path, **options: Any) -> dict[str, Any]:
        return self.coral.json("-C", self.path, *arguments, **options)

    def rev_parse(self, revision: str) -> str:
        found = self.text("rev-parse", revision)
        assert len(found) == 64 and set(found) <= set("0123456789abcdef"), f"no commit id: {found!r}"
        return found

    def status(self) -> dict[str, str]:
        """path -> added, modified, deleted, type, mode"""
        return changes(self.json("status")["changes"])

    def log(self, *arguments: str) -> list[dict[str, Any]]:
        return self.json("log", *arguments)["commits"]

    def branches(self) -> dict[str, str | None]:
        return {row["name"]: row["commit"] for row in self.json("branch")["branches"]}

    def current_branch(self) -> str | None:
        return next((row["name"] for row in self.json("branch")["branches"] if row["current"]), None)

    def tags(self) -> dict[str, str]:
        return {row["name"]: row["commit"] for row in self.json("tag")["tags"]}

    def ls(self, what: str) -> dict[str, dict[str, Any]]:
        """path -> {path, type, size, id} of all files and links below."""
        return {row["path"]: row for row in self.json("ls", "-r", what)["entries"]}

    def stored_bytes(self) -> int:
        stored = self.json("stats")["stored_bytes"]
        assert isinstance(stored, int) and stored >= 0
        return stored

    def packs(self) -> list[Path]:
        return sorted(p for p in (self.path / "packs").rglob("*") if p.is_file())


def changes(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["path"]: row["change"] for row in rows}


# --- bytes ------------------------------------------------------------------------------------------------------------


def sha256sum(paths: list[Path]) -> list[str]:
    """What the program sha256sum prints for them: an ordinary reader, and one that no Python buffering can flatter."""
    if not paths:
        return []
    listing = b"\0".join(os.fsencode(p) for p in paths) + b"\0"
    command = ["xargs", "-0", "sha256sum", "-b", "--zero", "--"]
    done = subprocess.run(command, input=listing, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    lines = done.stdout.split(b"\0")[:-1]
    assert [line[66:] for line in lines] == [os.fsencode(p) for p in paths]
    return [line[:64].decode() for line in lines]


def tree_sums(folder: Path) -> dict[bytes, tuple[str, str]]:
    """Every name under a folder -> (kind, SHA-256 or link text)."""
    found: dict[bytes, tuple[str, str]] = {}
    files: list[Path] = []
    root = os.fsencode(folder)
    for where, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(where, name)
            relative = os.path.relpath(path, root)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[relative] = ("link", os.fsdecode(os.readlink(path)))
            elif stat.S_ISDIR(mode):
                found[relative] = ("folder", "")
            else:
                files.append(Path(os.fsdecode(path)))
    for path, digest in zip(files, sha256sum(files), strict=True):
        found[os.path.relpath(os.fsencode(path), root)] = ("file", digest)
    return found


def assert_same_tree(got: Path, wanted: Path | dict[bytes, tuple[str, str]], where: str = "") -> None:
    expected = tree_sums(wanted) if isinstance(wanted, Path) else wanted
    assert expected, "an empty folder proves nothing"
    found = tree_sums(got)
    wrong = {name: (expected.get(name), found.get(name)) for name in expected.keys() | found.keys()}
    wrong = {name: pair for name, pair in wrong.items() if pair[0] != pair[1]}
    assert not wrong, f"{where or got}: {len(wrong)} of {len(expected)} names differ (expected, found): " + repr(
        dict(list(wrong.items())[:5])
    )


class Installed:
    """What `cmake --install` puts in place, in a folder instead of the machine's own."""

    def __init__(self, coral: Coral, tree: Path) -> None:
        build = coral.bin.parent
        assert (build / "cmake_install.cmake").exists(), f"{build} is no build tree; name its bin/ in CORAL_BIN"
        environment = {**os.environ, "DESTDIR": str(tree)}
        done = subprocess.run(
            ["cmake", "--install", str(build)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        [self.helper] = tree.rglob("mount.fuse.coral")
        [self.unit] = tree.rglob("*.service")
        self.bin = next(p.parent for p in tree.rglob("coralfs") if p.is_file())
        self.prefix = Path("/") / self.bin.relative_to(tree)

    def in_namespace(self, script: str, place: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """As root: a shell that sees it all where it belongs. Both folders are laid over the machine's own, for the
        processes of this script only."""
        lay = f"""
            set -e
            mount -t overlay -o lowerdir={self.helper.parent}:/usr/sbin overlay /usr/sbin
            mkdir -p {place}/none; target={self.prefix}; [ -d "$target" ] || target={place}/none
            mount -t overlay -o lowerdir={self.bin}:$target overlay $target
        """
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", lay + script]
        environment = {**env, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def cp(*arguments: str | Path) -> None:
    done = subprocess.run(["cp", *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def errno_of(call: Any, *arguments: Any, **options: Any) -> int:
    """The errno with which a call fails; 0 when it succeeds."""
    try:
        result = call(*arguments, **options)
    except OSError as error:
        assert error.errno is not None
        return error.errno
    if isinstance(result, int) and getattr(call, "__name__", "") == "open":
        os.close(result)
    return 0


@contextlib.contextmanager
def opened(path: Path | bytes, flags: int, mode: int = 0o644) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Deletes a test's own folder; refuses to walk into something that is still mounted there."""
    with open("/proc/self/mounts", "rb") as mounts:
        points = [os.fsdecode(line.split()[1]) for line in mounts]
    inside = [p for p in points if Path(p).is_relative_to(folder)]
    assert not inside, f"still mounted: {inside}"
    shutil.rmtree(folder, ignore_errors=True)
