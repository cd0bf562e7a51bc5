# SPDX-License-Identifier: Apache-2.0
"""restore, add and config; and all of it without a mount."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from driver import FATAL, NO, Repo, assert_same_tree, opened, tree_sums
from small_files import write_tree


def test_restore(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    wanted = tree_sums(repo.main)
    (repo.main / "config.json").write_text("changed")
    (repo.main / "models" / "a.bin").unlink()
    (repo.main / "run.sh").chmod(0o600)
    (repo.main / "extra").write_bytes(b"extra")
    repo.run("restore", "config.json")
    assert json.loads((repo.main / "config.json").read_text()) == {"seed": 2}
    assert set(repo.status()) == {"models/a.bin", "run.sh", "extra"}
    repo.coral.run("restore", "a.bin", cwd=repo.main / "models")
    assert (repo.main / "models" / "a.bin").read_bytes() == bytes([2]) * 100_000
    with opened(repo.main / "models" / "a.bin", os.O_RDONLY) as held:
        repo.coral.run("restore", "--source", "main~2", "models", cwd=repo.main)
        assert os.pread(held, 10, 0) == bytes([2]) * 10, "what is open keeps its bytes"
        assert (repo.main / "models" / "a.bin").read_bytes() == bytes(100_000), (
            "the name shows the restored content at once"
        )
    assert (repo.main / "models" / "deep" / "b.bin").read_bytes() == b"b" * 10
    repo.coral.run("restore", "--source", "HEAD", ".", cwd=repo.main)
    found = tree_sums(repo.main)
    found.pop(b"extra", None)  # as git: what was never committed is not restore's to remove, unless it says so
    assert found == wanted and stat.S_IMODE((repo.main / "run.sh").stat().st_mode) == 0o755


def test_restore_of_what_a_directory_is(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    models = repo.main / "models"
    os.setxattr(models, "user.a", b"old")
    first = repo.commit("as it was")
    models.chmod(0o700)
    os.setxattr(models, "user.a", b"new")
    repo.commit("otherwise")
    assert stat.S_IMODE(models.stat().st_mode) == 0o700, "the kernel knows it"
    with opened(models, os.O_RDONLY | os.O_DIRECTORY) as here:
        assert b"Restored 1 " in repo.coral.run("restore", "--source", first, "models", cwd=repo.main).stdout
        assert stat.S_IMODE(models.stat().st_mode) == 0o755 and os.getxattr(models, "user.a") == b"old"
        assert os.readlink(f"/proc/self/fd/{here}") == str(models), "whoever stands in it does not fall out"
    assert set(repo.status()) == {"models"}
    repo.commit("back")
    assert repo.status() == {}


def test_restore_without_a_mount(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    repo.umount()
    repo.run("restore", "--source", commits[0], "config.json")
    assert repo.status() == {"config.json": "modified"}
    repo.mount()
    assert json.loads((repo.main / "config.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("with_mount", [False, True], ids=["no mount", "mounted"])
def test_add(repo: Repo, source: Path, with_mount: bool) -> None:
    write_tree(source, 5)
    if with_mount:
        repo.mount()
    repo.run("add", source / "config.json", source / "models")
    repo.run("add", source, "--as", "all/of it")
    repo.run("add", source / "run.sh", "--as", "tool")
    assert set(repo.status()) >= {"config.json", "models/a.bin", "models/deep/b.bin", "tool", "all/of it/latest"}
    done = repo.run("add", source / "config.json", source / "missing", expect=(NO, FATAL))
    assert b"missing" in done.stderr
    if with_mount:
        assert_same_tree(repo.main / "all" / "of it", source)  # seen at once
        (source / "config.json").write_text("second")
        repo.coral.run("add", source / "config.json", cwd=repo.main)
        assert (repo.main / "config.json").read_text() == "second"
    repo.run("commit", "-m", "added")
    assert repo.status() == {}
    if not with_mount:
        repo.mount()
    commit = repo.commit_dir(repo.rev_parse("main"))
    assert_same_tree(commit / "all" / "of it", source) if not with_mount else None
    assert_same_tree(commit / "models", source / "models")
    assert (commit / "tool").read_bytes() == b"#!/bin/sh\n" and (commit / "tool").stat().st_mode & 0o111
    assert os.readlink(commit / "all" / "of it" / "latest") == "models/a.bin"
    repo.umount()


def test_add_to_another_branch(three: tuple[Repo, list[str]], source: Path) -> None:
    repo, _ = three
    repo.run("branch", "exp/x")
    (source / "file").write_bytes(b"x")
    repo.run("add", "-b", "exp/x", source / "file")
    assert (repo.branch("exp/x") / "file").read_bytes() == b"x" and not (repo.main / "file").exists()
    repo.run("commit", "-b", "exp/x", "-m", "there")
    assert repo.json("show", "exp/x")["message"].strip() == "there"
    assert repo.status() == {}


def test_everything_without_a_mount(repo: Repo, source: Path, place: Path) -> None:
    write_tree(source, 1)
    repo.run("add", source, "--as", "run")
    repo.run("commit", "-m", "first")
    write_tree(source, 2)
    repo.run("add", source, "--as", "run")
    assert set(repo.status()) == {"run/config.json", "run/models/a.bin", "run/models/deep/b.bin"}
    repo.run("commit", "-m", "second")
    repo.run("tag", "v2")
    repo.run("branch", "exp", "main~1")
    repo.run("export", "v2", place / "out")
    assert_same_tree(place / "out" / "run", source)
    assert repo.run("cat", "exp:run/models/deep/b.bin").stdout == b"b" * 11
    assert len(repo.log()) == 2 and repo.stored_bytes() > 0
    repo.run("fsck", "--full")
    # Another current directory, and the repository found from inside it.
    assert repo.coral.text("rev-parse", "v2", cwd=repo.path) == repo.rev_parse("v2")
    assert not repo.coral.daemons()


def test_config(repo: Repo) -> None:
    assert repo.run("config", "some.key", expect=NO).stdout == b""
    repo.run("config", "some.key", "a value")
    assert repo.text("config", "some.key") == "a value"
    repo.run("config", "some.key", "another")
    assert repo.text("config", "some.key") == "another"
    repo.run("config", "--unset", "some.key")
    repo.run("config", "some.key", expect=NO)
    repo.run("config", "user.name", 'Quo"ted \\ näme')
    assert repo.text("config", "user.name") == 'Quo"ted \\ näme'


def test_reading_commands_speak_json(three: tuple[Repo, list[str]]) -> None:
    """One document each, which says what it is, without colours or progress."""
    repo, _ = three
    for command in ("status", "log", "branch", "tag", "show", "ls", "stats", "config", "fsck"):
        done = repo.run(command, "--json")
        assert json.loads(done.stdout)["schema"] == f"coral.{command}/1"
        assert b"\x1b" not in done.stdout and done.stderr == b""
