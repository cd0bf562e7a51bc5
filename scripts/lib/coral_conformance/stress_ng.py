# SPDX-License-Identifier: Apache-2.0
"""stress-ng's class "filesystem", each stressor for some seconds with --verify."""

from __future__ import annotations

import re
from pathlib import Path

from coral_bench.places import Failure
from coral_conformance.options import Options, program
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Done, Side, run
from coral_conformance.verdicts import OK, Outcome, failed, skipped

ABOUT = "the stressors of its class filesystem, each for --seconds with --verify (package stress-ng)"
CHECKOUT = False

# They change the machine or know nothing of the directory that they run in.
LEFT_OUT = {"bind-mount", "binderfs", "eventfd", "ioprio", "procfs"}
REFUSED = {"link": "link", "mknod": "special", "chattr": "flags", "inode-flags": "flags"}
NOT_ALLOWED = "not allowed on the filesystem"  # how it says EPERM
NOT_HERE = {3, 4}  # stress-ng: no resource, not implemented


def stressors(stress_ng: str) -> list[str]:
    done = run([stress_ng, "--class", "filesystem?"], Path("/"), 20)
    found = re.search(r"stressors: (.*)", done.output)
    if not found:
        raise Failure(f"stress-ng does not list its class filesystem: {done.output.strip()[:200]}")
    return [name for name in found[1].split() if name not in LEFT_OUT]


def outcome(name: str, done: Done) -> Outcome:
    if done.ok:
        return OK
    key = REFUSED.get(name, "")
    shown = bool(key) and (REFUSALS[key].shown_in(done.output) or NOT_ALLOWED in done.output)
    refusal = key if shown else ""
    if done.code in NOT_HERE:
        return skipped(done.output, refusal)
    return failed(done.output, refusal)


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    stress_ng = str(program("stress-ng", "stress-ng"))
    found: dict[str, Outcome] = {}
    for name in stressors(stress_ng):
        if not options.wanted(name):
            continue
        options.progress(side, name)
        with side.folder(name) as place:
            command = [
                stress_ng,
                f"--{name}",
                "1",
                "--timeout",
                f"{options.seconds:g}s",
                "--verify",
                "--temp-path",
                place,
            ]
            found[name] = outcome(name, run([*command, "--no-rand-seed"], place, options.seconds + 120))
    return found
