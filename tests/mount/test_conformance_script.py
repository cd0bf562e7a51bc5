# SPDX-License-Identifier: Apache-2.0
"""scripts/conformance/run, on a made-up suite: what differs is seen, what is refused is told; nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driver import ROOT, Coral

# In the place of xfstests' ltp/fsx: knows by the filesystem where it runs.
FSX = """#!/bin/sh
for last; do :; done
here=$(stat -f -c %T "$(dirname "$last")")
case $here in
fuse*) echo "main: filesystem does not support fallocate mode FALLOC_FL_INSERT_RANGE, disabling!" ;;
esac
case "$here $*" in
DIFFERENCE) echo "READ BAD DATA"; exit 205 ;;
esac
echo "All operations completed A-OK!" > "$last"
"""


def run(coral: Coral, place: Path, difference: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    fsx = place / "suite/ltp/fsx"
    fsx.parent.mkdir(parents=True, exist_ok=True)
    fsx.write_text(FSX.replace("DIFFERENCE", difference))
    fsx.chmod(0o755)
    command = [sys.executable, "-B", str(ROOT / "scripts/conformance/run"), *arguments]
    environment = {**coral.environment, "CORAL_BIN": str(coral.bin)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def words(place: Path) -> list[str]:
    (place / "work").mkdir()
    return ["fsx", "--source", str(place / "suite"), "--work", str(place / "work"), "--seeds", "1"]


def test_what_is_refused_by_design_is_no_difference(coral: Coral, place: Path, words: list[str]) -> None:
    done = run(coral, place, "nothing", *words)
    assert done.returncode == 0, done.stderr
    assert "1 refused by design" in done.stdout and "0 DIFFERS" in done.stdout
    assert "INSERT_RANGE): EOPNOTSUPP (S3.11)" in done.stdout
    assert list((place / "work").iterdir()) == []


def test_what_differs_is_named(coral: Coral, place: Path, words: list[str]) -> None:
    done = run(coral, place, "fuse*' -R -W '*", *words, "--json")
    assert done.returncode == 1, done.stderr
    [suite] = json.loads(done.stdout)["suites"]
    differing = {row["case"]: row for row in suite["unequal"] if row["verdict"] == "DIFFERS"}
    assert set(differing) == {"no-mmap/1", "direct/1", "unaligned-direct/1"}
    assert "READ BAD DATA" in differing["no-mmap/1"]["mount"]["text"]
    # What fails on the disk too is equal: the suite's or the machine's fault.
    assert run(coral, place, "*' -R -W '*", *words).returncode == 0
    assert list((place / "work").iterdir()) == []


def test_what_is_missing_is_said(coral: Coral, place: Path, words: list[str]) -> None:
    for arguments, said in (
        (["fsx"], "--source"),
        (["fsx", "--source", str(place / "none")], "no such folder"),
        (["fsx", "--source", str(place)], "no ltp/fsx: build xfstests there first"),
        ([*words, "--only", "nothing*", "--bin", str(place)], "no coral in"),
    ):
        done = run(coral, place, "nothing", *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr, done.stderr


# In the place of an xfstests checkout: what `check` asks for is TEST_DIR as a mount, which it must never come to.
RC = """
_fs_type() { echo "a filesystem that is mounted elsewhere"; exit 1; }
_test_cycle_mount() { echo "unmounted what is not ours"; exit 1; }
"""
BEGIN = """#!/bin/bash
# A line about a scratch device decides nothing.
_begin_fstest() { . ./common/rc; echo "QA output created by 0"; [ "$(_fs_type x)" = "$FSTYP" ] || exit 1; }
_require_test() { cd "$TEST_DIR" || exit 1; where=$(stat -f -c %T .); }
_begin_fstest auto quick
_require_test
"""
XFSTESTS = {
    "001": "echo fine",
    "002": "case $where in fuse*) echo bad ;; *) echo fine ;; esac",
    "003": "case $where in fuse*) echo No hardlink support > $RESULT_DIR/003.notrun ;; *) echo fine ;; esac",
    "004": "case $where in fuse*) echo fine; exit 1 ;; *) echo fine ;; esac",
    "005": "case $where in fuse*) ln x y 2>&1 || echo ln: Operation not permitted ;; *) echo fine ;; esac",
    "006": """cd /; echo fine > $TEST_DIR/file; exec 7< $TEST_DIR/file
        case $where in fuse*) _test_cycle_mount 2> /dev/null && echo unmounted under an open file ;; esac
        exec 7<&-; _test_cycle_mount; cat $TEST_DIR/file""",
    "007": "_require_scratch; echo never chosen",
    "008": "echo No such thing here > $RESULT_DIR/008.notrun",
    "009": "touch $TMPDIR/x ./tests/x $RESULT_DIR/x 2> /dev/null; echo fine",
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as root only")
def test_xfstests_without_its_check(coral: Coral, place: Path) -> None:
    suite = place / "suite"
    for file in ("common/rc", "ltp/fsstress", "src/feature"):
        (suite / file).parent.mkdir(parents=True)
        (suite / file).write_text(RC)
    (suite / "tests/generic").mkdir(parents=True)
    for name, script in XFSTESTS.items():
        (suite / f"tests/generic/{name}").write_text(BEGIN + script)
        (suite / f"tests/generic/{name}.out").write_text("QA output created by 0\nfine\n")
    (suite / "ltp/fsx").touch()
    before = {path: path.is_file() and path.read_text() for path in suite.rglob("*")}
    (place / "work").mkdir()
    done = run(coral, place, "nothing", "xfstests", "--source", str(suite), "--work", str(place / "work"), "--json")
    assert done.returncode == 1, done.stderr
    [found] = json.loads(done.stdout)["suites"]
    verdicts = {row["case"].removeprefix("generic/"): row["verdict"] for row in found["unequal"]}
    assert verdicts == {
        "002": "DIFFERS", "003": "refused by design", "004": "DIFFERS", "005": "refused by design"
    }  # fmt: skip
    assert found["cases"] == 8 and [row["case"] for row in found["neither"]] == ["generic/008"]
    assert found["neither"][0]["mount"]["text"] == "No such thing here"
    assert {"-fine", "+bad"} <= set(found["unequal"][0]["mount"]["text"].splitlines())
    before[suite / "ltp/fsx"] = FSX.replace("DIFFERENCE", "nothing")
    assert {path: path.is_file() and path.read_text() for path in suite.rglob("*")} == before
    assert list((place / "work").iterdir()) == []
