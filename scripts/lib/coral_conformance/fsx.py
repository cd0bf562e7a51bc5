# SPDX-License-Identifier: Apache-2.0
"""fsx (ltp/fsx of xfstests): random reads, writes, mappings, truncates and copies of one file, against a model in
memory. A case is one way of running it with one seed; and one for each operation that fsx found to be supported."""

from __future__ import annotations

import re

from coral_conformance.options import Options, built
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Side, run
from coral_conformance.verdicts import OK, Outcome, failed, skipped

ABOUT = "random operations on one file against a model in memory (--source: a built checkout of xfstests)"
CHECKOUT = True

WAYS: dict[str, list[str]] = {
    "plain": [],
    "small": ["-l", "65536", "-o", "4096"],
    "no-mmap": ["-R", "-W"],
    "no-fallocate": ["-F", "-H", "-z"],
    "reopen": ["-c", "50"],
    "fsync": ["-y"],
    "large": ["-l", "67108864", "-o", "1048576"],
    "direct": ["-Z", "-r", "512", "-w", "512", "-t", "512", "-R", "-W"],
    "unaligned-direct": ["-Z", "-R", "-W"],
}
# What fsx tries on a fresh file and does without where it is refused: a case each.
PROBES = {
    "fallocate mode 0": "",
    "fallocate mode FALLOC_FL_KEEP_SIZE": "",
    "fallocate mode FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE": "",
    "fallocate mode FALLOC_FL_ZERO_RANGE": "",
    "fallocate mode FALLOC_FL_COLLAPSE_RANGE": "shift",
    "fallocate mode FALLOC_FL_INSERT_RANGE": "shift",
    "copy range": "",
    "clone range": "clone",
    "dedupe range": "clone",
    "exchange range": "",
    "atomic writes": "",
    "dontcache IO": "uncached",
}
DISABLED = re.compile(r"does not support\s+(.*?), disabling", re.MULTILINE)


def heavy(way: str) -> int:
    """Some ways cost more per operation."""
    return 10 if way in ("large", "fsync") else 1


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    fsx = built(options, "xfstests", "ltp/fsx") / "ltp/fsx"
    found: dict[str, Outcome] = {}
    refused: set[str] = set()
    for way, words in WAYS.items():
        for seed in range(1, options.seeds + 1):
            name = f"{way}/{seed}"
            if not options.wanted(name):
                continue
            options.progress(side, name)
            with side.folder(name) as place:
                count = str(max(100, options.operations // heavy(way)))
                done = run([fsx, "-S", str(seed), "-N", count, *words, "-P", place, place / "file"], place, 900)
            found[name] = OK if done.ok else failed(done.output[:2000])
            refused.update(DISABLED.findall(done.output))
    return found | operations(refused)


def operations(refused: set[str]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for text in refused | set(PROBES):
        key = PROBES.get(text, "")
        said = f"fsx: {REFUSALS[key].name}" if key else "fsx found it unsupported"
        found[f"operation {text}"] = skipped(said, key) if text in refused else OK
    return found
