# SPDX-License-Identifier: Apache-2.0
"""Branches, tags, HEAD and at/: changed by the command line, seen at once through the mount."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from driver import FATAL, NO, USAGE, Repo, assert_same_tree, changes, errno_of, opened


def test_branches_are_seen_at_once(three: tuple[Repo, list[str]]) -> None:
    """Made, moved and deleted by the command, another process: the mount shows it in the very next call."""
    repo, commits = three
    assert errno_of(os.stat, repo.branch("exp")) == 2
    repo.run("branch", "exp")
    assert_same_tree(repo.branch("exp"), repo.commit_dir(commits[2]))
    repo.run("branch", "old", "main~2")
    assert_same_tree(repo.branch("old"), repo.commit_dir(commits[0]))
    assert set(os.listdir(repo.mnt / "branches")) == {"exp", "main", "old"}
    assert repo.branches() == {"main": commits[2], "exp": commits[2], "old": commits[0]}
    assert repo.current_branch() == "main"
    (repo.branch("exp") / "config.json").write_text("on exp")
    assert (repo.main / "config.json").read_text() != "on exp"
    assert repo.coral.json("status", cwd=repo.branch("exp"))["branch"] == "exp"
    found = repo.commit("on exp", branch="exp")
    assert repo.rev_parse("exp") == found and repo.rev_parse("main") == commits[2]
    repo.run("branch", "-m", "old", "renamed")
    assert set(os.listdir(repo.mnt / "branches")) == {"exp", "main", "renamed"}
    assert errno_of(os.stat, repo.branch("old")) == 2
    assert_same_tree(repo.branch("renamed"), repo.commit_dir(commits[0]))
    repo.run("branch", "-d", "renamed")
    assert errno_of(os.stat, repo.branch("renamed")) == 2
    assert set(os.listdir(repo.mnt / "branches")) == {"exp", "main"}
    repo.run("branch", "exp", expect=FATAL)
    repo.run("branch", "-d", "main", expect=FATAL)


def test_renaming_the_only_branch(mounted: Repo) -> None:
    """A daemon that has let go of all that it serves must still hear of the new name: nothing here waits."""
    repo = mounted
    (repo.main / "file").write_bytes(b"one")
    first = repo.commit("one")
    (repo.main / "later").write_bytes(b"not committed")
    with opened(repo.main, os.O_PATH) as here:  # as a shell stands there
        repo.run("branch", "-m", "main", "new/name")
        assert os.listdir(repo.mnt / "branches") == ["new"] and os.listdir(repo.mnt / "branches/new") == ["name"]
        assert errno_of(os.stat, repo.main) == 2
        assert os.readlink(repo.mnt / "HEAD") == "branches/new/name"
        folder = repo.branch("new/name")
        assert os.getxattr(folder, "user.coral.branch") == b"new/name"
        (folder / "more").write_bytes(b"by its new name")
        with opened(f"/proc/self/fd/{here}/standing", os.O_CREAT | os.O_WRONLY) as file:
            os.write(file, b"by who stood there")
    expected = {"later": "added", "more": "added", "standing": "added"}
    assert changes(repo.coral.json("status", cwd=folder)["changes"]) == expected
    second = repo.commit("two", branch="new/name")
    assert repo.branches() == {"new/name": second} and repo.current_branch() == "new/name"
    assert repo.log()[0]["parents"] == [first]
    assert b"main" not in repo.run("branch").stdout
    repo.run("branch", "-m", "main")  # of the current branch, and back: nothing of the old name is in the way
    assert (repo.main / "standing").read_bytes() == b"by who stood there"
    repo.kill()
    repo.heal()
    assert repo.branches() == {"main": second} and repo.status() == {}
    assert len(list((repo.path / "run").glob("*.owner"))) == 1


def test_renaming_where_one_stands(mounted: Repo) -> None:
    """The shell's directory gets its new path; one that has none any more is named as the cause."""
    repo, coral = mounted, mounted.coral.bin / "coral"

    def shell(script: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", "-c", script], cwd=repo.main, env=repo.coral.environment, capture_output=True, check=False
        )

    (repo.main / "file").write_bytes(b"x")
    done = shell(f"mkdir d && cd d && rmdir ../d && {coral} status")
    assert done.returncode == FATAL and b"directory" in done.stderr and b"`cd`" in done.stderr, done.stderr
    done = shell(f"{coral} branch -m renamed && {coral} commit -q -m one && /bin/pwd -P && echo x > more")
    assert done.returncode == 0 and done.stdout.strip() == os.fsencode(repo.branch("renamed")), done
    assert repo.branches() == {"renamed": repo.rev_parse("renamed")} and repo.status() == {"more": "added"}


