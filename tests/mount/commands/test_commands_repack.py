# SPDX-License-Identifier: Apache-2.0
"""coral repack without a mount: what becomes smaller, what stays as it is, and killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from command_line import FATAL, OK, USAGE, Coral


def pack_bytes(coral: Coral) -> int:
    return sum(p.stat().st_size for p in (coral.repo / "packs").iterdir())


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values())


def model(names: str, seed: int, step: float = 0.0, tensors: int = 4, width: int = 300) -> bytes:
    """Weights of `seed`, moved by `step`; tensors are called after `names`."""
    base, move = np.random.default_rng(seed), np.random.default_rng(zlib.crc32(f"{names} {step}".encode()))
    return safetensors(
        {
            f"{names}.{n}.w": (base.normal(0, 0.02, (width, width)) + step * move.normal(0, 1, (width, width))).astype("<f4")
            for n in range(tensors)
        }
    )


def forget_bases(coral: Coral) -> None:
    for path in coral.repo.glob("bases.db*"):
        path.unlink()


def commit(coral: Coral, name: str, content: bytes) -> None:
    (coral.place / name).write_bytes(content)
    coral("add", "-q", coral.place / name)
    coral("commit", "-q", "-m", f"add {name}")


def strangers(coral: Coral) -> dict[str, bytes]:
    """A model and fine-tunes of it that were stored without a base, for names told nothing and bases.db was gone."""
    contents = {}
    for name, step in (("a", 0.0), ("b", 1e-5), ("c", 2e-5)):
        forget_bases(coral)
        contents[name] = model(name, 7, step)
        commit(coral, name, contents[name])
    return contents


def expect_whole(coral: Coral, contents: dict[str, bytes], revision: str = "main") -> None:
    for name, content in contents.items():
        assert coral.run("-C", coral.repo, "cat", f"{revision}:{name}").stdout == content
    assert coral.json("fsck", "--full") | {"ok": True, "problems": []} == coral.json("fsck", "--full")


def truth(coral: Coral) -> dict[str, str]:
    """What a dry run must leave alone: all but caches and locks."""
    kept = {}
    for path in sorted(coral.repo.rglob("*")):
        if path.is_file() and path.parent.name != "run" and not path.name.startswith(("bases.db", "index.db")):
            if not path.name.endswith(("-wal", "-shm")):
                kept[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return kept


def test_a_base_is_found_later(repo: Coral) -> None:
    """S12.1"""
    contents = strangers(repo)
    head = repo("rev-parse", "main")
    before, whole = pack_bytes(repo), truth(repo)
    told = repo.json("repack", "-n")
    assert told["dry_run"] and truth(repo) == whole and told["saved_bytes"] > before // 5
    assert "Would save about" in repo("repack", "--dry-run")
    done = repo.json("repack")
    assert done["before_bytes"] == before and done["after_bytes"] == pack_bytes(repo) < before * 0.8
    assert done["saved_bytes"] == before - pack_bytes(repo) and done["segments_encoded"] == 8
    assert abs(done["saved_bytes"] - told["saved_bytes"]) < before // 20
    expect_whole(repo, contents)
    assert repo("rev-parse", "main") == head
    after = pack_bytes(repo)
    assert "Nothing to improve" in repo("repack") and pack_bytes(repo) == after
    assert repo("repack", "-q", "--all") == "" and pack_bytes(repo) <= after
    repo("reindex")
    expect_whole(repo, contents)
    repo("gc", "--prune=now")
    expect_whole(repo, contents)
    assert pack_bytes(repo) <= after


def test_what_depends_on_a_tensor_stays_readable(repo: Coral) -> None:
    """Chains of saves on both sides of a base that is found late, packed again and again."""
    contents = {}
    for name in "abc":
        forget_bases(repo)
        for save in range(4):
            contents[f"{name}{save}"] = model(name, 11, 1e-5 * save + 1e-6 * ord(name), tensors=2)
            commit(repo, f"{name}{save}", contents[f"{name}{save}"])
    for words in (["repack"], ["repack", "--all"], ["repack"]):
        before = pack_bytes(repo)
        repo(*words)
        assert pack_bytes(repo) <= before
        expect_whole(repo, contents)


def test_younger_than_the_grace_period(repo: Coral) -> None:
    """S12.3: what nothing leads to stays for as long as gc would leave it."""
    contents = strangers(repo)
    repo("branch", "side")
    (repo.place / "lost").write_bytes(os.urandom(2 << 20))
    repo("add", "-q", "-b", "side", repo.place / "lost")
    repo("commit", "-q", "-b", "side", "-m", "lost")
    lost = repo("rev-parse", "side").strip()
    repo("branch", "-D", "side")
    assert repo.json("repack")["saved_bytes"] > 0
    repo("branch", "back", lost)
    expect_whole(repo, contents | {"lost": (repo.place / "lost").read_bytes()}, "back")


def test_killed_at_any_moment(repo: Coral) -> None:
    """S12.2"""
    contents = strangers(repo)
    before = pack_bytes(repo)
    for attempt in range(24):
        process = subprocess.Popen([repo.program, "-C", repo.repo, "repack", "-q"], env=repo.env)
        time.sleep(0.012 * attempt)
        process.send_signal(signal.SIGKILL if attempt % 3 else signal.SIGINT)
        process.wait()
        assert repo.json("fsck")["ok"]
        name = random.choice(list(contents))
        assert repo.run("-C", repo.repo, "cat", f"main:{name}").stdout == contents[name]
    repo("repack")
    assert pack_bytes(repo) < before * 0.8
    expect_whole(repo, contents)  # and what a write that was cut has left is gone, too


def test_beside_adds(repo: Coral) -> None:
    """What is added meanwhile takes tensors for bases that are just being replaced."""
    contents = strangers(repo)
    for number in range(6):
        forget_bases(repo)
        commit(repo, f"x{number}", model(f"x{number}", 7, 1e-5 + 1e-6 * number))
        contents[f"x{number}"] = (repo.place / f"x{number}").read_bytes()
        packing = subprocess.Popen([repo.program, "-C", repo.repo, "repack", "-q"], env=repo.env)
        time.sleep(random.random() * 0.2)
        commit(repo, f"y{number}", model(f"x{number}", 7, 2e-5 + 1e-6 * number))
        contents[f"y{number}"] = (repo.place / f"y{number}").read_bytes()
        assert packing.wait(120) == OK
        expect_whole(repo, contents)
    repo("repack")
    expect_whole(repo, contents)


def test_beside_gc(repo: Coral) -> None:
    contents = strangers(repo)
    running = [
        subprocess.Popen([repo.program, "-C", repo.repo, word, "-q"], env=repo.env, stderr=subprocess.PIPE)
        for word in ("repack", "gc", "repack")
    ]
    for process in running:
        said = process.communicate(timeout=60)[1]
        assert process.returncode == OK or (process.returncode == FATAL and b"is at work" in said)
    repo("repack")
    expect_whole(repo, contents)


def test_nothing_to_do_and_mistakes(repo: Coral) -> None:
    assert "Nothing to improve in 0 files" in repo("repack")
    commit(repo, "noise", os.urandom(500_000))
    done = repo.json("repack")
    assert done["saved_bytes"] == 0 and done["files"] == 1 and done["before_bytes"] == done["after_bytes"]
    repo.error("repack", "what", expect=USAGE)
    repo.error("repack", "--everything", expect=USAGE)
    assert "coral repack --dry-run" in repo("repack", "--help") and "repack" in repo("help")


@pytest.mark.parametrize("victim", ["a", "c"])
def test_a_damaged_tensor_is_left_alone(repo: Coral, victim: str) -> None:
    """It is no base for anything, stays for fsck to tell of, and holds up nothing else."""
    contents = strangers(repo)
    for pack in (repo.repo / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        at = 20 * len(data) // 100 if victim == "a" else 80 * len(data) // 100
        data[at] ^= 0xFF
        pack.chmod(0o600)
        pack.write_bytes(data)
    problems = repo.json("fsck", "--full", expect=1)["problems"]
    assert problems
    repo("repack")
    assert repo.json("fsck", "--full", expect=1)["problems"], "damage does not vanish"
    assert repo.run("-C", repo.repo, "cat", "main:b").stdout == contents["b"]
