# SPDX-License-Identifier: Apache-2.0
"""From init to commit: what goes into a repository, and what is said about it."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from command_line import FATAL, NO, OK, Coral, tree_of, write_tree

# --- init, config ---------------------------------------------------------------------------------------------------------


def test_init(coral: Coral) -> None:
    deep = coral.place / "a" / "b" / "models.coral"
    assert str(deep) in coral.run("init", deep).stdout.decode()
    before = tree_of(deep)
    assert str(deep) in coral.run("init", deep, expect=FATAL).stderr.decode()
    assert tree_of(deep) == before
    (coral.place / "full").mkdir()
    (coral.place / "full" / "mine").write_bytes(b"mine")
    coral.run("init", "full", expect=FATAL)
    coral.run("init", "full/mine", expect=FATAL)
    coral.run("init", "", expect=FATAL)
    assert os.listdir(coral.place / "full") == ["mine"] and (coral.place / "full" / "mine").read_bytes() == b"mine"
    (coral.place / "here").mkdir()
    assert coral.run("init", "-q", "-b", "trunk", cwd=coral.place / "here").stdout == b""
    coral.repo = coral.place / "here"
    status = coral.json("status")
    assert (status["branch"], status["commit"], status["changes"]) == ("trunk", None, [])
    coral.run("init", "-b", "no good", "new", expect=FATAL)
    assert not (coral.place / "new").exists()


def test_config(repo: Coral) -> None:
    assert repo.run("-C", repo.repo, "config", "user.name", expect=NO).stdout == b""
    values = ["a value", 'Quo"ted \\ näme', "-dash", "", "true", "12", "[a, b]", "tab\there"]
    for value in values:
        repo("config", "--", "some.key", value)
        assert repo("config", "some.key") == value + "\n"
    repo("config", "--global", "some.key", "mine")
    repo("config", "--global", "other.key", "everywhere")
    assert repo("config", "some.key") == "tab\there\n" and repo("config", "--global", "some.key") == "mine\n"
    assert repo("config", "other.key") == "everywhere\n"
    listed = repo("config", "--list", "--show-origin")
    assert f"{repo.repo}/coral.toml\tsome.key=tab\there\n" in listed
    assert f"{repo.place}/home/.config/coral/config.toml\tother.key=everywhere\n" in listed
    assert repo.json("config")["values"] == {"some.key": "tab\there", "other.key": "everywhere"}
    assert repo.json("config", "some.key")["value"] == "tab\there"
    repo("config", "--unset", "some.key")
    assert repo("config", "some.key") == "mine\n", "what was hidden shows again"
    repo.run("-C", repo.repo, "config", "--unset", "some.key", expect=NO)
    repo.error("config", "nosection", "x")
    # The user's own settings need no repository.
    assert repo.run("config", "--global", "user.name", "Nobody").stdout == b""
    assert repo.run("config", "user.name").stdout == b"Nobody\n"


# --- add, status, commit --------------------------------------------------------------------------------------------------


def test_add_takes_files_folders_and_links(repo: Coral) -> None:
    source = repo.place / "source"
    write_tree(source, 5)
    (source / "empty").mkdir(mode=0o700)
    said = repo("add", source, source / "config.json")
    assert "5 files" in said and "main" in said
    expected = {
        f"source/{p}" for p in ("models/a.bin", "models/deep/b.bin", "config.json", "run.sh", "latest", "empty")
    }
    assert set(repo.changes()) == expected | {"config.json"} and set(repo.changes().values()) == {"added"}
    repo("add", "-q", f"{source}/models/", "--as", "x/y")
    repo("add", f"{source}/.", "--as", "dot")
    repo("add", source / "run.sh", "--as", "./tool")
    assert {"x/y/a.bin", "dot/config.json", "tool"} <= set(repo.changes())
    repo("commit", "-q", "-m", "all")
    repo.run("-C", repo.repo, "export", "main:source", repo.place / "out")
    assert tree_of(repo.place / "out") == tree_of(source)
    for name in ("config.json", "models/deep/b.bin"):
        assert (repo.place / "out" / name).stat().st_mtime_ns == (source / name).stat().st_mtime_ns
    # Relative to where -C leads, as in git.
    repo.run(
        "-C",
        repo.place,
        "-C",
        "source",
        "add",
        "config.json",
        "--as",
        "rel",
        env={"CORAL_DIR": str(repo.repo)},
        expect=FATAL,
    )
    repo.run("add", "config.json", "--as", "rel", cwd=source, env={"CORAL_DIR": str(repo.repo)})
    assert repo.changes() == {"rel": "added"}


def test_add_all_or_nothing(repo: Coral) -> None:
    source = repo.place / "source"
    write_tree(source, 1)
    assert "missing" in repo.error("add", source, source / "missing", expect=NO)
    os.mkfifo(source / "fifo")
    assert "fifo" in repo.error("add", source)
    (source / "fifo").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "sock"))
        assert "sock" in repo.error("add", source)
    (source / "sock").unlink()
    assert "/dev/null" in repo.error("add", "/dev/null")
    (source / "other").mkdir()
    (source / "other" / "config.json").write_text("another")
    assert "config.json" in repo.error("add", source / "config.json", source / "other" / "config.json")
    for name in ("..", "../x", "a/../../x", ""):
        repo.error("add", source / "config.json", "--as", name)
    assert "outside" in repo.error("add", source / "config.json", "--as", "/etc/passwd")
    assert repo.changes() == {}
    repo.error("add", source, "--as", "x" * 256)
    assert repo.changes() == {} or "x" * 256 not in repo.changes()


def test_add_replaces_what_is_there(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    (coral.place / "new").write_bytes(b"new")
    coral("add", coral.place / "new", "--as", "config.json")
    coral("add", coral.place / "new", "--as", "latest")
    assert coral.changes() == {"config.json": "modified", "latest": "type"}
    coral.error("add", coral.place / "new", "--as", "models")
    coral.error("add", coral.place / "new", "--as", "run.sh/x")
    coral("add", "-b", "main", coral.place / "source" / "config.json")
    assert coral.changes() == {"latest": "type"}, "back to what was committed is no change"


def test_add_follows_links_when_told(repo: Coral) -> None:
    hub = repo.place / "hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots").mkdir()
    (hub / "blobs" / "0123").write_bytes(b"weights")
    (hub / "snapshots" / "model.bin").symlink_to("../blobs/0123")
    repo("add", "-L", hub / "snapshots", "--as", "m")
    repo("commit", "-q", "-m", "x")
    assert repo("cat", "main:m/model.bin") == "weights"
    (hub / "snapshots" / "loop").symlink_to("../snapshots")
    assert "loop" in repo.error("add", "-L", hub / "snapshots")
    (hub / "snapshots" / "loop").unlink()
    (hub / "snapshots" / "gone").symlink_to("nowhere")
    assert "gone" in repo.error("add", "-L", hub / "snapshots", expect=NO)
    repo("add", hub / "snapshots", "--as", "links")
    assert {"links/gone", "links/model.bin"} == set(repo.changes())


def test_add_leaves_the_repository_out(repo: Coral) -> None:
    (repo.place / "file").write_bytes(b"x")
    done = repo.run("-C", repo.repo, "add", f"{repo.place}/.")
    assert b"models.coral" in done.stderr and b"warning" in done.stderr
    assert "file" in repo.changes() and not any(p.startswith("models.coral") for p in repo.changes())


def test_add_while_a_file_changes(repo: Coral) -> None:
    growing = repo.place / "growing"
    growing.write_bytes(b"x" * (8 << 20))
    script = f"import time\nf = open({str(growing)!r}, 'ab', 0)\nend = time.time() + 20\nwhile time.time() < end: f.write(b'more')"
    writer = subprocess.Popen(["python3", "-c", script])
    try:
        size = growing.stat().st_size
        while growing.stat().st_size == size:
            time.sleep(0.01)
        said = repo.error("add", growing)
    finally:
        writer.kill()
        writer.wait()
    assert "growing" in said and "changed" in said
    assert repo.changes() == {}
    repo("add", growing)
    repo("commit", "-q", "-m", "at rest")
    assert repo.run("-C", repo.repo, "cat", "main:growing").stdout == growing.read_bytes()


def test_status_forms(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    assert "Nothing to commit" in coral("status") and coral("status", "-s") == ""
    (coral.place / "n").write_bytes(b"new")
    coral("add", coral.place / "n", "--as", "new/file")
    coral("add", coral.place / "n", "--as", "config.json")
    text = coral("status")
    assert re.search(r"added: +new/file", text) and re.search(r"modified: +config.json", text)
    assert coral("status", "-s") == coral("status", "--porcelain") == "M  config.json\nA  new/file\n"
    assert coral("status", "-z") == "M  config.json\0A  new/file\0"
    document = coral.json("status")
    assert (document["branch"], document["commit"]) == ("main", ids[2])
    row = document["changes"][0]
    assert (row["path"], row["change"], row["incomplete"], row["directory"]) == (
        "config.json",
        "modified",
        False,
        False,
    )
    assert row["new_id"] == hashlib.sha256(b"new").hexdigest() and (row["old_size"], row["new_size"]) == (11, 3)
    coral("checkout", "--detach", "main")
    assert "-b" in coral.error("status")
    assert coral.json("status", "-b", "main")["changes"] == document["changes"]


def test_commit_says_what_it_did(repo: Coral) -> None:
    write_tree(repo.place / "source", 0)
    repo("add", f"{repo.place}/source/.")
    said = repo("commit", "-m", "first line", "-m", "second paragraph")
    head = repo("rev-parse", "HEAD").strip()
    assert re.search(r"^\[main \(first commit\) ([0-9a-f]{7,})\] first line$", said, re.MULTILINE)
    assert "5 files changed (5 added)" in said
    assert repo.commits()[0]["message"] == "first line\n\nsecond paragraph" and repo.commits()[0]["id"] == head
    for words in (["-m", "again"], ["-q", "-m", "again"], ["-m", "x", "config.json"], ["-m", "x", "."]):
        done = repo.run("-C", repo.repo, "commit", *words, expect=NO)
        assert b"nothing to commit" in done.stdout + done.stderr
    repo.error("commit", "-m", "")
    repo.error("commit", "-m", " \n ")
    assert "-m" in repo.error("commit")
    assert len(repo.commits()) == 1


def test_commit_of_paths(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    write_tree(coral.place / "source", 7)
    coral("add", f"{coral.place}/source/.")
    assert set(coral.changes()) == {"config.json", "models/a.bin", "models/deep/b.bin"}
    coral("commit", "-m", "deep only", "./models//deep/")
    assert set(coral.changes()) == {"config.json", "models/a.bin"}
    assert [row["path"] for row in coral.json("show")["changes"]] == ["models/deep/b.bin"]
    coral("commit", "-m", "models", "models")
    assert set(coral.changes()) == {"config.json"}
    coral.error("commit", "-m", "x", "../x")
    coral.error("commit", "-m", "x", "/etc")
    coral.error("commit", "-m", "x", "")


def test_messages_authors_and_metrics(repo: Coral) -> None:
    file = repo.place / "file"

    def commit(*words: str | Path, **options: Any) -> dict[str, Any]:
        file.write_bytes(os.urandom(8))
        repo("add", "-q", file)
        repo("commit", "-q", *words, **options)
        return repo.commits("-1")[0]

    assert commit("-F", "-", stdin=b"from stdin  \n\n\n\nbody\n# kept\n")["message"] == "from stdin\n\nbody\n# kept"
    (repo.place / "message").write_text("Größe \N{SNOWMAN}\n")
    assert commit("-F", repo.place / "message")["message"] == "Größe \N{SNOWMAN}"
    assert commit("-m", "-m")["message"] == "-m"
    assert commit("--message=--json")["message"] == "--json"
    assert commit("-mshort")["message"] == "short"
    row = commit(
        "-m",
        "x",
        "--author",
        "Ada <ada@example.org>",
        "--meta",
        "loss=1.5",
        "--meta",
        "note=a=b",
        "--meta",
        "loss=1.25",
    )
    assert (row["author"]["name"], row["author"]["email"]) == ("Ada", "ada@example.org")
    assert row["committer"]["name"] == "Tess Ter" and row["meta"] == {"loss": "1.25", "note": "a=b"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["author"]["time"])
    shown = repo("show")
    assert "Ada <ada@example.org>" in shown and "loss = 1.25" in shown
    file.write_bytes(b"last")
    repo("add", "-q", file)
    for wrong in (["--author", "Ada"], ["--author", "<x@y>"], ["--meta", "nothing"], ["--meta", "=x"]):
        repo.error("commit", "-m", "x", *wrong)
    repo.run("-C", repo.repo, "commit", "-F", "nosuchfile", expect=NO)
    assert len(repo.commits()) == 6


def on_terminal(coral: Coral, *words: str, env: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Runs a command with a terminal for all three streams: its exit code, and what was seen."""
    master, slave = pty.openpty()
    command = [str(coral.program), "-C", str(coral.repo), *words]
    environment = {**coral.env, "TERM": "xterm", **(env or {})}
    running = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    seen = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.1)[0]:
            if running.poll() is not None:
                break
            continue
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(master)
    return running.wait(10), seen


