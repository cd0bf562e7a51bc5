# SPDX-License-Identifier: Apache-2.0
"""Words, options, exit codes, colour and broken outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from command_line import COMMANDS, FATAL, NO, USAGE, Coral

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
