# SPDX-License-Identifier: Apache-2.0
"""fsstress (ltp/fsstress of xfstests): random calls on a whole tree, from one process or several. A run is right when
it ends well, the tree reads the same twice, after a remount too, and can be removed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from coral_conformance.options import Options, built
from coral_conformance.sides import Side, run
from coral_conformance.verdicts import OK, Outcome, failed

ABOUT = "random calls on a whole tree, which then must read the same after a remount (--source: xfstests, built)"
CHECKOUT = True

# What a branch refuses by design, so that later calls have files to work on; sync, which the whole machine would feel;
# and what leaves gaps of 1024 × st_blksize, so that other sizes of blocks would make other trees (fsx copies ranges).
AVOIDED = ("link", "mknod", "sync", "copyrange", "splice")
PROCESSES = (1, 4)


def digest(folder: Path) -> str:
    """Of names, kinds, modes, sizes, link texts and contents below a folder."""
    sums = hashlib.sha256()
    for where, folders, names in os.walk(os.fsencode(folder)):
        folders.sort()
        for name in sorted(names) + folders:
            path = os.path.join(where, name)
            found = os.lstat(path)
            sums.update(os.path.relpath(path, os.fsencode(folder)) + b"\0%o %d\0" % (found.st_mode, found.st_uid))
            if os.path.islink(path):
                sums.update(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    sums.update(b"%d\0" % found.st_size + hashlib.file_digest(file, "sha256").digest())
    return sums.hexdigest()


def one(side: Side, fsstress: Path, place: Path, processes: int, seed: int, count: int) -> Outcome:
    words = [word for name in AVOIDED for word in ("-f", f"{name}=0")]
    command = [fsstress, "-d", place, "-n", str(count // processes), "-p", str(processes), "-s", str(seed), *words]
    done = run(command, place, 900)
    if not done.ok:
        return failed(f"exit {done.code}: {done.output}")
    first = digest(place)
    if digest(place) != first:
        return failed("the tree reads differently the second time")
    side.again()
    if digest(place) != first:
        return failed("the tree reads differently after a remount")
    shutil.rmtree(place)
    place.mkdir()
    return OK


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    fsstress = built(options, "xfstests", "ltp/fsstress") / "ltp/fsstress"
    found: dict[str, Outcome] = {}
    for processes in PROCESSES:
        for seed in range(1, options.seeds + 1):
            name = f"{processes}-processes/{seed}"
            if not options.wanted(name):
                continue
            options.progress(side, name)
            with side.folder(name) as place:
                try:
                    found[name] = one(side, fsstress, place, processes, seed, options.operations // 8)
                except OSError as error:
                    found[name] = failed(f"afterwards: {error}")
    return found
