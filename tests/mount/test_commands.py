# SPDX-License-Identifier: Apache-2.0
"""The program `coral` on a repository directory: no mount, no kernel module, nothing but Python and pytest.

Which programs: $CORAL_BIN (a folder), else build/dev/bin, else build/release/bin. What it does inside a mount is tested in
tests/mount.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

OK, NO, FATAL, USAGE = 0, 1, 128, 129
ROOT = Path(__file__).resolve().parents[2]

COMMANDS = (
    "init mount umount add status commit restore log show ls cat export branch checkout tag rev-parse stats fsck reindex "
    "config help version"
).split()


def program() -> Path:
    named = os.environ.get("CORAL_BIN")
    for folder in [Path(named)] if named else [ROOT / "build/dev/bin", ROOT / "build/release/bin"]:
        if os.access(folder / "coral", os.X_OK):
            return folder / "coral"
    pytest.fail("no program `coral`: build it, or name its folder in CORAL_BIN", pytrace=False)


class Coral:
    def __init__(self, place: Path) -> None:
        self.program = program()
        self.place = place
        self.repo = place / "models.coral"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CORAL_", "XDG_"))}
        for name in ("NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "VISUAL", "EDITOR"):
            kept.pop(name, None)
        if "CORAL_LOG" in os.environ:
            kept["CORAL_LOG"] = os.environ["CORAL_LOG"]
        self.env = {
            **kept,
            "HOME": str(place / "home"),
            "XDG_RUNTIME_DIR": str(place / "home"),
            "CORAL_AUTHOR_NAME": "Tess Ter",
            "CORAL_AUTHOR_EMAIL": "tess@example.org",
            "TZ": "UTC",
        }
        (place / "home").mkdir()

    def run(
        self,
        *words: str | bytes | Path,
        expect: int = OK,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        command = [os.fsencode(self.program), *map(os.fsencode, words)]
        done = subprocess.run(
            command,
            cwd=cwd or self.place,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == expect, (
            f"{command}: exit {done.returncode}, expected {expect}\n{done.stdout[-2000:]!r}\n{done.stderr[-2000:]!r}"
        )
        if expect in (FATAL, USAGE):
            lines = done.stderr.decode(errors="replace").splitlines()
            assert lines and all(line.startswith("coral: ") for line in lines), done.stderr
            assert done.stdout == b"", "a failure prints no result"
        return done

    def __call__(self, *words: str | bytes | Path, **options: Any) -> str:
        """On the repository; what it prints."""
        return self.run("-C", self.repo, *words, **options).stdout.decode()

    def json(self, *words: str | bytes | Path, **options: Any) -> Any:
        document = json.loads(self.run("-C", self.repo, words[0], "--json", *words[1:], **options).stdout)
        command = os.fsdecode(words[0])
        assert document["schema"] == f"coral.{command}/1" and next(iter(document)) == "schema"
        return document

    def error(self, *words: str | bytes | Path, expect: int = FATAL, **options: Any) -> str:
        return self.run("-C", self.repo, *words, expect=expect, **options).stderr.decode(errors="surrogateescape")

    def changes(self, **options: Any) -> dict[str, str]:
        return {row["path"]: row["change"] for row in self.json("status", **options)["changes"]}

    def commits(self, *words: str) -> list[dict[str, Any]]:
        return self.json("log", *words)["commits"]


@pytest.fixture
def coral(tmp_path: Path) -> Coral:
    return Coral(tmp_path)


@pytest.fixture
def repo(coral: Coral) -> Coral:
    coral.run("init", coral.repo)
    return coral


def write_tree(folder: Path, seed: int) -> None:
    (folder / "models" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "a.bin").write_bytes(bytes([seed]) * 100_000)
    (folder / "models" / "deep" / "b.bin").write_bytes(b"b" * (10 + seed))
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    if not (folder / "latest").is_symlink():
        (folder / "latest").symlink_to("models/a.bin")


@pytest.fixture
def three(repo: Coral) -> tuple[Coral, list[str]]:
    """Three commits, oldest first; the working files are those of the last."""
    ids = []
    source = repo.place / "source"
    for seed in range(3):
        write_tree(source, seed)
        repo("add", f"{source}/.")
        repo("commit", "-q", "-m", f"commit {seed}")
        ids.append(repo("rev-parse", "HEAD").strip())
    return repo, ids


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, payload) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(payload)]}
        data += payload
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def tree_of(folder: Path) -> dict[bytes, tuple[str, bytes, int]]:
    found = {}
    top = os.fsencode(folder)
    for where, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            key = os.path.relpath(path, top)
            if stat.S_ISLNK(mode):
                found[key] = ("link", os.readlink(path), 0)
            elif stat.S_ISDIR(mode):
                found[key] = ("folder", b"", mode & 0o777)
            else:
                with open(path, "rb") as file:
                    found[key] = ("file", file.read(), mode & 0o777)
    return found


# --- words and codes ------------------------------------------------------------------------------------------------------


def test_overview_help_and_version(coral: Coral) -> None:
    overview = coral.run().stdout.decode()
    assert overview == coral.run("help").stdout.decode() == coral.run("--help").stdout.decode()
    for command in COMMANDS:
        assert re.search(rf"^    {command} ", overview, re.MULTILINE), command
        text = coral.run(command, "--help").stdout.decode()
        assert text == coral.run("help", command).stdout.decode() == coral.run(command, "-h").stdout.decode()
        assert f"usage: coral {command}" in text and max(map(len, text.splitlines())) <= 120, command
        assert "Examples:" in text or command == "version"
    assert "128" in coral.run("help", "exit-codes").stdout.decode()
    coral.run("help", "nosuch", expect=NO)
    version = coral.run("version").stdout.decode()
    assert re.fullmatch(r"coral \d+\.\d+\.\d+\S*\n", version)
    assert coral.run("--version").stdout.decode() == version
    assert json.loads(coral.run("version", "--json").stdout)["version"] in version


@pytest.mark.parametrize(
    "words",
    [
        ["nosuchcommand"],
        ["--nosuchoption"],
        ["-C"],
        ["--color=pink", "version"],
        ["commit", "--nosuchflag"],
        ["commit", "-m"],
        ["commit", "-m", "x", "-F", "y"],
        ["commit", "--wait", "--allow-open", "-m", "x"],
        ["commit", "--quiet=yes", "-m", "x"],
        ["mount"],
        ["mount", "one"],
        ["mount", "one", "two", "three"],
        ["umount"],
        ["init", "a", "b"],
        ["log", "-n", "many"],
        ["log", "-n", "-1"],
        ["log", "-5x"],
        ["rev-parse"],
        ["rev-parse", "--short=3", "HEAD"],
        ["cat"],
        ["export", "HEAD"],
        ["restore"],
        ["restore", "--all", "x"],
        ["checkout"],
        ["add"],
        ["add", "a", "b", "--as", "c"],
        ["branch", "-d"],
        ["branch", "a", "b", "c"],
        ["tag", "-d"],
        ["status", "operand"],
        ["config", "--unset"],
        ["show", "--storage"],
        ["checkout", "-b", "x", "--detach"],
        ["config", "--s", "--nosuch"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_129(repo: Coral, words: list[str]) -> None:
    repo.run(*words, cwd=repo.repo, expect=USAGE)


def test_did_you_mean(coral: Coral) -> None:
    for slip, meant in {
        "comit": "commit",
        "stauts": "status",
        "brnch": "branch",
        "chekout": "checkout",
        "re": "restore",
    }.items():
        assert meant in coral.run(slip, expect=USAGE).stderr.decode(), slip
    assert "did you mean" not in coral.run("zzzzzzzz", expect=USAGE).stderr.decode()


def test_long_options_may_be_shortened(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    assert coral("log", "--onel", "-1") == coral("log", "--oneline", "-n", "1") == coral("log", "--oneline", "-n1")
    # --author and --allow-open
    assert "ambiguous" in coral.error("commit", "--a", "x", expect=USAGE)


@pytest.mark.parametrize("command", ["status", "log", "branch", "tag", "show", "ls", "stats", "fsck", "reindex"])
def test_outside_a_repository_is_128(coral: Coral, command: str) -> None:
    (coral.place / "empty").mkdir()
    said = coral.run(command, cwd=coral.place / "empty", expect=FATAL).stderr.decode()
    assert "repository" in said and "coral init" in said
    assert "nowhere" in coral.run("-C", coral.place / "nowhere", command, expect=FATAL).stderr.decode()


def test_unknown_names_are_1(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    for words in (
        ["rev-parse", "nosuch"],
        ["rev-parse", "HEAD", "nosuch"],
        ["rev-parse", "main~3"],
        ["show", "nosuch"],
        ["show", "main:nosuch"],
        ["show", "--storage", "nosuch"],
        ["log", "nosuch"],
        ["log", "main..nosuch"],
        ["ls", "nosuch"],
        ["ls", "main:nosuch"],
        ["cat", "main:nosuch"],
        ["cat", "main:config.json", "main:nosuch"],
        ["cat", "main:config.json/nosuch"],
        ["export", "nosuch", "out"],
        ["export", "main:nosuch", "out"],
        ["checkout", "nosuch"],
        ["restore", "nosuch"],
        ["restore", "--source=nosuch", "config.json"],
        ["branch", "-d", "nosuch"],
        ["branch", "-m", "nosuch", "new"],
        ["branch", "new", "nosuch"],
        ["tag", "-d", "nosuch"],
        ["tag", "new", "nosuch"],
        ["commit", "-m", "x", "nosuch"],
        ["add", "nosuch"],
        ["add", "-b", "nosuch", str(coral.place / "source" / "config.json")],
        ["status", "-b", "nosuch"],
        ["commit", "-b", "nosuch", "-m", "x"],
    ):
        done = coral.run("-C", coral.repo, *words, expect=NO)
        assert done.stdout == b"" and done.stderr.startswith(b"coral: error: ") and done.stderr.count(b"\n") == 1, words
        assert b"nosuch" in done.stderr or b"main~3" in done.stderr, words
    assert not (coral.repo / "out").exists()
    assert [row["name"] for row in coral.json("branch")["branches"]] == ["main"] and coral("tag") == ""


def test_bad_names_and_names_that_exist_are_128(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    coral("branch", "exp/a")
    coral("tag", "v1")
    for words in (
        ["branch", "main"],
        ["branch", "exp"],
        ["branch", "exp/a/b"],
        ["branch", "-m", "exp/a", "main"],
        ["tag", "v1"],
        ["tag", "v1/x"],
        ["checkout", "-b", "main"],
        *(
            [kind, name]
            for kind in ("branch", "tag")
            for name in (
                "..",
                "a..b",
                "/a",
                "a/",
                "a//b",
                "a b",
                "a~1",
                "a^",
                "a:b",
                "HEAD",
                "@",
                "a\n",
                ".a",
                "a.lock",
                "",
            )
        ),
        ["branch", "--", "-x"],
    ):
        coral.error(*words)
    assert [row["name"] for row in coral.json("branch")["branches"]] == ["exp/a", "main"]
    assert coral("tag") == "v1\n"


def test_directory_options(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    head = ids[2] + "\n"
    inside = coral.repo / "packs"
    assert coral.run("rev-parse", "HEAD", cwd=inside).stdout.decode() == head, "found upward"
    assert coral.run("rev-parse", "HEAD", env={"CORAL_DIR": str(coral.repo)}).stdout.decode() == head
    assert coral.run("-C", "models.coral", "rev-parse", "HEAD").stdout.decode() == head
    assert coral.run("-C", coral.place, "-C", "models.coral", "rev-parse", "HEAD").stdout.decode() == head
    assert coral.run(f"-C{coral.repo}", "rev-parse", "HEAD").stdout.decode() == head
    other = coral.place / "other.coral"
    coral.run("init", other)
    # -C says where one stands; it beats the environment.
    assert coral.run("-C", other, "log", expect=NO, env={"CORAL_DIR": str(coral.repo)}).stdout == b""
    (coral.place / "link").symlink_to(coral.repo)
    assert coral.run("-C", "link", "rev-parse", "HEAD").stdout.decode() == head


def test_colour(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three

    def coloured(*words: str, **env: str) -> bool:
        return b"\x1b[" in coral.run("-C", coral.repo, *words, env=env).stdout

    assert not coloured("log")
    assert (
        coloured("--color=always", "log") and coloured("log", "--color=always") and coloured("--color", "always", "log")
    )
    assert coloured("log", FORCE_COLOR="1") and not coloured("log", FORCE_COLOR="1", NO_COLOR="1")
    assert not coloured("--color=never", "log", FORCE_COLOR="1")
    assert coloured("--color=always", "log", NO_COLOR="1"), "what is asked for beats the environment"
    assert not coloured("--color=always", "log", "--json")


def test_closed_and_full_outputs(three: tuple[Coral, list[str]]) -> None:
    coral, ids = three
    (coral.place / "big").write_bytes(os.urandom(3 << 20))
    coral("add", coral.place / "big")
    coral("commit", "-q", "-m", "big")
    for words in ("log", "cat main:big", "ls --json -r", "help"):
        command = f"{coral.program} -C {coral.repo} {words} | head -c 1 > /dev/null"
        done = subprocess.run(["bash", "-c", command], env=coral.env, capture_output=True, timeout=60)
        assert done.stderr == b"", words
        ignoring = ["bash", "-c", f"trap '' PIPE; {coral.program} -C {coral.repo} {words} | true"]
        assert subprocess.run(ignoring, env=coral.env, capture_output=True, timeout=60).stderr == b"", words
    for words in (["log"], ["cat", "main:big"], ["stats", "--json"], ["version"]):
        with open("/dev/full", "wb") as full:
            command = [str(coral.program), "-C", str(coral.repo), *words]
            done = subprocess.run(command, env=coral.env, stdout=full, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == FATAL and b"No space left" in done.stderr, words


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
    assert parts["w"]["bits_per_weight"] > 30 and sum(parts["w"]["chunks"].values()) == 1
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
