# SPDX-License-Identifier: Apache-2.0
"""The rows of scripts/bench/mount. Each group takes a bench and measures those of its rows that are wanted."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import faults
from .mounted import Mounted, command, copy, drop_caches, files_below, flush_disk, into_cache, map_all, read_all, timed
from .places import Failure
from .rows import Bench, nothing

THREADS = 32
READS = {"read(1 MiB)": read_all, "mmap copy": map_all}

COPY = {"cp in, no fsync": False, "cp in, fsync": True}
INGEST = {"ingest behind, SOLO": "SOLO", "ingest behind, DELTA": "DELTA"}
STORED = {"stored / raw, SOLO": "SOLO", "stored / raw, DELTA": "DELTA"}
SAVES = {"torch.save": (".pth", "torch.save"), "safetensors save_file": (".safetensors", "save_file")}
WARM = [f"warm {how}, {what}" for what in ("branch file (hot)", "committed file") for how in READS]
FIRST = ["first read, right after saving", "first read, saved and ingested"]
COLD = "cold read, packs in the page cache (disk: warm), "
NOTHING = "cold read, nothing cached, "
LOADS = {
    "torch.load, warm": "torch.load",
    "safetensors load_file, warm": "load_file",
    "safetensors load_file, every page touched, warm": "load_file and touch",
    "from_pretrained, warm": "from_pretrained",
}
LISTING = {"ls -lR of the entries of a branch": False, "ls -lR of the entries of a branch, just mounted": True}
SMALL = "cp -r of many small files"
FAULTS = {
    "random 4 KiB faults, cold: worst stall": ("worst_ms", "ms"),
    "random 4 KiB faults, cold: median": ("median_us", "µs"),
    "random 4 KiB faults, cold: by the clock, a fault": ("clock_us", "µs"),
    "random 4 KiB faults, cold: the daemon's processor time, a fault": ("processor_us", "µs"),
}
ONE_LOCK = {
    "random 4 KiB faults, cold: a lock per file takes longer by the clock": "seconds",
    "random 4 KiB faults, cold: a lock per file stalls longer": "worst_ms",
}
COMMIT = ["commit of 1 changed file", "commit of many changed files"]
MEMORY = "anonymous memory of the daemon afterwards"


def turn(action: Callable[[Path], object], below: Path, here: Path) -> list[Callable[[], float]]:
    """The same on the disk and on the mount."""
    return [lambda p=path: timed(lambda: action(p)) for path in (below, here)]


def warm_turn(action: Callable[[Path], object], below: Path, here: Path) -> list[Callable[[], float]]:
    """As turn(), of files that were read just before: the machine drops pages of files that nobody has used lately."""

    def again(path: Path) -> float:
        action(path)
        return timed(lambda: action(path))

    return [lambda p=path: again(p) for path in (below, here)]


def saving(bench: Bench, repository: Mounted, folder: Path, save: Callable[[Path], float], suffix: str = "") -> float:
    """To a new name. The copy goes before the next one comes, so that neither dirty pages nor the disk pile up."""
    path = bench.fresh(folder, suffix)
    seconds = save(path)
    if folder != bench.disk:
        repository.wait_ingested(path)
    path.unlink()
    bench.settle(repository)
    return seconds


def copies(bench: Bench, repository: Mounted) -> None:
    file = bench.material.file

    def into(folder: Path, flush: bool) -> Callable[[], float]:
        def save(path: Path) -> float:
            read_all(file)  # the machine may have dropped its pages meanwhile
            return timed(lambda: copy(file, path, flush))

        return lambda: saving(bench, repository, folder, save)

    for name, flush in COPY.items():
        bench.pair(name, file.stat().st_size, into(bench.disk, flush), into(repository.branch, flush))


def saves(bench: Bench, repository: Mounted) -> None:
    material = bench.material
    torch = material.torch
    if not torch:
        return
    torch.prepare(material.file)

    def into(folder: Path, suffix: str, how: str) -> Callable[[], float]:
        def save(path: Path) -> float:
            return torch.ask(do="save", how=how, path=path)

        return lambda: saving(bench, repository, folder, save, suffix)

    for name, told in SAVES.items():
        if bench.wanted(name):
            into(bench.disk, *told)()  # what a first save costs, and no other
        bench.pair(name, material.file.stat().st_size, into(bench.disk, *told), into(repository.branch, *told))


@contextlib.contextmanager
def both(bench: Bench, repository: Mounted, source: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """The same file, or folder, on the disk and in the branch."""
    below, here = bench.disk / name, repository.branch / name
    try:
        for target in (below, here):
            command("cp", "-r", source, target)
        repository.wait_ingested()
        flush_disk(bench.disk)
        yield below, here
    finally:
        for target in (below, here):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(target) if target.is_dir() else target.unlink()


def warm(bench: Bench, repository: Mounted) -> None:
    file = bench.material.file
    size, name = file.stat().st_size, "warm" + file.suffix
    with both(bench, repository, file, name) as (below, in_branch):
        repository.wait_ingested(in_branch)
        repository.commit()
        for what, here in (("branch file (hot)", in_branch), ("committed file", repository.committed / name)):
            for how, read in READS.items():
                if bench.wanted(row := f"warm {how}, {what}"):
                    bench.pair(row, size, *warm_turn(read, below, here))


def first_reads(bench: Bench, repository: Mounted) -> None:
    file = bench.material.file

    def reading(folder: Path, wait: bool) -> Callable[[], float]:
        def read(path: Path) -> float:
            copy(file, path)
            if wait and folder != bench.disk:
                repository.wait_ingested(path)
            return timed(lambda: read_all(path))

        return lambda: saving(bench, repository, folder, read)

    for row, wait in zip(FIRST, (False, True), strict=True):
        bench.pair(row, file.stat().st_size, reading(bench.disk, wait), reading(repository.branch, wait))


def cases(bench: Bench) -> Iterator[tuple[str, Path | None, Path]]:
    """What is stored before, and the file that is measured."""
    material = bench.material
    yield "SOLO", None, material.file
    if material.tuned:
        yield "DELTA", material.base, material.tuned


def ingest(bench: Bench) -> None:
    """Each round in a new repository, or the file would be there already."""
    for kind, base, file in cases(bench):
        row, stored = (next(name for name, which in rows.items() if which == kind) for rows in (INGEST, STORED))
        speeds, ratios = [], []
        for number in range(bench.rounds if bench.wanted(row, stored) else 0):
            bench.say(row, number)
            with bench.repository() as repository:
                if base:
                    repository.take(base, "base" + base.suffix)
                size, target = file.stat().st_size, repository.branch / ("new" + file.suffix)
                flush_disk(bench.work)
                read_all(file)
                copy(file, target)
                seconds = timed(lambda r=repository, t=target: r.wait_digest(t))
                repository.wait_ingested()
                speeds.append(size / seconds / 1e9)
                ratios.append(repository.stored(target) / size)
            shutil.rmtree(repository.place)
        if speeds:
            bench.values(row, "GB/s", speeds)
            bench.values(stored, "", ratios)


def cold(bench: Bench) -> None:
    """A fresh daemon over packs, nothing of which is plain any more."""
    for kind, base, file in cases(bench):
        if bench.wanted(COLD + kind, NOTHING + kind):
            cold_case(bench, kind, base, file)


def cold_case(bench: Bench, kind: str, base: Path | None, file: Path) -> None:
    size, below = file.stat().st_size, bench.disk / f"cold{file.suffix}"
    copy(file, below)
    with bench.repository("hot_size=0") as repository:
        if base:
            repository.take(base, "base" + base.suffix)
        here = repository.take(file, "cold" + file.suffix)
        repository.commit()
        repository.wait_plain_gone()
        flush_disk(bench.work)

        def packs_cached() -> None:
            repository.remount()
            into_cache((*repository.packs(), below))

        def nothing_cached() -> None:
            repository.stop()
            drop_caches(repository.path, below, whole_machine=bench.whole_machine)
            repository.start()

        repository.remount()
        if not filecmp.cmp(file, here, shallow=False):
            raise Failure(f"{kind}: the bytes that were read are not those that were written")
        bench.pair(COLD + kind, size, *turn(read_all, below, here), before=packs_cached)
        bench.pair(NOTHING + kind, size, *turn(read_all, below, here), before=nothing_cached)
    shutil.rmtree(repository.place)
    below.unlink()


def loads(bench: Bench, repository: Mounted) -> None:
    material = bench.material
    torch = material.torch
    if not torch:
        return
    made = bench.work / "saved"
    made.mkdir(exist_ok=True)
    pickled, plain = made / "t.pth", made / "t.safetensors"
    sources = dict.fromkeys(LOADS.values(), plain) | {"torch.load": pickled, "from_pretrained": material.pretrained}
    torch.prepare(material.file)
    for how, path in (("torch.save", pickled), ("save_file", plain)):
        torch.ask(do="save", how=how, path=path)
    for row, how in LOADS.items():
        source = sources[how]
        if not source or not bench.wanted(row):
            continue
        weights = source / "model.safetensors" if source.is_dir() else source
        with both(bench, repository, source, source.name) as paths:

            def load(path: Path, how: str = how) -> float:
                into_cache(files_below(path))
                return torch.ask(do="load", how=how, path=path)

            actions = [lambda p=path: load(p) for path in paths]
            for action in actions:
                action()
            bench.pair(row, weights.stat().st_size, *actions)
    shutil.rmtree(made)


def small_files(tree: Path, count: int) -> Path:
    """In folders of a hundred."""
    for number in range(count):
        folder = tree / f"folder-{number // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file-{number % 100:02}").write_text(f"{number}\n")
    return tree


def listing(bench: Bench, repository: Mounted) -> None:
    tree = small_files(bench.work / "tree", bench.material.entries)
    with both(bench, repository, tree, "entries") as (below, here):
        repository.commit()
        for row, fresh in LISTING.items():
            if bench.wanted(row):
                command("ls", "-lR", below)
                command("ls", "-lR", here)
                before = repository.remount if fresh else nothing
                bench.pair(row, None, *turn(lambda path: command("ls", "-lR", path), below, here), before)
    shutil.rmtree(tree)


def small_copies(bench: Bench, repository: Mounted) -> None:
    """Until cp ends. The copy before stays: removing it is not timed, and would not be for nothing afterwards."""
    tree = small_files(bench.work / "small", bench.material.changed)
    bench.pair(
        SMALL,
        None,
        *turn(lambda folder: command("cp", "-r", tree, bench.fresh(folder)), bench.disk, repository.branch),
        lambda: bench.settle(repository),
    )
    shutil.rmtree(tree)


def random_faults(bench: Bench) -> None:
    file = bench.material.file
    below = bench.disk / "faults"
    copy(file, below)

    def run(path: Path) -> dict[str, float]:
        told = (sys.executable, "-B", Path(faults.__file__), path, THREADS, bench.material.faults)
        return json.loads(command(*told))

    found: list[tuple[dict[str, float], dict[str, float]]] = []
    locked: list[dict[str, float]] = []
    with bench.repository("hot_size=0") as repository:
        here = repository.take(file, "faults")
        repository.wait_plain_gone()

        def start(coral: Path) -> None:
            repository.coral = coral
            repository.remount()
            into_cache((*repository.packs(), below))

        for number in range(bench.rounds):
            bench.say("random faults", number)
            if bench.material.one_lock:
                start(bench.material.one_lock)
                locked.append(run(here))
            start(bench.coral)
            used = repository.processor_seconds()
            said = [run(below), run(here)]
            for one, seconds in zip(said, (0, repository.processor_seconds() - used), strict=True):
                one["clock_us"] = one["seconds"] / one["faults"] * 1e6
                one["processor_us"] = seconds / one["faults"] * 1e6
            found.append((said[0], said[1]))
    for row, (key, unit) in FAULTS.items():
        bench.values(row, unit, [our[key] for _, our in found], [disk[key] for disk, _ in found])
    for row, key in ONE_LOCK.items() if locked else ():
        bench.values(row, "×", [theirs[key] / our[key] for theirs, (_, our) in zip(locked, found, strict=True)])
    shutil.rmtree(repository.place)
    below.unlink()


def commits(bench: Bench, repository: Mounted) -> None:
    for row, count in zip(COMMIT, (1, bench.material.changed), strict=True):
        times = []
        for number in range(bench.rounds if bench.wanted(row) else 0):
            bench.say(row, number)
            folder = repository.branch / f"changed-{count}-{number}"
            folder.mkdir()
            for i in range(count):
                (folder / f"f{i}").write_bytes(os.urandom(100) + str(i).encode())
            for file in folder.iterdir():
                repository.wait_digest(file)
            repository.wait_ingested()
            times.append(timed(repository.commit) * 1000)
        if times:
            bench.values(row, "ms", times)


def memory(bench: Bench, repository: Mounted) -> None:
    bench.values(MEMORY, "MiB", [repository.anonymous_mib()])


# In this order; the first use one repository, and memory is what its daemon has after all of them.
SHARED: list[tuple[list[str], Callable[[Bench, Mounted], None]]] = [
    ([*COPY], copies),
    ([*SAVES], saves),
    (WARM, warm),
    (FIRST, first_reads),
    ([*LOADS], loads),
    ([SMALL], small_copies),
    ([*LISTING], listing),
    (COMMIT, commits),
    ([MEMORY], memory),
]
ALONE: list[tuple[list[str], Callable[[Bench], None]]] = [
    ([*INGEST, *STORED], ingest),
    ([COLD + kind for kind in ("SOLO", "DELTA")] + [NOTHING + kind for kind in ("SOLO", "DELTA")], cold),
    ([*FAULTS, *ONE_LOCK], random_faults),
]


def tried(bench: Bench, names: list[str], measure: Callable[[], None]) -> bool:
    """What fails is a row's result, and the others are measured all the same."""
    try:
        measure()
        return True
    except (Failure, OSError) as failure:
        lacking = [n for n in names if bench.wanted(n) and bench.column.key not in bench.results.rows.get(n, {})]
        for name in lacking or [names[-1]]:
            bench.results.fail(name, bench.column, failure)
        return False


def all_rows(bench: Bench) -> None:
    shared = [(names, group) for names, group in SHARED if bench.wanted(*names)]
    if shared:
        with bench.repository() as repository:
            bench.results.about["columns"][bench.column.key]["passthrough"] = repository.info()["passthrough"]
            for names, group in shared:
                if not tried(bench, names, lambda g=group: g(bench, repository)):
                    tried(bench, names, repository.remount)
    for names, alone in ALONE:
        if bench.wanted(*names):
            tried(bench, names, lambda g=alone: g(bench))
