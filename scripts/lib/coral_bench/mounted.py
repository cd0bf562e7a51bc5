# SPDX-License-Identifier: Apache-2.0
"""A repository and its mount, made for a benchmark, and what the page cache holds."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .places import Failure, note

BLOCK = 1 << 20
PATIENCE = 600  # seconds until something that should have happened counts as hung


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    options: str


USER = Column("user", "as a user", "passthrough=off,readahead_kb=128")
PASSTHROUGH = Column("passthrough", "with passthrough", "")


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def command(*words: object, **options: object) -> str:
    """Runs a program; what it says on stderr is the failure's text."""
    told = list(map(str, words))
    try:
        done = subprocess.run(told, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    except FileNotFoundError as error:
        raise Failure(f"no {error.filename}") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(told[:3])}: not done within {PATIENCE} s") from error
    if done.returncode:
        raise Failure(f"{' '.join(told[:3])}: {done.stderr.strip()[-500:] or f'exit code {done.returncode}'}")
    return done.stdout


def wait_until(what: str, condition: Callable[[], bool], seconds: float = PATIENCE, step: float = 0.001) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:.0f} s")
        time.sleep(step)


def read_all(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(BLOCK)
        while file.readinto(buffer):
            pass


def map_all(path: Path) -> None:
    """Copies the file out of a mapping of it, as loaders do."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view, memoryview(view) as all_:
        buffer = memoryview(bytearray(BLOCK))
        for at in range(0, len(view), BLOCK):
            part = all_[at : at + BLOCK]
            buffer[: len(part)] = part
            part.release()


def copy(source: Path, target: Path, flush: bool = False) -> None:
    command("cp", "--reflink=never", source, target)
    for path in (target, target.parent) if flush else ():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_disk(place: Path) -> None:
    """All that is dirty on the filesystem of `place`, so that nobody pays for what was written before."""
    command("sync", "-f", place)


def files_below(*places: Path) -> Iterator[Path]:
    for place in places:
        yield from (p for p in sorted(place.rglob("*")) if p.is_file()) if place.is_dir() else [place]


def drop_caches(*places: Path, whole_machine: bool) -> None:
    """The pages of these files; and, as root, all others and the disk's own structures."""
    flush_disk(places[0])
    for path in files_below(*places):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if whole_machine and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a container's root may not
            Path("/proc/sys/vm/drop_caches").write_text("3")


def into_cache(paths: Iterable[Path]) -> None:
    for path in paths:
        read_all(path)


class Mounted:
    """A repository in a folder of its own. `with` unmounts it."""

    def __init__(self, coral: Path, place: Path, options: str) -> None:
        self.coral, self.place, self.options = coral, place, options
        self.path, self.point = place / "bench.coral", place / "mnt"
        self.environment = {**os.environ, "CORAL_AUTHOR_NAME": "bench", "CORAL_AUTHOR_EMAIL": "bench@example.org"}
        self.point.mkdir(parents=True)
        self.run("init", self.path)

    def run(self, *words: object, **options: object) -> str:
        return command(self.coral, *words, env=self.environment, **options)

    def __enter__(self) -> Mounted:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except Failure as failure:
            note(str(failure))

    def start(self) -> None:
        self.run("mount", *(["-o", self.options] if self.options else []), self.path, self.point)

    def stop(self) -> None:
        self.run("umount", self.point)

    def remount(self) -> None:
        """A fresh daemon, and a mount of which the kernel has no page."""
        if os.path.ismount(self.point) or not os.access(self.point, os.R_OK):
            self.stop()
        self.start()

    @property
    def branch(self) -> Path:
        return self.point / "branches/main"

    @property
    def committed(self) -> Path:
        return self.point / "at/main"

    def packs(self) -> list[Path]:
        """Everything a read can need; the journals of the databases come and go."""
        passing = ("-wal", "-shm", ".lock")
        return [path for path in files_below(self.path) if not path.name.endswith(passing)]

    def info(self) -> dict[str, object]:
        return json.loads(self.run("mount-info", "--json", self.point))

    def stats(self) -> dict[str, object]:
        return json.loads(self.run("-C", self.path, "stats", "--json"))

    def commit(self) -> None:
        self.run("commit", "-q", "-m", "bench", cwd=self.branch)

    def ingested(self, file: Path) -> bool:
        """A file has a digest when its bytes are in packs. pending_ingest alone is 0 also before close(2) arrived."""
        try:
            return bool(os.getxattr(file, "user.coral.digest"))
        except OSError:
            return False

    def stored(self, file: Path) -> int:
        return int(os.getxattr(file, "user.coral.stored"))

    def wait_digest(self, file: Path) -> None:
        wait_until(f"ingest of {file.name}", lambda: self.ingested(file))

    def wait_ingested(self, file: Path | None = None) -> None:
        if file:
            self.wait_digest(file)
        wait_until("ingest", lambda: self.info()["pending_ingest"] == 0, step=0.02)

    def take(self, source: Path, name: str) -> Path:
        target = self.branch / name
        copy(source, target)
        self.wait_ingested(target)
        return target

    def wait_plain_gone(self) -> None:
        """With hot_size=0 nothing that is in packs stays plain; else what is called cold would be read from there."""
        wait_until("staging files go", lambda: self.stats()["staging_bytes"] == 0, seconds=60, step=0.05)

    def process(self) -> int:
        return int(self.info()["worker_pid"])

    def anonymous_mib(self) -> float:
        for line in Path(f"/proc/{self.process()}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        raise Failure("no RssAnon: in /proc")

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
