# SPDX-License-Identifier: Apache-2.0
"""A disk without a free block: it must be possible to remove something there, and nothing stays unfinished."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driver import Coral, Repo, is_incomplete, wait_for

DISK = 96 << 20


@pytest.fixture
def disk(place: Path) -> Iterator[Path]:
    """As root: a disk of that size, which keeps nothing back for root."""
    folder = place / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(params=["auto", "off"])
def small(coral: Coral, disk: Path, request: pytest.FixtureRequest) -> Iterator[Repo]:
    repo = Repo(coral, disk)
    repo.mount("-o", f"passthrough={request.param}")
    yield repo
    if repo.mounted():
        repo.umount()
    repo.clean_up()


def fill(path: Path) -> None:
    """Until not a byte is left."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while file.write(os.urandom(size)) == size:
                    pass


def test_what_filled_the_disk_can_be_removed(small: Repo) -> None:
    kept = os.urandom(1 << 20)
    (small.main / "kept").write_bytes(kept)
    small.commit("kept")
    fill(small.main / "filler")
    with pytest.raises(OSError) as full, open(small.main / "more", "wb", buffering=0) as more:
        for _ in range(100):
            more.write(os.urandom(1 << 20))
    assert full.value.errno == errno.ENOSPC
    (small.main / "filler").unlink()
    # At once, not when staging files go anyway (every 5 s).
    wait_for("the space comes back", lambda: os.statvfs(small.main).f_bavail * os.statvfs(small.main).f_frsize > DISK // 3, 3)
    assert (small.main / "kept").read_bytes() == kept
    (small.main / "new").write_bytes(kept[::-1])
    (small.main / "more").unlink()
    assert not any(is_incomplete(path) for path in small.main.iterdir())
    small.commit("after it")
    assert (small.mnt / "at" / "main" / "new").read_bytes() == kept[::-1]
