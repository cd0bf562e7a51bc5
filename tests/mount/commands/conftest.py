# SPDX-License-Identifier: Apache-2.0
"""What the tests of `coral` without a mount begin with; these take the place of the fixtures of the same name above."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
pytest.register_assert_rewrite("command_line")

from command_line import Coral, write_tree  # noqa: E402


@pytest.fixture
def coral(tmp_path: Path) -> Coral:
    return Coral(tmp_path)


@pytest.fixture
def repo(coral: Coral) -> Coral:
    coral.run("init", coral.repo)
    return coral


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
