# SPDX-License-Identifier: Apache-2.0
"""xfstests' generic tests that need a directory only: those of its group auto that ask for TEST_DIR, and for no device,
scratch filesystem, mount or setting of the machine of their own. A case is one test, judged as xfstests' own `check`
does: by its exit code, and by what it prints against its .out file.

`check` itself wants TEST_DIR to be a mount that it can unmount. So the tests are started without it, in a folder of
links to the checkout where four functions of common/rc are replaced: TEST_DIR is a plain directory then, on the disk
and in the branch, and both sides are to xfstests a filesystem that it knows nothing of (FSTYP=fuse)."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from coral_conformance.options import Options, built, need_root
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Done, Side, run
from coral_conformance.verdicts import OK, Outcome, failed, skipped

ABOUT = "its generic tests that need a directory only (root; --source: a built checkout of xfstests; package xfsprogs)"
CHECKOUT = True
SECONDS = 300

GROUPS = re.compile(r"^_begin_fstest (.*)$", re.MULTILINE)
COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
# A filesystem, device or mount of its own; settings of the machine; hours.
ITS_OWN = re.compile(
    r"scratch|_require_(?:loop|block_device|dm_|sysctl|freeze|idmapped)|losetup|_mkfs_dev|drop_caches"
    r"|_test_(?:un)?mount\b|\bmount --move|_mount --make",
    re.IGNORECASE,
)
LONG = {"soak", "long_rw"}

REPLACED = """
. '{source}/common/rc'
_fs_type() {{ echo "$FSTYP"; }}
_check_mounted_on() {{ return 0; }}
_test_cycle_mount() {{ {again} > /dev/null; }}
_test_remount() {{ _notrun "TEST_DIR is no mount of its own"; }}
"""

# xfstests' words for what a branch refuses, in the reason why a test is not run.
REASONS = {
    "link": re.compile(r"hardlink"),
    "special": re.compile(r"mknod|mkfifo"),
    "tmpfile": re.compile(r"O_TMPFILE|xfs_io flink|xfs_io -T"),
    "shift": re.compile(r"xfs_io (?:fcollapse|finsert|funshare)"),
    "clone": re.compile(r"[Rr]eflink|[Dd]edupe"),
    "extents": re.compile(r"xfs_io fiemap"),
    "flags": re.compile(r"chattr|lsattr|xfs_io (?:lsattr|chattr)"),
    "xattr": re.compile(r"attr namespace trusted"),
    "namespaces": re.compile(r"ACLs? not supported|attr namespace security"),
    "blocks": re.compile(r"Sparse files are not supported"),
}
# What a test that fails shows beside the errno: the command, or its own words.
TRIED = {
    "link": re.compile(r"\bln\b|link"),
    "special": re.compile(r"mknod|mkfifo|bind|socket"),
    "xattr": re.compile(r"trusted\."),
    "atime": re.compile(r"^\+delta1 is NOT in range", re.MULTILINE),
}


def wanted_here(script: str) -> bool:
    found = GROUPS.search(script)
    groups = set(found[1].split()) if found else set()
    code = COMMENT.sub("", script)
    return "auto" in groups and not groups & LONG and "_require_test" in code and not ITS_OWN.search(code)


@contextlib.contextmanager
def desk(source: Path, side: Side) -> Iterator[Path]:
    """A folder that looks like the checkout, with common/rc replaced and room for what the tests write beside
    TEST_DIR: nothing is written into the checkout."""
    with tempfile.TemporaryDirectory(prefix="coral-xfstests-") as name:
        place = Path(name)
        place.chmod(0o755)
        for folder in ("", "common", "tests/generic"):
            (place / folder).mkdir(parents=True, exist_ok=True)
            for path in (source / folder).iterdir():
                if path.name not in ("common", "tests"):
                    (place / folder / path.name).symlink_to(path)
        (place / "common/rc").unlink()
        (place / "common/rc").write_text(REPLACED.format(source=source, again=side.again_command()))
        (place / "local.config").write_text("")
        yield place


def outcome(printed: str, golden: str, done: Done, reason: str) -> Outcome:
    if reason:
        keys = [key for key, words in REASONS.items() if words.search(reason)]
        return skipped(reason, keys[0] if keys else "")
    said = printed.replace("`", "'")
    if done.ok and said == golden:
        return OK
    lines = difflib.unified_diff(golden.splitlines(), said.splitlines(), "expected", "printed", n=0, lineterm="")
    text = "\n".join([f"exit {done.code}", *list(lines)[:60]])
    keys = [key for key, words in TRIED.items() if REFUSALS[key].shown_in(text) and words.search(text)]
    return failed(text, keys[0] if keys else "")


def one(here: Path, test: str, directory: Path) -> Outcome:
    results = here / "results"
    results.mkdir()
    env = {
        "FSTYP": "fuse",
        "TEST_DEV": "coral-conformance",
        "TEST_DIR": str(directory),
        "HOST_OPTIONS": str(here / "local.config"),
        "RESULT_DIR": str(results),
        "LC_ALL": "C",
    }
    try:
        done = run(["bash", f"./tests/generic/{test}"], here, SECONDS, env)
        golden = (here / f"tests/generic/{test}.out").read_text(errors="replace")
        note = results / f"{test}.notrun"
        return outcome(done.output, golden, done, note.read_text().strip() if note.exists() else "")
    finally:
        shutil.rmtree(results)


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    need_root("xfstests")
    source = built(options, "xfstests", "common/rc", "ltp/fsstress", "src/feature")
    found: dict[str, Outcome] = {}
    with desk(source, side) as here:
        for script in sorted((source / "tests/generic").glob("[0-9][0-9][0-9]")):
            name = f"generic/{script.name}"
            if not options.wanted(name) or not wanted_here(script.read_text(errors="replace")):
                continue
            options.progress(side, name)
            with side.folder(name) as directory:
                found[name] = one(here, script.name, directory)
    return found
