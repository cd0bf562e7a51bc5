# SPDX-License-Identifier: Apache-2.0
"""The program `coral` on a repository directory: no mount, no kernel module, nothing but Python and pytest.

Which programs: $CORAL_BIN (a folder), else build/dev/bin, else build/release/bin. What it does inside a mount is tested in
the folder above.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

OK, NO, FATAL, USAGE = 0, 1, 128, 129
ROOT = Path(__file__).resolve().parents[3]

COMMANDS = (
    "init mount umount add status commit restore log show ls cat export branch checkout tag rev-parse stats fsck reindex repack "
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


def write_tree(folder: Path, seed: int) -> None:
    (folder / "models" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "a.bin").write_bytes(bytes([seed]) * 100_000)
    (folder / "models" / "deep" / "b.bin").write_bytes(b"b" * (10 + seed))
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    if not (folder / "latest").is_symlink():
        (folder / "latest").symlink_to("models/a.bin")


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
