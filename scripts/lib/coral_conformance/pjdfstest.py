# SPDX-License-Identifier: Apache-2.0
"""pjdfstest: one system call each, its result and errno. A case is one assertion."""

from __future__ import annotations

import re

from coral_conformance.options import Options, built, need_root
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Side, run
from coral_conformance.verdicts import OK, Outcome, failed

ABOUT = "system calls one by one, with every errno, as several users (root; --source: a built checkout of pjdfstest)"
CHECKOUT = True
GROUPS = (
    "chmod", "chown", "ftruncate", "link", "mkdir", "mkfifo", "mknod", "open", "rename", "rmdir", "symlink", "truncate",
    "unlink", "utimensat",
)  # fmt: skip

# What the suite itself runs on ext4, UFS and ZFS only: a rename changes the ctime.
LEFT_OUT = {"rename/22.t"}

LINE = re.compile(r"^(not )?ok (\d+)(.*)$")
TRIED = re.compile(r"tried '(.*)', expected (.*), got (.*)")
NAME = re.compile(r"(?:pjdfstest_)?[0-9a-f]{16,}")
CALLS = {"link": "link", "linkat": "link", "mkfifo": "special", "mkfifoat": "special", "mknod": "special",
         "mknodat": "special", "bind": "special", "bindat": "special"}  # fmt: skip


class Reader:
    """Follows a script's assertions. Once a name was refused, what is asserted of that name fails too, and counts as
    refused: where the assertion names it, where it finds nothing there (ENOENT, through a symlink too), where a link
    is missing in a count, and where it has no words (a comparison in the shell)."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def outcome(self, bad: bool, words: str) -> Outcome | None:
        if "# TODO" in words:
            return None  # a habit of some systems, which the suite itself does not count
        if not bad:
            return OK
        tried = TRIED.search(words)
        if not tried:
            return failed(words or "a comparison", next(iter(self.names.values()), ""))
        command, got = tried[1].split(), tried[3]
        for at, word in enumerate(command):
            key = CALLS.get(word)
            if key and got == REFUSALS[key].name:
                self.names.update((name, key) for name in self.arguments(command[at + 1 :]))
                return failed(words, key)
        named = [self.names[name] for name in sorted(self.arguments(command)) if name in self.names]
        if not named and self.names and got == "ENOENT":
            named = list(self.names.values())
        if "link" in self.names.values() and re.sub(r",2$", ",1", tried[2]) == got:
            named = ["link"]
        if command[0] == "lstat" and command[2:] == ["nlink"] and tried[2] == "3" and got == "2":
            named = ["nlink"]
        return failed(words, named[0] if named else "")

    @staticmethod
    def arguments(words: list[str]) -> set[str]:
        return {part for word in words for part in word.split("/") if NAME.fullmatch(part)}


def read(output: str) -> dict[int, Outcome]:
    reader, found = Reader(), {}
    for line in output.splitlines():
        if (match := LINE.match(line)) and (outcome := reader.outcome(bool(match[1]), match[3])):
            found[int(match[2])] = outcome
    return found


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    need_root("pjdfstest")
    source = built(options, "pjdfstest", "pjdfstest", "tests/misc.sh")
    found: dict[str, Outcome] = {}
    for group in GROUPS:
        for script in sorted((source / "tests" / group).glob("*.t")):
            name = f"{group}/{script.name}"
            if name in LEFT_OUT or not options.wanted(name):
                continue
            options.progress(side, name)
            with side.folder(name) as place:
                done = run(["sh", script], place, 600)
            cases = read(done.output)
            found.update((f"{name}:{number:04}", outcome) for number, outcome in cases.items())
            if done.late or not cases:
                found[name] = failed(done.output)
    return found
