# SPDX-License-Identifier: Apache-2.0
"""Looking after a repository, names and messages that strangers made, several commands at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

from command_line import FATAL, NO, OK, Coral, tree_of

# --- looking after it -----------------------------------------------------------------------------------------------------


def test_stats(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    stats = coral.json("stats")
    sizes = [100_000 + 10 + seed + 11 + 10 for seed in range(3)]
    assert (stats["commits"], stats["branches"], stats["tags"]) == (3, 1, 0)
    assert stats["logical_bytes"] == sum(sizes) and stats["uncommitted_bytes"] == 0
    assert stats["unique_bytes"] == sum(sizes) - 20 and stats["files"] == 3 * 3 + 1
    on_disk = sum(p.stat().st_size for p in (coral.repo / "packs").rglob("*") if p.is_file())
    assert 0 < stats["stored_bytes"] <= on_disk and stats["ratio"] == stats["logical_bytes"] / stats["stored_bytes"]
    assert stats["pending_ingest"] == 0 and stats["packs"] >= 1 and "cache" in stats and "staging_bytes" in stats
    (coral.place / "more").write_bytes(b"m" * 1000)
    coral("add", coral.place / "more")
    assert coral.json("stats")["uncommitted_bytes"] == 1000 and "1000 B" in coral("stats")


def test_fsck_and_reindex(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    assert coral.json("fsck", "--full") | {"ok": True, "problems": []} == coral.json("fsck", "--full")
    assert coral("fsck", "-q") == ""
    assert "object" in coral("reindex") and coral("rev-parse", "HEAD~2").strip() == ids[0]
    for name in os.listdir(coral.repo):
        if name.startswith("index.db"):
            (coral.repo / name).unlink()
    assert [row["id"] for row in coral.commits()] == ids[::-1], "a missing index is built again by itself"
    pack = max((p for p in (coral.repo / "packs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(pack.read_bytes())
    for at in range(200, len(data), 100):
        data[at] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(data)
    done = coral.run("-C", coral.repo, "fsck", "--full", "--json", expect=NO)
    document = json.loads(done.stdout)
    assert not document["ok"] and document["problems"]
    assert {p["severity"] for p in document["problems"]} <= {"lost", "damaged", "warning"}


# --- hostile names --------------------------------------------------------------------------------------------------------

NAMES = [
    b"-dash",
    b"--double",
    b"--",
    b"[a,b]",
    b"{}",
    b"a b",
    b"tab\tname",
    b"line\nname",
    b'quo"te',
    b"back\\slash",
    b"\xff\xfe",
    b"caf\xc3\xa9",
    b"\x1b[31mred",
    b"a:b",
    b"~",
    b"main",
    b"*",
    b"$(id)",
    b"'",
    b"%s%n",
    b" lead",
    b"trail ",
    b"n" * 255,
    b"\xc2\x9bcsi",
    b"...",
    b"=",
    b"@{0}",
]


def test_names_of_all_kinds(repo: Coral) -> None:
    source = os.fsencode(repo.place / "source")
    os.mkdir(source)
    for number, name in enumerate(NAMES):
        with open(os.path.join(source, name), "wb") as file:
            file.write(b"%d" % number)
    for name in NAMES:  # one by one, given from inside the folder: options end at --
        repo.run("-C", source, "add", "-q", "--", name, expect=FATAL)
        repo.run("add", "-q", "--", name, cwd=repo.place / "source", env={"CORAL_DIR": str(repo.repo)})
    listed = repo.run("-C", repo.repo, "status", "-z").stdout.split(b"\0")[:-1]
    assert sorted(line[3:] for line in listed) == sorted(NAMES)
    repo.run("-C", repo.repo, "commit", "-q", "-m", "one", "--", NAMES[0])
    repo("commit", "-q", "-m", "the rest")
    assert sorted(repo.run("-C", repo.repo, "ls", "-z").stdout.split(b"\0")[:-1]) == sorted(NAMES)

    def exact(row: dict[str, Any]) -> bytes:
        return bytes.fromhex(row["path_hex"]) if "path_hex" in row else row["path"].encode()

    rows = repo.json("ls", "-r")["entries"]
    assert sorted(map(exact, rows)) == sorted(NAMES)
    assert [row["path"] for row in rows if "path_hex" in row] == ["\ufffd\ufffd"]
    text = repo.run("-C", repo.repo, "ls").stdout
    assert (
        len(text.splitlines()) == len(NAMES) and b"\x1b" not in text and b"\xff" not in text and b"\xc2\x9b" not in text
    )
    assert b'"line\\nname"' in text and b'"\\377\\376"' in text and "café".encode() in text
    for number, name in enumerate(NAMES):
        assert repo.run("-C", repo.repo, "cat", b"main:" + name).stdout == b"%d" % number, name
        assert len(json.loads(repo.run("-C", repo.repo, "log", "--json", "--", name).stdout)["commits"]) == 1
    repo("export", "main", repo.place / "out")
    assert tree_of(repo.place / "out") == tree_of(repo.place / "source")
    repo.run("-C", repo.repo, "restore", "--", *NAMES)


def test_messages_do_not_reach_the_terminal_raw(repo: Coral) -> None:
    (repo.place / "f").write_bytes(b"f")
    repo("add", repo.place / "f")
    repo("commit", "-q", "-m", "evil \x1b[2J\x07 message\n\nsecond\x1b]0;title\x07")
    for words in (["log"], ["show"], ["log", "--oneline"], ["branch", "-v"]):
        out = repo.run("-C", repo.repo, *words).stdout
        assert b"\x1b" not in out and b"\x07" not in out, words
    assert repo.commits()[0]["message"].startswith("evil \x1b[2J"), "JSON tells it as it is"
    for word in ("\x1b[31m", "a\nb", "\x07"):
        said = repo.run("-C", repo.repo, "rev-parse", word, expect=NO).stderr
        assert said.count(b"\n") == 1 and b"\x1b" not in said and b"\x07" not in said


def test_huge_arguments(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    long = "x" * 100_000
    for words in (["rev-parse", long], ["show", f"main:{long}"], ["branch", long], ["tag", long], ["checkout", long]):
        done = subprocess.run([coral.program, "-C", coral.repo, *words], env=coral.env, capture_output=True, timeout=60)
        assert done.returncode in (NO, FATAL) and done.stderr.startswith(b"coral: error: "), words[0]
    coral.error("rev-parse", "main" + "~99999999999999999999")
    coral.run("-C", coral.repo, "rev-parse", "main" + "^" * 3000, expect=NO)
    deep = "/".join(["d"] * 300)
    coral("add", coral.place / "source" / "run.sh", "--as", f"{deep}/file")
    coral("commit", "-q", "-m", "deep")
    assert coral("cat", f"main:{deep}/file") == "#!/bin/sh\n"
    coral("export", "main", coral.place / "out")
    assert (coral.place / "out" / deep / "file").read_text() == "#!/bin/sh\n"


# --- several at once ------------------------------------------------------------------------------------------------------


def test_two_adds_at_once(repo: Coral) -> None:
    running = []
    for number in range(4):
        file = repo.place / f"file-{number}"
        file.write_bytes(os.urandom(2 << 20))
        running.append(
            subprocess.Popen([repo.program, "-C", repo.repo, "add", file], env=repo.env, stderr=subprocess.PIPE)
        )
    codes = [process.wait(60) for process in running]
    for process in running:
        assert process.stderr
        process.stderr.close()
    assert set(codes) <= {OK, FATAL} and OK in codes
    added = {f"file-{n}" for n, code in enumerate(codes) if code == OK}
    assert set(repo.changes()) == added
    repo("commit", "-q", "-m", "all")
    for name in added:
        assert repo.run("-C", repo.repo, "cat", f"main:{name}").stdout == (repo.place / name).read_bytes()


def test_a_killed_add_leaves_nothing(repo: Coral) -> None:
    (repo.place / "before").write_bytes(b"before")
    repo("add", repo.place / "before")
    repo("commit", "-q", "-m", "before")
    big = repo.place / "big"
    big.write_bytes(os.urandom(64 << 20))
    for delay in (0.02, 0.1, 0.3):
        process = subprocess.Popen([repo.program, "-C", repo.repo, "add", big], env=repo.env, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert set(repo.changes()) <= {"big"}
        assert repo.json("fsck")["ok"]
    repo("add", big)
    repo("commit", "-q", "-m", "after all")
    assert repo.run("-C", repo.repo, "cat", "main:big").stdout == big.read_bytes()
    assert repo.json("fsck", "--full")["ok"]
