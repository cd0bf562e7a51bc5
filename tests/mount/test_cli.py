# SPDX-License-Identifier: Apache-2.0
"""The command line has git's habits: vocabulary, exit codes, where one stands, what goes to stdout."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from pathlib import Path

from driver import FATAL, NO, USAGE, Coral, Repo, opened, tree_sums
from small_files import write_tree

# --- exit codes and manners -------------------------------------------------------------------------------------------


def test_wrong_usage_is_129(repo: Repo) -> None:
    for arguments in (
        ["nosuchcommand"],
        ["commit", "--nosuchflag"],
        ["mount"],
        ["mount", repo.path],
        ["init", "a", "b", "c"],
        ["log", "-n", "many"],
        ["rev-parse"],
        ["cat"],
        ["--nosuchflag"],
    ):
        done = repo.coral.run(*arguments, cwd=repo.path, expect=USAGE)
        assert done.stdout == b"" and done.stderr, arguments


def test_outside_a_repository_is_128(coral: Coral, place: Path) -> None:
    for command in (["status"], ["log"], ["commit", "-m", "x"], ["branch"], ["stats"], ["fsck"], ["rev-parse", "HEAD"]):
        done = coral.run(*command, cwd=place, expect=FATAL)
        assert done.stdout == b"" and b"repository" in done.stderr, command
        coral.run("-C", place / "nowhere", *command, expect=FATAL)


def test_unknown_names_are_1(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    for command in (
        ["rev-parse", "nosuch"],
        ["rev-parse", "main~3"],
        ["rev-parse", "main^2"],
        ["rev-parse", "f" * 64 if commits[0][0] != "f" else "e" * 64],
        ["show", "nosuch"],
        ["log", "nosuch"],
        ["ls", "nosuch"],
        ["ls", "main:nosuch"],
        ["cat", "main:nosuch"],
        ["cat", "nosuch:config.json"],
        ["export", "nosuch", "/tmp/never-made"],
        ["checkout", "nosuch"],
        ["restore", "nosuch"],
        ["restore", "--source", "nosuch", "config.json"],
        ["branch", "-d", "nosuch"],
        ["branch", "new", "nosuch"],
        ["tag", "-d", "nosuch"],
        ["tag", "new", "nosuch"],
        ["commit", "-m", "x", "nosuch"],
    ):
        done = repo.run(*command, expect=NO)
        assert done.stdout == b"" and b"nosuch" in done.stderr or command[0] == "rev-parse", command
    assert not os.path.exists("/tmp/never-made")
    assert repo.branches() == {"main": commits[2]} and repo.tags() == {}


def test_init(coral: Coral, place: Path) -> None:
    coral.run("init", place / "deep" / "er" / "models.coral")
    made = place / "deep" / "er" / "models.coral"
    before = tree_sums(made)
    assert b"FORMAT" in before and b"state.db" in before
    coral.run("init", made, expect=FATAL)
    (place / "full").mkdir()
    (place / "full" / "file").write_bytes(b"mine")
    coral.run("init", place / "full", expect=FATAL)
    assert os.listdir(place / "full") == ["file"]
    assert coral.json("-C", made, "status")["commit"] is None
    assert {row["name"] for row in coral.json("-C", made, "branch")["branches"]} == {"main"}
    (place / "here").mkdir()
    coral.run("init", ".", cwd=place / "here")
    assert (place / "here" / "FORMAT").exists()


def test_version_and_help(coral: Coral, place: Path) -> None:
    assert re.match(r"coral \d+\.\d+\.\d+", coral.text("version"))
    assert coral.text("--version") == coral.text("version")
    overview = coral.text("--help")
    for command in (
        "init",
        "mount",
        "umount",
        "status",
        "commit",
        "log",
        "branch",
        "tag",
        "checkout",
        "export",
        "fsck",
    ):
        assert re.search(rf"\b{command}\b", overview), command
        said = coral.text(command, "--help")
        assert command in said and len(said.splitlines()) >= 3


def test_unborn_branch(repo: Repo) -> None:
    assert repo.json("status") | {"changes": []} == repo.json("status")
    assert repo.json("status")["commit"] is None and repo.json("status")["branch"] == "main"
    repo.run("rev-parse", "HEAD", expect=(NO, FATAL))
    repo.run("log", expect=(NO, FATAL))
    repo.run("tag", "v1", expect=(NO, FATAL))
    assert repo.tags() == {}
    repo.run("commit", "-m", "nothing", expect=NO)


def test_piped_output_has_no_colours(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    (repo.main / "config.json").write_text("changed")
    environment = {k: v for k, v in repo.coral.environment.items() if k != "NO_COLOR"}
    for command in (["log"], ["status"], ["show"], ["branch"], ["ls"], ["stats"]):
        done = repo.run(*command, env=environment)
        assert b"\x1b" not in done.stdout and done.stderr == b"", command
        assert done.stdout.endswith(b"\n")


def test_a_closed_pipe_is_quiet(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    program = repo.coral.bin / "coral"
    command = (
        f"{program} -C {repo.path} log | true; {program} -C {repo.path} cat main:models/a.bin | head -c 5 > /dev/null"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=repo.coral.environment, check=False)
    assert done.stderr == b""


# --- status and commit ------------------------------------------------------------------------------------------------


def test_status_names_each_change(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    assert repo.status() == {}
    (repo.main / "config.json").write_text("{}")
    (repo.main / "run.sh").chmod(0o644)
    (repo.main / "models" / "deep" / "b.bin").unlink()
    (repo.main / "models" / "deep").rmdir()
    (repo.main / "latest").unlink()
    (repo.main / "latest").write_text("a file now")
    (repo.main / "new").mkdir()
    (repo.main / "new" / "c.bin").write_bytes(b"c")
    found = repo.status()
    folders = {p: found.pop(p) for p in ("new", "models/deep") if p in found}
    assert found == {
        "config.json": "modified",
        "run.sh": "mode",
        "models/deep/b.bin": "deleted",
        "latest": "type",
        "new/c.bin": "added",
    }
    assert set(folders.items()) <= {("new", "added"), ("models/deep", "deleted")}
    status = repo.json("status")
    assert (status["branch"], status["commit"]) == ("main", commits[2])
    assert [row["path"] for row in status["changes"]] == sorted(row["path"] for row in status["changes"])
    plain = repo.text("status")
    assert all(name in plain for name in found), plain
    # From a folder inside the mount it is the same worktree.
    assert repo.coral.json("status", cwd=repo.main / "models") == status
    repo.commit("all of it")
    assert repo.status() == {}
    write_tree(repo.main, 9)
    (repo.main / "config.json").write_text("{}")
    assert "config.json" not in repo.status(), "changed back to what was committed"


def test_commit_with_nothing_changed(three: tuple[Repo, list[str]]) -> None:
    repo, commits = three
    done = repo.coral.run("commit", "-m", "again", cwd=repo.main, expect=NO)
    assert b"nothing to commit" in done.stdout + done.stderr
    repo.run("commit", "-m", "again", expect=NO)
    repo.run("commit", "-q", "-m", "again", expect=NO)
    os.utime(repo.main / "config.json")
    repo.run("commit", "-m", "a touch", expect=NO)
    assert repo.rev_parse("main") == commits[2] and len(repo.log()) == 3


def test_commit_needs_a_message(mounted: Repo) -> None:
    (mounted.main / "file").write_bytes(b"x")
    done = mounted.coral.run("commit", cwd=mounted.main, expect=(FATAL, USAGE))
    assert b"-m" in done.stderr
    mounted.run("commit", expect=(FATAL, USAGE))
    mounted.run("commit", "-m", "", expect=(FATAL, USAGE))
    mounted.run("commit", "-m", " \n ", expect=(FATAL, USAGE))
    assert mounted.status() == {"file": "added"} and mounted.branches() == {"main": None}


def test_commit_opens_the_editor_on_a_terminal(mounted: Repo, place: Path) -> None:
    (mounted.main / "file").write_bytes(b"x")
    editor = place / "editor"
    editor.write_text("#!/bin/sh\nprintf 'from the editor\\n\\nwith a body\\n# a comment\\n' > \"$1\"\n")
    editor.chmod(0o755)
    for number, (program, expected) in enumerate([("false", None), (str(editor), "from the editor\n\nwith a body")]):
        master, slave = pty.openpty()
        environment = {**mounted.coral.environment, "EDITOR": program, "TERM": "xterm"}
        environment.pop("VISUAL", None)
        command = [str(mounted.coral.bin / "coral"), "commit"]
        running = subprocess.Popen(command, cwd=mounted.main, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        assert (running.wait(60) == 0) == (expected is not None), number
        os.close(master)
        if expected:
            assert mounted.log()[0]["message"].strip() == expected
        else:
            assert mounted.branches() == {"main": None}, "an editor that fails commits nothing"


def test_commit_of_named_paths(three: tuple[Repo, list[str]]) -> None:
    repo, _ = three
    (repo.main / "config.json").write_text("changed")
    (repo.main / "models" / "a.bin").write_bytes(b"changed too")
    (repo.main / "models" / "deep" / "b.bin").write_bytes(b"and this")
    repo.coral.run("commit", "-m", "only deep", "deep", cwd=repo.main / "models")
    assert set(repo.status()) == {"config.json", "models/a.bin"}
    repo.run("commit", "-m", "only config", "config.json")
    assert set(repo.status()) == {"models/a.bin"}
    assert (repo.mnt / "at" / "main" / "models" / "a.bin").read_bytes() == bytes([2]) * 100_000
    assert (repo.main / "models" / "a.bin").read_bytes() == b"changed too"
    assert repo.json("show", "main")["changes"] == [
        row for row in repo.json("show", "main")["changes"] if row["path"] == "config.json"
    ]
    (repo.main / "config.json").unlink()
    repo.coral.run("commit", "-m", "a deletion by its name", "config.json", cwd=repo.main)
    assert "config.json" not in os.listdir(repo.mnt / "at" / "main")


def test_commit_and_open_files(mounted: Repo) -> None:
    (mounted.main / "done").write_bytes(b"done")
    with opened(mounted.main / "busy", os.O_CREAT | os.O_WRONLY) as descriptor:
        os.write(descriptor, b"not yet")
        began = time.monotonic()
        done = mounted.coral.run("commit", "-m", "all", cwd=mounted.main, expect=(NO, FATAL))
        assert b"busy" in done.stderr and time.monotonic() - began < 30
        assert mounted.branches() == {"main": None}
        commit = mounted.commit("what is whole", "--allow-open")
        assert os.listdir(mounted.commit_dir(commit)) == ["done"]
        waiting = subprocess.Popen(
            [str(mounted.coral.bin / "coral"), "commit", "--wait", "-m", "waited"],
            cwd=mounted.main,
            env=mounted.coral.environment,
        )
        time.sleep(3)
        assert waiting.poll() is None, "--wait waits for as long as it takes"
        os.write(descriptor, b", but now")
    assert waiting.wait(30) == 0
    assert (mounted.mnt / "at" / "main" / "busy").read_bytes() == b"not yet, but now"


def test_commit_right_after_close(mounted: Repo) -> None:
    """The kernel tells of a close only later: a commit in the next instruction must not call the file open."""
    for number in range(25):
        (mounted.main / "file").write_bytes(os.urandom(300_000))
        commit = mounted.commit(f"{number}")
        assert (mounted.commit_dir(commit) / "file").read_bytes() == (mounted.main / "file").read_bytes()


def test_commit_beside_a_saver(mounted: Repo) -> None:
    """With --allow-open a commit holds, of each file, one of its whole versions: the last that was taken in."""
    script = (
        "import os, sys\n"
        "for n in range(400):\n"
        "    for name in ('a', 'b'):\n"
        "        open('tmp-' + name, 'wb').write(b'%06d' % n * 2000)\n"
        "        os.rename('tmp-' + name, name)\n"
    )
    running = subprocess.Popen(["python3", "-c", script], cwd=mounted.main)
    commits = []
    while running.poll() is None and len(commits) < 6:
        time.sleep(0.3)
        done = mounted.coral.run("commit", "-m", "meanwhile", "--allow-open", cwd=mounted.main, expect=(0, NO))
        if done.returncode == 0:
            commits.append(mounted.rev_parse("main"))
    assert running.wait(120) == 0 and commits
    newest = {"a": -1, "b": -1}
    for commit in commits:
        for name in os.listdir(mounted.commit_dir(commit)):
            data = (mounted.commit_dir(commit) / name).read_bytes()
            assert len(data) == 12_000 and data == data[:6] * 2000, f"torn {name} in {commit}"
            if name in newest:
                assert int(data[:6]) >= newest[name], f"{name} in {commit} is older than in the commit before"
                newest[name] = int(data[:6])
    mounted.coral.run("commit", "-m", "at rest", cwd=mounted.main, expect=(0, NO))
    last = mounted.commit_dir(mounted.rev_parse("main"))
    assert [(last / name).read_bytes()[:6] for name in "ab"] == [b"000399"] * 2


def test_author(repo: Repo, source: Path) -> None:
    (source / "file").write_bytes(b"1")
    repo.run("add", source / "file")
    repo.run("commit", "-m", "from the environment")
    author = repo.log()[0]["author"]
    assert (author["name"], author["email"]) == ("Tess Ter", "tess@example.org")
    repo.run("config", "user.name", "Configured Name")
    repo.run("config", "user.email", "configured@example.org")
    (source / "file").write_bytes(b"2")
    repo.run("add", source / "file")
    environment = {k: v for k, v in repo.coral.environment.items() if not k.startswith("CORAL_AUTHOR")}
    repo.run("commit", "-m", "from the configuration", env=environment)
    author = repo.log()[0]["author"]
    assert (author["name"], author["email"]) == ("Configured Name", "configured@example.org")


def test_messages_of_all_kinds(repo: Repo, source: Path) -> None:
    messages = ["one line", "head\n\nbody\nmore", "Größe 7 — \N{SNOWMAN}", "-m", "x" * 50_000, "  indented"]
    for message in messages:
        (source / "file").write_text(message)
        repo.run("add", source / "file")
        repo.run("commit", "-m", message)
    assert [row["message"].strip() for row in repo.log()] == [m.strip() for m in reversed(messages)]
