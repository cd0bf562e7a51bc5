# SPDX-License-Identifier: Apache-2.0
"""LTP's tests of the system calls on files (runtest/syscalls) and of filesystems (runtest/fs). A case is one line of
these lists whose program was built. Left out: what wants a device, a mount or a filesystem of its own, and what takes
minutes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coral_bench.places import Failure
from coral_conformance.options import Options, built, need_root
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Done, Side, run
from coral_conformance.verdicts import OK, Outcome, failed, skipped

ABOUT = "its tests of file calls and of filesystems (root; --source: a built checkout of LTP)"
CHECKOUT = True

CALLS = """
access chdir chmod chown close copy_file_range creat dup fadvise fallocate fchdir fchmod fchmodat fchmodat2 fchown
fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatat fstatfs fsync ftruncate
getdents getxattr lchown lgetxattr link linkat listxattr llistxattr llseek lremovexattr lseek lstat mkdir mkdirat
mknod mknodat mmap msync munmap open openat openat2 pathconf pread preadv preadv2 pwrite pwritev pwritev2 read
readahead readdir readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat
statfs statvfs statx symlink symlinkat sync sync_file_range truncate unlink unlinkat utime utimensat utimes write
writev
""".split()
FOLDERS = "doio fs_di fs_inod ftest inode lftest linktest openfile stream".split()

OWN_FILESYSTEM = re.compile(
    r"\.(?:needs_device|mount_device|format_device|all_filesystems|needs_rofs|hugepages|needs_overlay)\b"
    r"|tst_acquire_device|tst_mkfs"
)
# They run for minutes or load the machine on purpose.
LONG = re.compile(r"^(?:gf1[4-8]|gf2\d|gf30|rwtest0[1-4]|iogen01|fs_fill|fcntl12.*|creat05|readahead0[12])$")

REFUSED = {"link": re.compile(r"link"), "special": re.compile(r"mknod|mkfifo|fifo|socket|bind")}
# Where a test words the refusal itself. The listxattr family sets security.*, setxattr03 an immutable flag.
WORDED = {
    "namespaces": re.compile(
        r"listxattr\d+ .*no xattr support in fs|lgetxattr\d+ .*no xattr|acl_set_file\(\): EOPNOTSUPP", re.S
    ),
    "tmpfile": re.compile(r"O_TMPFILE not supported"),
    "holes": re.compile(r"not support real SEEK_DATA/SEEK_HOLE"),
    "flags": re.compile(r"immutable failed: ENOTTY"),
}

PASS, FAIL, BROKEN, WARN, CONF = 0, 1, 2, 4, 32


@dataclass(frozen=True)
class Case:
    name: str
    command: str
    program: Path


def cases(source: Path) -> Iterator[Case]:
    kernel = source / "testcases/kernel"
    folders = [kernel / "syscalls" / call for call in CALLS] + [kernel / "fs" / name for name in FOLDERS]
    programs = {path.name: path for folder in folders for path in sorted(folder.rglob("*")) if executable(path)}
    for listing in ("syscalls", "fs"):
        for line in (source / "runtest" / listing).read_text().splitlines():
            name, _, command = line.strip().partition(" ")
            words = shlex.split(command, comments=True) if command and not name.startswith("#") else []
            found = programs.get(words[0]) if words else None
            if found and not LONG.match(name) and not wants_its_own(found):
                yield Case(name, command.strip(), found)


def executable(path: Path) -> bool:
    return path.is_file() and path.suffix in ("", ".sh") and path.stat().st_mode & 0o111 != 0


def wants_its_own(program: Path) -> bool:
    code = program.with_name(re.sub(r"_64$", "", program.name) + ".c")
    return code.exists() and OWN_FILESYSTEM.search(code.read_text(errors="replace")) is not None


def outcome(case: Case, done: Done) -> Outcome:
    if done.ok:
        return OK
    text = "\n".join(line for line in done.output.splitlines() if re.search(r"TFAIL|TBROK|TCONF|FAIL|BROK", line))
    text = text or done.output
    told = (case.name + text).lower()
    keys = [key for key, words in REFUSED.items() if REFUSALS[key].shown_in(text) and words.search(told)]
    keys += [key for key, words in WORDED.items() if words.search(f"{case.name} {text}")]
    key = keys[0] if keys else ""
    if done.code & (FAIL | BROKEN) == 0 and done.code & CONF:
        return skipped(text, key)
    return failed(f"exit {done.code}: {text}", key)


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    need_root("LTP")
    source = built(options, "LTP", "runtest/syscalls", "lib/libltp.a")
    found: dict[str, Outcome] = {}
    for case in cases(source):
        if not options.wanted(case.name) or case.name in found:
            continue
        options.progress(side, case.name)
        with side.folder(case.name) as place:
            path = f"{case.program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
            env = {
                "LTPROOT": str(source),
                "PATH": path,
                "LTP_COLORIZE_OUTPUT": "n",
                "LTP_DATAROOT": str(case.program.parent),
            }
            done = run(["sh", "-c", case.command], place, 120, env)
        found[case.name] = outcome(case, done)
    if not found and not options.only:
        raise Failure(f"{source}: nothing is built below testcases/kernel: build it as its INSTALL says")
    return found
