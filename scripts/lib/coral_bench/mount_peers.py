# SPDX-License-Identifier: Apache-2.0
"""What a user could install instead of CoralFS to have a checkpoint in fewer bytes and read it like a file."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import places
from .mounted import (
    Column,
    Mounted,
    command,
    copy,
    drop_caches,
    files_below,
    flush_disk,
    into_cache,
    read_all,
    timed,
    wait_until,
)
from .places import Failure


class Peer:
    """`store` once, then `mount` and `unmount` as often as wanted; `path` is the file in the mount."""

    name, programs, install = "", (), ""
    plain = False  # the file lies there as it was, once it is read: a warm read of it is the disk's

    def __init__(self, place: Path, file: Path) -> None:
        self.place, self.file = place, file
        self.archive, self.point = place / "archive", place / "mnt"
        self.point.mkdir(parents=True)
        self.environment = {**os.environ, "RESTIC_PASSWORD": "bench", "BORG_BASE_DIR": str(place / "borg")}

    def run(self, *words: object, **options: object) -> str:
        return command(*words, env=self.environment, **options)

    @property
    def path(self) -> Path:
        return self.point / self.file.name

    def store(self) -> None:
        raise NotImplementedError

    def mount(self) -> None:
        raise NotImplementedError

    def unmount(self) -> None:
        command("fusermount3" if shutil.which("fusermount3") else "fusermount", "-u", self.point)
        wait_until(f"unmount of {self.name}", lambda: not os.path.ismount(self.point), seconds=30, step=0.02)

    def archives(self) -> list[Path]:
        return list(files_below(self.archive))

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self.archives())

    def there(self) -> None:
        wait_until(f"{self.name}: {self.path.name} in the mount", self.path.exists, seconds=60, step=0.02)

    def read(self) -> None:
        read_all(self.path)


class SquashFuse(Peer):
    name, programs, install = "squashfuse", ("mksquashfs", "squashfuse"), "apt-get install squashfs-tools squashfuse"

    def store(self) -> None:
        self.run("mksquashfs", self.file, self.archive, "-quiet", "-no-progress", "-comp", "zstd", "-b", "1M")

    def mount(self) -> None:
        self.run("squashfuse", self.archive, self.point)
        self.there()


class Squashfs(SquashFuse):
    name, programs, install = "squashfs (kernel)", ("mksquashfs", "mount"), "apt-get install squashfs-tools; as root"

    def mount(self) -> None:
        self.run("mount", "-t", "squashfs", "-o", "loop,ro", self.archive, self.point)

    def unmount(self) -> None:
        self.run("umount", self.point)


class Restic(Peer):
    name, programs, install = "restic mount", ("restic",), "apt-get install restic fuse3"

    def restic(self, *words: object) -> list[object]:
        return ["restic", "--no-cache", "-q", "-r", self.archive, *words]

    def store(self) -> None:
        self.run(*self.restic("init", "--repository-version", "2"))
        self.run(*self.restic("backup", self.file.name), cwd=self.file.parent)

    @property
    def path(self) -> Path:
        return self.point / "snapshots/latest" / self.file.name

    def mount(self) -> None:
        words = list(map(str, self.restic("mount", self.point)))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, env=self.environment, **quiet)
        self.there()

    def unmount(self) -> None:
        super().unmount()
        self.process.wait(timeout=30)


class Borg(Peer):
    name, programs = "borg mount (zstd,3)", ("borg",)
    install = "apt-get install borgbackup python3-llfuse fuse3"

    def store(self) -> None:
        self.run("borg", "init", "-e", "none", self.archive)
        self.run("borg", "create", "-C", "zstd,3", f"{self.archive}::all", self.file.name, cwd=self.file.parent)

    def mount(self) -> None:
        self.run("borg", "mount", f"{self.archive}::all", self.point)
        self.there()


class ZstdFirst(Peer):
    """Not a mount: the file is unpacked before it is read, and its raw bytes lie on the disk for as long."""

    name, programs, install, plain = "zstd -d, then read", ("zstd",), "apt-get install zstd", True

    def store(self) -> None:
        self.run("zstd", "-q", "-3", "-T0", self.file, "-o", self.archive)

    def mount(self) -> None:
        self.path.unlink(missing_ok=True)

    def unmount(self) -> None:
        self.path.unlink(missing_ok=True)

    def read(self) -> None:
        self.run("zstd", "-q", "-d", "-f", self.archive, "-o", self.path)
        super().read()


class Ours(Peer):
    """CoralFS in the same way, in one of the columns."""

    coral, column = Path(), Column("", "", "")

    def store(self) -> None:
        options = ",".join(filter(None, (self.column.options, "hot_size=0")))
        self.repository = Mounted(self.coral, self.place / "coral", options)
        with self.repository as repository:
            repository.take(self.file, self.file.name)
            repository.commit()
            repository.wait_plain_gone()
        self.archive = self.repository.path

    @property
    def path(self) -> Path:
        return self.repository.branch / self.file.name

    def mount(self) -> None:
        self.repository.start()

    def unmount(self) -> None:
        self.repository.stop()


PEERS: list[type[Peer]] = [Squashfs, SquashFuse, Restic, Borg, ZstdFirst]


def installed(kinds: list[type[Peer]]) -> list[type[Peer]]:
    found = []
    for kind in kinds:
        lacking = [program for program in kind.programs if not shutil.which(program)]
        if lacking:
            places.note(f"without {kind.name}, which needs {', '.join(lacking)}: {kind.install}")
        else:
            found.append(kind)
    return found


def cell(times: list[tuple[float, float]], size: int) -> dict[str, object]:
    below, here = (statistics.median(t[i] for t in times) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in times)
    return {"disk_s": below, "mount_s": here, "mount_gbs": size / here / 1e9, "ratio": ratio, "rounds": times}


def measure(peer: Peer, below: Path, rounds: int, whole_machine: bool) -> dict[str, object]:
    """cold: the archive is in the page cache, and the file of the disk is too."""
    size = peer.file.stat().st_size
    seconds = timed(peer.store)
    flush_disk(peer.place)
    times: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": [], "nothing": []}

    def turn(key: str) -> None:
        times[key].append((timed(lambda: read_all(below)), timed(peer.read)))

    for number in range(rounds):
        places.progress(f"{peer.name}, round {number + 1} of {rounds}")
        for key, prepare in (
            ("cold", lambda: into_cache((*peer.archives(), below))),
            ("nothing", lambda: drop_caches(peer.archive, below, whole_machine=whole_machine)),
        ):
            peer.mount()
            try:
                prepare()
                turn(key)
                if key == "cold" and not peer.plain:
                    turn("warm")
                if number == 0 and key == "cold" and not filecmp.cmp(below, peer.path, shallow=False):
                    raise Failure(f"{peer.name}: the bytes that were read are not those that were written")
            finally:
                peer.unmount()
    known = {"store": peer.name, "stored_bytes": peer.stored(), "raw_bytes": size, "store_seconds": seconds}
    return known | {key: cell(found, size) for key, found in times.items() if found}


def all_peers(
    file: Path,
    work: Path,
    rounds: int,
    whole_machine: bool,
    kinds: list[type[Peer]],
    put: Callable[[dict[str, object]], None],
) -> bool:
    """False when one failed, which is said; the others are measured all the same."""
    below = work / file.name
    work.mkdir()
    copy(file, below)
    good = True
    for number, kind in enumerate(kinds):
        place = work / f"peer-{number}"
        try:
            put(measure(kind(place, below), below, rounds, whole_machine))
        except (Failure, OSError, subprocess.TimeoutExpired) as failure:
            places.note(f"{kind.name}: {failure}")
            put({"store": kind.name, "failure": str(failure)})
            good = False
        if not any(os.path.ismount(point) for point in (place / "mnt", place / "coral/mnt")):
            with contextlib.suppress(OSError):
                shutil.rmtree(place)
    return good


def ours(coral: Path, columns: list[Column]) -> list[type[Peer]]:
    return [
        type(f"Ours_{c.key}", (Ours,), {"name": f"CoralFS, {c.title}", "column": c, "coral": coral}) for c in columns
    ]
