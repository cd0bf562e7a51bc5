# SPDX-License-Identifier: Apache-2.0
"""Looking at history, and moving branches and tags."""

from __future__ import annotations

import hashlib
import json
import os
import re

from command_line import NO, USAGE, Coral, safetensors, tree_of, write_tree

# --- history --------------------------------------------------------------------------------------------------------------


def test_log(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    rows = coral.commits()
    assert [row["id"] for row in rows] == ids[::-1]
    assert [row["parents"] for row in rows] == [[ids[1]], [ids[0]], []]
    assert [row["message"] for row in rows] == ["commit 2", "commit 1", "commit 0"]

    def listed(*words: str) -> list[int]:
        return [ids.index(row["id"]) for row in coral.commits(*words)]

    assert listed("-n", "1") == listed("-1") == [2] and listed("-n0") == [] and listed("-n", "99") == [2, 1, 0]
    assert listed("main~1") == [1, 0] and listed("main~2..main") == [2, 1] and listed("main..main~1") == []
    assert listed("main~1..") == [2] and listed("..main~1") == []
    coral("tag", "v1", "main~1")
    assert listed("v1", "main~2") == [1, 0]
    (coral.place / "one").write_bytes(b"1")
    coral("add", coral.place / "one", "--as", "models/one")
    coral("commit", "-q", "-m", "one")
    newest = coral("rev-parse", "HEAD").strip()
    ids.append(newest)
    assert listed("--", "models/one") == [3] and listed("--", "models") == [3, 2, 1, 0]
    assert (
        listed("--", "run.sh") == [0]
        and listed("--", "nosuch") == []
        and listed("-1", "main~1", "--", "config.json") == [2]
    )
    lines = coral("log", "--oneline").splitlines()
    assert len(lines) == 4 and "(HEAD -> main) one" in lines[0] and "(tag: v1)" in lines[2]
    text = coral("log", "--stat", "-1")
    assert f"commit {newest}" in text and "Author: Tess Ter <tess@example.org>" in text and "models/one" in text


def test_rev_parse(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    assert coral("rev-parse", "HEAD", "main~1", "HEAD^^", ids[0][:8]).split() == [ids[2], ids[1], ids[0], ids[0]]
    assert coral("rev-parse", "--short", "main") == ids[2][:7] + "\n"
    assert coral("rev-parse", "--short=12", "main") == ids[2][:12] + "\n"
    assert coral.json("rev-parse", "main")["revisions"] == [{"revision": "main", "id": ids[2]}]
    for bad in ("main~x", "", "~1", "main@{1}"):
        coral.error("rev-parse", bad)
    coral.run("-C", coral.repo, "rev-parse", ids[0][:3], expect=NO)


def test_show_and_ls_and_cat(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    shown = coral.json("show", "main~1")
    assert (shown["kind"], shown["id"], shown["parents"], shown["message"]) == ("commit", ids[1], [ids[0]], "commit 1")
    assert {r["path"]: r["change"] for r in shown["changes"]} == dict.fromkeys(
        ["config.json", "models/a.bin", "models/deep/b.bin"], "modified"
    )
    assert ids[1] in coral("show", "main~1") and "models/a.bin" in coral("show", "main~1")
    entries = {e["path"]: e for e in coral.json("ls")["entries"]}
    assert {p: e["type"] for p, e in entries.items()} == {
        "config.json": "file",
        "latest": "symlink",
        "models": "directory",
        "run.sh": "file",
    }
    assert entries["run.sh"]["mode"] == "0755" and entries["latest"]["target"] == "models/a.bin"
    assert (
        coral("ls") == "config.json\nlatest\nmodels\nrun.sh\n" and coral("ls", "-z", "main:models") == "a.bin\0deep\0"
    )
    deep = coral.json("ls", "-r", "main:models")["entries"]
    assert [e["path"] for e in deep] == ["a.bin", "deep/b.bin"]
    assert deep[0]["id"] == hashlib.sha256(bytes([2]) * 100_000).hexdigest() and deep[0]["size"] == 100_000
    assert [e["path"] for e in coral.json("ls", "main:models/a.bin")["entries"]] == ["a.bin"]
    assert re.search(r"^-rwxr-xr-x [0-9a-f]{12} +10 .* run\.sh$", coral("ls", "-l"), re.MULTILINE)
    assert (
        coral.run("-C", coral.repo, "cat", "main~2:models/deep/b.bin", ":config.json").stdout
        == b"b" * 10 + b'{"seed": 2}'
    )
    assert "directory" in coral.error("cat", "main:models") and "symlink" in coral.error("cat", "main:latest")
    coral.run("-C", coral.repo, "cat", "main", expect=USAGE)


def test_tensors_and_storage(repo: Coral) -> None:
    weights = os.urandom(64 * 1024)
    file = repo.place / "model.safetensors"
    file.write_bytes(
        safetensors(
            {"w": ("F32", [128, 128], weights), "b": ("BF16", [4], b"12345678"), "scalar": ("I64", [], b"8" * 8)}
        )
    )
    repo("add", file)
    repo("commit", "-q", "-m", "one")
    shown = repo.json("show", "main:model.safetensors")
    assert (shown["kind"], shown["size"], shown["parser"]) == ("file", file.stat().st_size, "safetensors")
    assert shown["id"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [(t["name"], t["dtype"], t["shape"], t["bytes"]) for t in shown["tensors"]] == [
        ("w", "F32", [128, 128], 65536),
        ("b", "BF16", [4], 8),
        ("scalar", "I64", [], 8),
    ]
    text = repo("show", "main:model.safetensors")
    assert "[128, 128]" in text and shown["id"] in text
    storage = repo.json("show", "--storage", "main:model.safetensors")
    parts = {p["name"]: p for p in storage["parts"]}
    assert (
        parts["w"]["bytes"] == 65536 and parts["w"]["segments"][0]["bytes"] == 65536 and parts["b"]["inline_bytes"] == 8
    )
    assert parts["w"]["bits_per_weight"] > 30 and sum(parts["w"]["chunks"].values()) == 2, "32 KiB each"
    assert sum(p["bytes"] for p in storage["parts"]) == file.stat().st_size
    assert repo.json("show", "--storage", "model.safetensors") == storage, "a path alone is the branch's"
    assert "BITS/WEIGHT" in repo("show", "--storage", "main:model.safetensors")


def test_export(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    out = coral.place / "out"
    assert "5 files" in coral("export", "main", out)
    assert tree_of(out) == tree_of(coral.place / "source")
    # run.sh is in all three with other times: a touch is no change, the first one stands.
    for name in ("config.json", "models/deep/b.bin"):
        assert (out / name).stat().st_mtime_ns == (coral.place / "source" / name).stat().st_mtime_ns
    before = tree_of(out)
    coral.error("export", "main~1", out)
    assert tree_of(out) == before
    (out / "extra").write_bytes(b"extra")
    coral("export", "-q", "--force", "main~1", out)
    assert json.loads((out / "config.json").read_text()) == {"seed": 1} and (out / "extra").exists()
    coral("export", "main~2:config.json", coral.place / "one.json")
    assert json.loads((coral.place / "one.json").read_text()) == {"seed": 0}
    coral.error("export", "main:config.json", coral.place / "one.json")
    coral("export", "main:config.json", coral.place / "home")
    assert json.loads((coral.place / "home" / "config.json").read_text()) == {"seed": 2}
    coral.error("export", "main", coral.place / "no" / "parent")
    (coral.place / "empty").mkdir()
    coral("export", "main:models", coral.place / "empty")
    assert sorted(os.listdir(coral.place / "empty")) == ["a.bin", "deep"]


def test_export_never_writes_through_links(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    target = coral.place / "precious"
    target.mkdir()
    (target / "a.bin").write_bytes(b"precious")
    out = coral.place / "out"
    out.mkdir()
    (out / "models").symlink_to(target)
    assert "models" in coral.error("export", "--force", "main", out)
    assert (target / "a.bin").read_bytes() == b"precious" and os.listdir(target) == ["a.bin"]
    (out / "models").unlink()
    (out / "config.json").unlink(missing_ok=True)
    (out / "config.json").symlink_to(target / "a.bin")
    coral("export", "--force", "main", out)
    assert not (out / "config.json").is_symlink() and (target / "a.bin").read_bytes() == b"precious"
    assert not [n for n in os.listdir(out) if n.startswith(".coral-")]


# --- branches, tags, restore ----------------------------------------------------------------------------------------------


def test_branches(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    coral("branch", "exp/a")
    coral("branch", "old", "main~2")
    rows = {r["name"]: (r["commit"], r["current"]) for r in coral.json("branch")["branches"]}
    assert rows == {"exp/a": (ids[2], False), "main": (ids[2], True), "old": (ids[0], False)}
    assert coral("branch") == coral("branch", "-l") == "  exp/a\n* main\n  old\n"
    assert "commit 0" in coral("branch", "-v")
    (coral.place / "f").write_bytes(b"f")
    coral("add", "-b", "exp/a", coral.place / "f")
    assert coral.changes() == {} and coral.json("status", "-b", "exp/a")["changes"][0]["path"] == "f"
    assert "f" in coral.error("branch", "-d", "exp/a") and "-D" in coral.error("branch", "-d", "exp/a")
    coral("commit", "-b", "exp/a", "-q", "-m", "f")
    coral("branch", "-m", "old", "older/one")
    assert coral("rev-parse", "older/one").strip() == ids[0]
    coral("checkout", "older/one")
    coral("branch", "-m", "renamed")
    assert coral.json("status")["branch"] == "renamed", "HEAD goes with its branch"
    coral.error("branch", "-d", "renamed")
    coral("checkout", "main")
    tip = coral("rev-parse", "exp/a").strip()
    assert tip in coral("branch", "-d", "exp/a", "renamed")
    coral("add", "-b", "main", coral.place / "f")
    coral("branch", "back", tip)
    coral("add", "-q", "-b", "back", coral.place / "f", "--as", "g")
    coral("branch", "-D", "back")
    assert [r["name"] for r in coral.json("branch")["branches"]] == ["main"] and coral.changes() == {"f": "added"}


def test_unborn_branch(repo: Coral) -> None:
    for words in (["log"], ["rev-parse", "HEAD"], ["ls"], ["show"], ["tag", "v1"]):
        assert "no commit" in repo.error(*words, expect=NO)
    assert "no commits yet" in repo("status")
    repo("branch", "other")
    repo("checkout", "-b", "third")
    assert {r["name"]: r["commit"] for r in repo.json("branch")["branches"]} == {
        "main": None,
        "other": None,
        "third": None,
    }
    assert repo.json("stats")["commits"] == 0
    repo.run("-C", repo.repo, "commit", "-m", "x", expect=NO)


def test_tags(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    coral("tag", "v1")
    coral("tag", "-m", "released", "-m", "with care", "release/a", "main~1")
    rows = {r["name"]: r for r in coral.json("tag")["tags"]}
    assert {n: (r["commit"], r["annotated"]) for n, r in rows.items()} == {
        "v1": (ids[2], False),
        "release/a": (ids[1], True),
    }
    assert rows["release/a"]["message"] == "released\n\nwith care" and rows["release/a"]["tagger"]["name"] == "Tess Ter"
    assert coral("rev-parse", "release/a~1").strip() == ids[0] and coral("tag") == "release/a\nv1\n"
    coral("tag", "-f", "v1", "main~2")
    assert coral("rev-parse", "v1").strip() == ids[0]
    assert ids[0] in coral("tag", "-d", "v1") and coral("tag", "--list") == "release/a\n"


def test_checkout_moves_head_only(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    (coral.place / "f").write_bytes(b"f")
    coral("add", coral.place / "f")
    coral("checkout", "-b", "new", "main~1")
    assert coral.json("status")["branch"] == "new" and coral.changes() == {}
    coral("checkout", "main")
    assert coral.changes() == {"f": "added"}, "the branch kept its files"
    coral("tag", "v1", "main~2")
    assert "detached" in coral("checkout", "v1")
    assert coral("rev-parse", "HEAD").strip() == ids[0] and "detached" in coral("branch")
    assert not any(r["current"] for r in coral.json("branch")["branches"])
    coral.error("commit", "-m", "x")
    coral("checkout", "--detach", "main")
    assert coral("rev-parse", "HEAD").strip() == ids[2]
    assert coral.commits("-1")[0]["id"] == ids[2]


def test_restore(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    write_tree(coral.place / "source", 9)
    coral("add", f"{coral.place}/source/.")
    coral("add", coral.place / "source" / "run.sh", "--as", "extra")
    assert "1 file " in coral("restore", "config.json")
    assert set(coral.changes()) == {"models/a.bin", "models/deep/b.bin", "extra"}
    coral("restore", "--source", "main~2", "models/deep", "config.json")
    assert coral.changes()["config.json"] == "modified"
    coral("restore", "--all", "-q")
    assert set(coral.changes()) <= {"extra"}
    coral("restore", "--source=main~2", ".")
    coral("commit", "-q", "-m", "back to the first")
    trees = {row["id"]: row["tree"] for row in coral.commits()}
    assert trees[coral("rev-parse", "HEAD").strip()] == trees[ids[0]] or "extra" in coral("ls")


def test_the_depth_of_bases_is_a_setting(repo: Coral) -> None:
    rows = bytearray(os.urandom(256 * 1024))

    def depth_of_next(name: str) -> int:
        rows[:4096] = os.urandom(4096)
        file = repo.place / f"{name}.safetensors"
        file.write_bytes(safetensors({"w": ("I32", [256, 256], bytes(rows))}))
        repo("add", file)
        repo("commit", "-q", "-m", name)
        parts = repo.json("show", "--storage", f"{name}.safetensors")["parts"]
        return next(p["depth"] for p in parts if p["name"] == "w")

    assert [depth_of_next(f"a{i}") for i in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    repo("config", "store.max_depth", "1")
    assert depth_of_next("b") <= 1
    repo("config", "store.max_depth", "0")
    assert depth_of_next("c") == 0
