# SPDX-License-Identifier: Apache-2.0
"""scripts/conformance/run, on a made-up suite: what differs is seen, what is refused is told; nothing stays."""

from __future__ import annotations

import json
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
