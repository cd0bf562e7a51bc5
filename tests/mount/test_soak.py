# SPDX-License-Identifier: Apache-2.0
"""scripts/soak, shortened: everything at once on one mount against a model. And that it would see what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from driver import ROOT, Coral

PASSTHROUGH = pytest.mark.parametrize("options", ["", "passthrough=off"], ids=["auto", "off"])


def soak(coral: Coral, place: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    (place / "work").mkdir()
    command = [sys.executable, "-B", str(ROOT / "scripts/soak"), "--json", "--dir", str(place / "work"), *arguments]
    environment = {**coral.environment, "CORAL_BIN": str(coral.bin), "CORAL_DATA": os.environ.get("CORAL_DATA", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout[-6000:] + done.stderr[-3000:]
    assert not coral.daemons()
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "coral.soak.v1" and document["ok"] == (code == 0)
    return document


@pytest.mark.heavy
@PASSTHROUGH
def test_everything_at_once(coral: Coral, place: Path, options: str) -> None:
    seed = str(time.time_ns())  # another one each time: the report of a failure names it
    words = ["-o", options] if options else []
    document = soak(coral, place, "--minutes", "0.35", "--seed", seed, "--disk", "1500", "--pace", "0.5", *words)
    done = document["done"]
    for what in ("save", "rewrite", "overwrite", "mmap-write", "copy", "read-commit", "read-racing", "gc", "repack"):
        assert done.get(what), f"{what} was never done: {done}"
    assert done.get("commit-settled", 0) + done.get("commit-racing", 0) > 3 and document["verified_after_remount"]["files"] > 0
    assert list((place / "work").iterdir()) == [], "nothing stays when all was right"


def test_what_goes_wrong_is_told_and_kept(coral: Coral, place: Path) -> None:
    """Files of the branches are damaged behind the model's back."""
    stop = threading.Event()

    def damage() -> None:
        while not stop.wait(0.5):
            for path in (place / "work").glob("*/mnt/branches/lane*/*.whole"):
                try:
                    with open(path, "r+b", buffering=0) as file:
                        file.seek(-1, os.SEEK_END)
                        last = file.read(1)
                        file.seek(-1, os.SEEK_END)
                        file.write(bytes([last[0] ^ 1]))
                except OSError:
                    continue  # replaced meanwhile, or empty

    thread = threading.Thread(target=damage)
    thread.start()
    try:
        document = soak(coral, place, "--minutes", "0.5", "--seed", "damage", "--largest", "1", "--data", "none", code=1)
    finally:
        stop.set()
        thread.join()
    assert any(".whole" in text and "offset" in text and "expected" in text for text in document["failures"])
    assert document["seed"] == "damage" and Path(document["kept"], "soak.coral/FORMAT").exists()


def test_wrong_words(coral: Coral, place: Path) -> None:
    command = [sys.executable, "-B", str(ROOT / "scripts/soak"), "--dir", str(place), "--bin", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: no coral in")
