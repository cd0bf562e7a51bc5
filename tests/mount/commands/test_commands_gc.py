# SPDX-License-Identifier: Apache-2.0
"""coral gc without a mount: what goes and what stays, beside other commands, and killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from command_line import FATAL, NO, OK, USAGE, Coral, tree_of


def pack_bytes(coral: Coral) -> int:
    return sum(p.stat().st_size for p in (coral.repo / "packs").iterdir())


def commit_noise(coral: Coral, name: str, size: int, *where: str) -> bytes:
    content = os.urandom(size)
    (coral.place / name).write_bytes(content)
    coral("add", "-q", *where, coral.place / name)
    coral("commit", "-q", *where, "-m", f"add {name}")
    return content


def forked(coral: Coral) -> bytes:
    """main with 1 MiB, failed-run with 6 MiB more."""
    kept = commit_noise(coral, "kept", 1 << 20)
    coral("branch", "failed-run")
    commit_noise(coral, "lost", 6 << 20, "-b", "failed-run")
    return kept


def test_a_deleted_branch_goes(repo: Coral) -> None:
    """S11.1"""
    kept = forked(repo)
    lost = repo("rev-parse", "failed-run").strip()
    repo("branch", "-D", "failed-run")
    before = pack_bytes(repo)
    assert "Nothing to remove" in repo("gc"), "the grace period has only begun"
    assert pack_bytes(repo) == before
    told = repo.json("gc", "-n", "--prune=now")
    assert pack_bytes(repo) == before and told["dry_run"] and told["freed_bytes"] > 6_000_000
    assert "Would free" in repo("gc", "--dry-run", "--prune=now")
    done = repo.json("gc", "--prune=now")
    assert before - pack_bytes(repo) == done["freed_bytes"] and abs(done["freed_bytes"] - told["freed_bytes"]) < 256
    assert repo.json("fsck", "--full") | {"ok": True, "problems": []} == repo.json("fsck", "--full")
    assert repo.run("-C", repo.repo, "cat", "main:kept").stdout == kept
    repo.run("-C", repo.repo, "rev-parse", lost, expect=NO)
    assert "Nothing to remove" in repo("gc", "--prune=now")
    assert repo("gc", "-q", "--prune=now") == ""
    repo("reindex")
    assert repo.json("fsck", "--full")["ok"] and repo.run("-C", repo.repo, "cat", "main:kept").stdout == kept


def test_what_names_lead_to_stays(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    coral("tag", "v1", ids[0])
    coral("tag", "-m", "text", "v2", ids[1])
    forked(coral)
    coral("branch", "-D", "failed-run")
    uncommitted = os.urandom(300_000)
    (coral.place / "uncommitted").write_bytes(uncommitted)
    coral("add", coral.place / "uncommitted")
    trees = {}
    for name in (*ids, "main"):
        coral("export", name, coral.place / f"before-{name}")
        trees[name] = tree_of(coral.place / f"before-{name}")
    assert coral.json("gc", "--prune=now")["freed_bytes"] > 6_000_000
    for name, tree in trees.items():
        coral("export", name, coral.place / f"after-{name}")
        assert tree_of(coral.place / f"after-{name}") == tree
    assert coral.changes() == {"uncommitted": "added"}
    coral("commit", "-q", "-m", "more")
    assert coral.run("-C", coral.repo, "cat", "main:uncommitted").stdout == uncommitted
    assert coral("rev-parse", "v1").strip() == ids[0] and coral("rev-parse", "v2").strip() == ids[1]
    assert coral.json("fsck", "--full") | {"ok": True, "problems": []} == coral.json("fsck", "--full")


def test_what_went_can_be_stored_again(repo: Coral) -> None:
    forked(repo)
    repo("branch", "-D", "failed-run")
    repo("gc", "--prune=now")
    repo("add", repo.place / "lost")
    repo("commit", "-q", "-m", "again")
    assert repo.run("-C", repo.repo, "cat", "main:lost").stdout == (repo.place / "lost").read_bytes()
    assert repo.json("fsck", "--full")["ok"]


def test_a_commit_of_which_a_part_went_gets_no_name(repo: Coral) -> None:
    """Its record may still be there, in a pack that is mostly in use."""
    commit_noise(repo, "big", 3 << 20)
    repo("branch", "side")
    (repo.place / "small").write_bytes(b"x" * 100_000)
    repo("add", "-q", "-b", "side", repo.place / "small")
    repo("commit", "-q", "-b", "side", "-m", "small")
    lost = repo("rev-parse", "side").strip()
    repo("branch", "-D", "side")
    commit_noise(repo, "more", 1 << 20)
    repo("gc", "--prune=now")
    assert repo.json("fsck", "--full")["ok"]
    for words in (["branch", "back", lost], ["tag", "back", lost], ["checkout", "--detach", lost]):
        done = subprocess.run([repo.program, "-C", repo.repo, *words], env=repo.env, capture_output=True, timeout=60)
        if done.returncode == OK:  # all of it is still there: then it must be whole
            repo("export", lost, repo.place / "whole")
            break
        assert done.returncode in (NO, FATAL)
    assert repo.json("fsck", "--full")["ok"]


def test_settings_and_mistakes(repo: Coral) -> None:
    forked(repo)
    repo("branch", "-D", "failed-run")
    assert "fortnight" in repo.error("gc", "--prune=fortnight")
    repo.error("gc", "what", expect=USAGE)
    repo.error("gc", "--prune", expect=USAGE)
    repo("config", "gc.grace", "soon")
    assert "gc.grace" in repo.error("gc")
    repo("config", "gc.grace", "2w")
    assert repo.json("gc", "-n")["freed_bytes"] == 0
    for text in ("never", "1.hour.ago", "3 days ago", "2001-02-03", "2001-02-03 04:05"):
        assert repo.json("gc", "-n", f"--prune={text}")["freed_bytes"] == 0, text
    repo("config", "gc.grace", "0s")
    time.sleep(0.05)
    assert repo.json("gc", "-n")["freed_bytes"] > 6_000_000
    assert "coral gc --dry-run" in repo("gc", "--help") and "gc" in repo("help")


def test_a_damaged_repository_is_left_alone(repo: Coral) -> None:
    forked(repo)
    repo("branch", "-D", "failed-run")
    for pack in (repo.repo / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        at = data.rfind(b"COR1\x05")  # the last commit's record
        data[at + 30] ^= 0xFF
        pack.chmod(0o600)
        pack.write_bytes(data)
    before = pack_bytes(repo)
    assert "coral fsck" in repo.error("gc", "--prune=now")
    assert pack_bytes(repo) == before


def test_beside_adds(repo: Coral) -> None:
    """Each add stores again what a gc at the same time takes for garbage."""
    shared = [os.urandom(400_000) for _ in range(4)]
    commit_noise(repo, "first", 1000)
    first = repo("rev-parse", "main").strip()
    repo("checkout", "--detach", first)
    for number in range(10):
        (repo.place / "f").write_bytes(b"".join(random.sample(shared, 4)) + shared[0][:number])
        (repo.place / "g").write_bytes(shared[number % 4])
        adds = [
            subprocess.Popen([repo.program, "-C", repo.repo, "add", "-q", "-b", "main", repo.place / name, "--as", f"{name}{number}"],
                             env=repo.env, stderr=subprocess.PIPE)
            for name in "fg"
        ]
        collector = subprocess.Popen([repo.program, "-C", repo.repo, "gc", "-q", "--prune=now"], env=repo.env)
        codes = [process.wait(120) for process in (*adds, collector)]
        said = [process.stderr.read() for process in adds if process.stderr]
        assert codes[2] == OK and set(codes[:2]) <= {OK, FATAL}, said
        for process in adds:
            assert process.stderr
            process.stderr.close()
        if OK in codes[:2]:
            repo("commit", "-q", "-b", "main", "-m", f"{number}")
        for name, code in zip("fg", codes[:2], strict=True):
            if code == OK:
                got = repo.run("-C", repo.repo, "cat", f"main:{name}{number}").stdout
                assert got == (repo.place / name).read_bytes()
        if number % 3 == 2:  # garbage of all there is: the next round stores much of it again
            repo("branch", "-D", "main")
            repo("branch", "main", first)
        problems = repo.json("fsck", "--full")
        assert problems["ok"], problems


def test_killed_at_any_moment(repo: Coral) -> None:
    """S11.4"""
    kept = {}
    for number in range(4):
        kept[f"k{number}"] = commit_noise(repo, f"k{number}", 700_000)
        repo("branch", f"b{number}")
        commit_noise(repo, f"x{number}", 3 << 20, "-b", f"b{number}")
    for number in range(4):
        repo("branch", "-D", f"b{number}")
    for attempt in range(14):
        process = subprocess.Popen([repo.program, "-C", repo.repo, "gc", "-q", "--prune=now"], env=repo.env)
        time.sleep(0.004 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert repo.json("fsck")["ok"]
        name = random.choice(list(kept))
        assert repo.run("-C", repo.repo, "cat", f"main:{name}").stdout == kept[name]
    repo("gc", "--prune=now")
    assert repo.json("fsck", "--full")["ok"]
    # What was killed in the middle of a record leaves a pack that ends in a part of one, and is otherwise in use: gc keeps it.
    repo("repack", "-q")
    assert pack_bytes(repo) < 4 * 700_000 * 1.1 + 100_000
    for name, content in kept.items():
        assert repo.run("-C", repo.repo, "cat", f"main:{name}").stdout == content


def test_two_at_once(repo: Coral, tmp_path: Path) -> None:
    forked(repo)
    repo("branch", "-D", "failed-run")
    running = [
        subprocess.Popen([repo.program, "-C", repo.repo, "gc", "-q", "--prune=now"], env=repo.env, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in running:
        said = process.communicate(timeout=60)[1]
        assert process.returncode == OK or b"is at work" in said
    assert OK in {process.returncode for process in running}
    assert repo.json("fsck", "--full")["ok"]
