# SPDX-License-Identifier: Apache-2.0
"""A repository that an earlier version wrote, crash included, is read to the byte, and goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import golden
from driver import FATAL, Coral, Repo
from tensors import differ


@pytest.fixture
def old(coral: Coral, place: Path) -> Iterator[Repo]:
    repo = Repo(coral, place)
    shutil.rmtree(repo.path)
    golden.clone_golden(repo.path)
    yield repo
    repo.clean_up()


def test_everything_is_read(old: Repo) -> None:
    wanted = json.loads(golden.MANIFEST.read_text())
    old.mount()
    assert golden.describe_repository(old) == wanted
    assert wanted["worktrees"]["main"]["half.bin"]["size"] == 5000, "what fsync promised before the crash"
    state = torch.load(old.tag_dir("v1") / "model.pth", weights_only=True)
    assert not differ(dict(state), golden.weights(1, 200))
    old.umount()
    old.run("fsck")


def test_without_its_index(old: Repo) -> None:
    wanted = json.loads(golden.MANIFEST.read_text())
    for file in old.path.glob("index.db*"):
        file.unlink()
    old.mount()
    assert golden.describe_repository(old) == wanted


def test_it_goes_on(old: Repo) -> None:
    old.mount()
    before = golden.describe(old.commit_dir(old.rev_parse("main")))
    (old.main / "new").write_bytes(b"new")
    for options in ([], ["--wait"]):  # nobody will ever close what the crash cut off: no use to wait
        refused = old.run("commit", *options, "-m", "no", cwd=old.main, expect=FATAL)
        assert b"cut off" in refused.stderr and b">> FILE" in refused.stderr
    for name in ("big.bin", "half.bin"):
        (old.main / name).open("ab").close()
    first, second = old.rev_parse("main"), old.commit("by a later version")
    assert first != second and old.status() == {}
    old.remount()
    assert golden.describe(old.commit_dir(first)) == before
    assert (old.commit_dir(second) / "new").read_bytes() == b"new"
    old.run("fsck")


def test_read_only(old: Repo) -> None:
    wanted = json.loads(golden.MANIFEST.read_text())
    old.mount("-o", "ro")
    for commit, tree in wanted["commits"].items():
        assert golden.describe(old.commit_dir(commit)) == tree
    old.umount()
