# SPDX-License-Identifier: Apache-2.0
"""log, rev-parse, show, ls, cat, export: what was committed, told in words and in JSON."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from driver import FATAL, NO, Repo, assert_same_tree, sha256sum
from small_files import TREE


def test_log(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    rows = repo.log()
    assert [row["id"] for row in rows] == commits[::-1]
    assert [row["parents"] for row in rows] == [[commits[1]], [commits[0]], []]
    assert [row["message"].strip() for row in rows] == ["commit 2", "commit 1", "commit 0"]
    assert [row["id"] for row in repo.log("-n", "1")] == commits[2:]
    assert [row["id"] for row in repo.log("main~1")] == commits[1::-1]
    plain = repo.text("log")
    assert all(c in plain or c[:8] in plain for c in commits) and "commit 1" in plain
    assert repo.coral.json("log", cwd=repo.main / "models")["commits"] == rows


def test_rev_parse(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    repo.run("tag", "v1", "main~1")
    repo.run("tag", "-m", "an annotated one", "v2", "main~2")
    expected = {
        "HEAD": 2,
        "main": 2,
        "HEAD~1": 1,
        "HEAD~": 1,
        "HEAD^": 1,
        "HEAD^1": 1,
        "main~2": 0,
        "main^^": 0,
        "main~1^": 0,
        "main~0": 2,
        "v1": 1,
        "v1~1": 0,
        "v2": 0,
        commits[1]: 1,
        commits[1][:12]: 1,
        commits[2][:8] + "~2": 0,
        commits[1].upper()[:16] if commits[1][:16].isdigit() else commits[1][:16]: 1,
    }
    for revision, number in expected.items():
        assert repo.rev_parse(revision) == commits[number], revision
    assert repo.coral.text("rev-parse", "HEAD", cwd=repo.main) == commits[2]
    repo.run("rev-parse", commits[0][:3], expect=(NO, FATAL))  # shorter than four digits is nothing
    repo.run("rev-parse", "main~99", expect=NO)


def test_show(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    shown = repo.json("show", "main~1")
    assert (shown["id"], shown["parents"], shown["message"].strip()) == (commits[1], [commits[0]], "commit 1")
    assert {r["path"]: r["change"] for r in shown["changes"]} == {
        "config.json": "modified",
        "models/a.bin": "modified",
        "models/deep/b.bin": "modified",
    }
    assert repo.json("show")["id"] == commits[2]
    first = {r["path"] for r in repo.json("show", "main~2")["changes"]}
    assert first >= TREE
    plain = repo.text("show", "main~1")
    assert commits[1] in plain and "models/a.bin" in plain and "Tess Ter" in plain


def test_ls_and_cat(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    rows = repo.ls("main~2")
    assert set(rows) >= TREE
    folder = repo.commit_dir(commits[0])
    for path in TREE - {"latest"}:
        row = rows[path]
        assert (row["type"], row["size"]) == ("file", (folder / path).stat().st_size), path
        assert row["id"] == sha256sum([folder / path])[0], "a file's id is what sha256sum prints"
        assert repo.run("cat", f"main~2:{path}").stdout == (folder / path).read_bytes()
    assert rows["latest"]["type"] == "symlink"
    assert set(repo.ls("main:models")) >= {"a.bin", "deep/b.bin"}
    top = {row["path"]: row["type"] for row in repo.json("ls", "main")["entries"]}
    assert top == {"models": "directory", "config.json": "file", "run.sh": "file", "latest": "symlink"}
    assert repo.text("ls", "main").split() == sorted(top) or set(repo.text("ls", "main").split()) >= set(top)
    repo.run("cat", "main:models", expect=(NO, FATAL))


def test_export(three: tuple[Repo, list[str]], place: Path) -> None:
    repo, commits = three
    for number, revision in ((0, "main~2"), (2, "main"), (1, commits[1][:10])):
        target = place / f"out-{number}"
        repo.run("export", revision, target)
        assert_same_tree(target, repo.commit_dir(commits[number]))
        assert (
            stat.S_IMODE((target / "run.sh").stat().st_mode) & 0o111
            and os.readlink(target / "latest") == "models/a.bin"
        )
        there, here = (repo.commit_dir(commits[number]) / "config.json").stat(), (target / "config.json").stat()
        assert here.st_mtime_ns == there.st_mtime_ns
    repo.run("export", "main:models", place / "part")
    assert_same_tree(place / "part", repo.commit_dir(commits[2]) / "models")
    repo.run("export", "main:config.json", place / "one.json")
    assert (place / "one.json").read_bytes() == (repo.main / "config.json").read_bytes()
    repo.run("export", "main", place / "part", expect=FATAL)
    assert_same_tree(place / "part", repo.commit_dir(commits[2]) / "models")