def test_editor(repo: Coral) -> None:
    file = repo.place / "file"
    file.write_bytes(b"x")
    editor = repo.place / "my editor"
    editor.write_text('#!/bin/sh\nexec >> "$0.log"\ncat "$1"\nprintf \'edited\\n\\nbody\\n# comment\\n\' > "$1"\n')
    editor.chmod(0o755)
    quoted = f"'{editor}'"
    assert on_terminal(repo, "commit", env={"EDITOR": quoted})[0] == NO, "no editor for nothing"
    assert not Path(f"{editor}.log").exists()
    repo("add", file)
    assert on_terminal(repo, "commit", env={"EDITOR": "false"})[0] == FATAL
    assert on_terminal(repo, "commit", env={"EDITOR": "true"})[0] == FATAL, "an empty message commits nothing"
    code, seen = on_terminal(repo, "commit", env={"EDITOR": "false", "VISUAL": "false", "CORAL_EDITOR": quoted})
    assert code == OK, seen
    assert repo.commits()[0]["message"] == "edited\n\nbody"
    template = Path(f"{editor}.log").read_text()
    assert "# On branch main" in template and "A file" in template
    assert not [n for n in os.listdir(repo.repo / "run") if "EDITMSG" in n]


def test_progress_bar_only_on_a_terminal(repo: Coral) -> None:
    big = repo.place / "big"
    big.write_bytes(os.urandom(48 << 20))
    assert repo.run("-C", repo.repo, "add", big).stderr == b""
    big.write_bytes(os.urandom(48 << 20))
    code, seen = on_terminal(repo, "add", str(big))
    assert code == OK and (b"%" not in seen or b"MiB" in seen)
    code, seen = on_terminal(repo, "add", str(big), env={"TERM": "dumb"})
    assert code == OK and b"\x1b[K" not in seen
