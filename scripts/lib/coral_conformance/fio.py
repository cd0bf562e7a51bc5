# SPDX-License-Identifier: Apache-2.0
"""fio with --verify: writes by several engines, block sizes and orders, read back and compared."""

from __future__ import annotations

from coral_conformance.options import Options, program
from coral_conformance.sides import Side, run
from coral_conformance.verdicts import OK, Outcome, failed

ABOUT = "writes of several engines, sizes and orders, read back and compared (package fio)"
CHECKOUT = False

COMMON = ["--size=24m", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--group_reporting"]
JOBS: dict[str, list[str]] = {
    "sequential": ["--rw=write", "--bs=1m", "--ioengine=psync"],
    "sequential, fsync": ["--rw=write", "--bs=256k", "--ioengine=psync", "--fsync=8"],
    "random": ["--rw=randwrite", "--bs=4k", "--ioengine=psync"],
    "odd sizes": ["--rw=randwrite", "--bsrange=512-100000", "--bs_unaligned=1", "--ioengine=psync"],
    "vectors": ["--rw=randwrite", "--bs=16k", "--ioengine=pvsync"],
    "mixed": ["--rw=randrw", "--bs=8k", "--ioengine=psync"],
    "mapped": ["--rw=write", "--bs=64k", "--ioengine=mmap"],
    "mapped, random": ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    "asynchronous": ["--rw=randwrite", "--bs=16k", "--ioengine=libaio", "--iodepth=16"],
    "asynchronous, direct": ["--rw=randwrite", "--bs=16k", "--ioengine=libaio", "--iodepth=16", "--direct=1"],
    "direct": ["--rw=randwrite", "--bs=64k", "--ioengine=psync", "--direct=1"],
    "direct, unaligned": ["--rw=randwrite", "--bs=1000", "--ioengine=psync", "--direct=1", "--size=2m"],
    "four writers, own files": ["--rw=randwrite", "--bs=32k", "--ioengine=psync", "--numjobs=4", "--size=8m"],
    "fallocate": ["--rw=randwrite", "--bs=16k", "--ioengine=psync", "--fallocate=posix"],
    "preallocated, overwritten": [
        "--rw=randwrite",
        "--bs=16k",
        "--ioengine=psync",
        "--fallocate=keep",
        "--overwrite=1",
    ],
}


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    fio = program("fio", "fio")
    found: dict[str, Outcome] = {}
    for name, words in JOBS.items():
        if not options.wanted(name):
            continue
        options.progress(side, name)
        with side.folder(name) as place:
            command = [fio, "--name=job", f"--directory={place}", *COMMON, *words, "--minimal"]
            done = run(command, place, 300)
            found[name] = OK if done.ok else failed(done.output)
    return found