def test_renaming_is_refused_while_files_are_open(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    with opened(repo.main / "config.json", os.O_RDONLY):
        assert b"open" in repo.run("branch", "-m", "main", "new", expect=FATAL).stderr
        assert repo.branches() == {"main": commits[2]}
    (repo.main / "config.json").write_text("still writable")


def test_renaming_without_a_mount(repo: Repo, source: Path) -> None:
    (source / "file").write_bytes(b"one")
    repo.run("add", source / "file")
    repo.run("branch", "-m", "main", "unborn")
    repo.run("commit", "-m", "one")
    assert repo.branches() == {"unborn": repo.rev_parse("HEAD")}
    repo.run("branch", "-m", "named")
    repo.mount()
    assert (repo.branch("named") / "file").read_bytes() == b"one"
    (repo.branch("named") / "file").write_bytes(b"two")
    repo.commit("two", branch="named")
    repo.umount()
    assert repo.branches() == {"named": repo.rev_parse("named")} and len(repo.log()) == 2


def test_a_deleted_branch_leaves_no_files(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    before = sorted(p.name for p in (repo.path / "run").iterdir())
    for remove in (lambda: repo.run("branch", "-d", "exp"), lambda: os.rmdir(repo.branch("exp"))):
        repo.run("branch", "exp")
        assert len(os.listdir(repo.branch("exp"))) > 0  # the daemon owns it, and says so
        remove()
        assert sorted(p.name for p in (repo.path / "run").iterdir()) == before
        assert len(list((repo.path / "staging").iterdir())) == 1


def test_deleting_a_branch_keeps_what_is_not_committed(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    repo.run("branch", "exp")
    (repo.branch("exp") / "precious").write_bytes(b"not committed")
    repo.run("branch", "-d", "exp", expect=(NO, FATAL))
    assert (repo.branch("exp") / "precious").read_bytes() == b"not committed"
    repo.run("branch", "-D", "exp")
    assert set(repo.branches()) == {"main"}


@pytest.mark.parametrize("name", ["exp/lr-0.001", "a/b/c/d", "ünïcode", "with.dot", "x" * 100])
def test_branch_names(three: tuple[Repo, list[str]], name: str) -> None:
    repo, commits = three
    repo.run("branch", name)
    folder = repo.branch(name)
    (folder / "file").write_bytes(name.encode())
    commit = repo.commit("on it", branch=name)
    repo.remount()
    assert (folder / "file").read_bytes() == name.encode()
    assert (repo.mnt / "at" / name / "file").read_bytes() == name.encode()
    assert repo.branches() == {"main": commits[2], name: commit}
    top = name.partition("/")[0]
    assert set(os.listdir(repo.mnt / "branches")) == {"main", top}
    if "/" in name:
        assert errno_of(os.open, repo.mnt / "branches" / top / "stray", os.O_CREAT | os.O_WRONLY) in (1, 30)
        repo.run("branch", top, expect=FATAL)  # a folder of branches is no branch
        repo.run("branch", f"{name}/below", expect=FATAL)  # and a branch no folder


def test_bad_branch_names(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    for name in (
        "",
        "a..b",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        ".hidden",
        "x.lock",
        "@",
        "a@{1}",
        "-x",
        "a\\b",
        "HEAD",
    ):
        repo.run("branch", name, expect=(FATAL, USAGE))
        repo.run("tag", name, expect=(FATAL, USAGE))
    assert set(repo.branches()) == {"main"} and repo.tags() == {}


def test_mkdir_and_rmdir_in_branches(three: tuple[Repo, list[str]]) -> None:
    """They do what they say or refuse with a clear errno (docs/semantics.md says which)."""
    repo, commits = three
    refused = (1, 30, 95)
    code = errno_of(os.mkdir, repo.branch("made"))
    if code == 0:
        assert "made" in repo.branches()
        (repo.branch("made") / "file").write_bytes(b"x")
        assert errno_of(os.rmdir, repo.branch("made")) != 0, "uncommitted work must not vanish"
    else:
        assert code in refused and set(repo.branches()) == {"main"}
    repo.run("branch", "exp")
    code = errno_of(os.rmdir, repo.branch("exp"))
    if code == 0:
        assert "exp" not in repo.branches()
    else:
        assert code in (*refused, 39) and "exp" in repo.branches()
    assert errno_of(os.rmdir, repo.main) != 0 and repo.branches()["main"] == commits[2]
    assert errno_of(os.rename, repo.main, repo.branch("renamed")) in refused or "renamed" in repo.branches()


def test_tags(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    repo.run("tag", "v1.0")
    repo.run("tag", "v0.1", "main~2")
    repo.run("tag", "-m", "released", "release/2026/a", "main~1")
    assert repo.tags() == {"v1.0": commits[2], "v0.1": commits[0], "release/2026/a": commits[1]}
    assert os.readlink(repo.tag_dir("v1.0")) == f"../commits/{commits[2]}"
    assert os.readlink(repo.tag_dir("release/2026/a")) == f"../../../commits/{commits[1]}"
    assert set(os.listdir(repo.mnt / "tags")) == {"v1.0", "v0.1", "release"}
    assert_same_tree(repo.tag_dir("release/2026/a"), repo.commit_dir(commits[1]))
    repo.run("tag", "v1.0", "main~1", expect=FATAL)
    assert repo.rev_parse("v1.0") == commits[2]
    repo.run("tag", "-d", "v0.1")
    assert errno_of(os.lstat, repo.tag_dir("v0.1")) == 2 and "v0.1" not in repo.tags()
    assert "v1.0" in repo.text("tag").split()


def test_checkout_moves_head_only(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    repo.run("branch", "exp/a", "main~1")
    (repo.main / "config.json").write_text("uncommitted")
    assert os.readlink(repo.mnt / "HEAD") == "branches/main"
    repo.run("checkout", "exp/a")
    assert os.readlink(repo.mnt / "HEAD") == "branches/exp/a" and repo.current_branch() == "exp/a"
    assert (repo.main / "config.json").read_text() == "uncommitted"
    assert_same_tree(repo.mnt / "HEAD", repo.commit_dir(commits[1]))
    assert repo.json("status")["branch"] == "exp/a"
    repo.run("checkout", commits[0])
    assert os.readlink(repo.mnt / "HEAD") == f"commits/{commits[0]}" and repo.current_branch() is None
    assert repo.rev_parse("HEAD") == commits[0]
    repo.run("commit", "-m", "x", expect=(NO, FATAL))
    repo.run("checkout", "-b", "new", "main~1")
    assert os.readlink(repo.mnt / "HEAD") == "branches/new" and repo.rev_parse("new") == commits[1]
    repo.remount()
    assert os.readlink(repo.mnt / "HEAD") == "branches/new"
    assert (repo.main / "config.json").read_text() == "uncommitted"


def test_at(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    repo.run("branch", "exp/lr", "main~1")
    repo.run("tag", "v1", "main~2")
    at = repo.mnt / "at"
    assert os.listdir(at) == []
    names = {
        "main": 2,
        "main~1": 1,
        "main^": 1,
        "main~2": 0,
        "HEAD~1": 1,
        commits[1]: 1,
        commits[0][:10]: 0,
        "v1": 0,
        "exp/lr": 1,
        "exp/lr~1": 0,
    }
    for name, number in names.items():
        assert_same_tree(at / name, repo.commit_dir(commits[number]), name)
    for name in ("nosuch", "main~3", "main^2", "exp", "v1~1", "f" * 64, "..."):
        if name != "exp":
            assert errno_of(os.listdir, at / name) == 2, name
    # The name follows the branch; what was opened stays.
    with opened(at / "main" / "config.json", os.O_RDONLY) as held:
        (repo.main / "config.json").write_text("newer")
        repo.commit("newer")
        assert (at / "main" / "config.json").read_text() == "newer"
        assert os.read(held, 100) == json.dumps({"seed": 2}).encode()
    assert_same_tree(at / "main~1", repo.commit_dir(commits[2]))
    assert os.listdir(at) == []


def test_commits_directory(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    assert set(os.listdir(repo.mnt / "commits")) == set(commits)
    assert errno_of(os.listdir, repo.mnt / "commits" / ("0" * 64)) == 2
    assert errno_of(os.listdir, repo.mnt / "commits" / commits[0][:10]) == 2, "short ids belong to at/"
    assert errno_of(os.listdir, repo.mnt / "commits" / "main") == 2
