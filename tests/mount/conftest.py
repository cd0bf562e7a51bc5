# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the suite that drives the real coral and coralfs through a kernel mount.

There are no skips: where /dev/fuse, the programs or the data are missing, every test fails and says what to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

# Before any framework is imported: nothing here may ask a network for anything.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

pytest.register_assert_rewrite("driver", "material", "small_files", "tensors")

from driver import Coral, Repo, binaries, remove_tree  # noqa: E402
from small_files import write_tree  # noqa: E402


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000  # linux/sched.h, linux/mount.h


def pytest_configure(config: pytest.Config) -> None:
    """Run in several processes, each gets a mount namespace. In a common one, the namespace that a test of one process
    makes (as a container does) would hold what another's has just mounted, whose `coral umount` then rightly fails."""
    if not hasattr(config, "workerinput") or os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None):
        raise OSError(ctypes.get_errno(), "a mount namespace of the test process's own")


@pytest.fixture(scope="session", autouse=True)
def machine() -> Path:
    """The things without which no test of this suite means anything."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        fix = (
            "modprobe fuse" if error.errno == errno.ENOENT else "chmod 0666 /dev/fuse (as root), as Debian's udev does"
        )
        pytest.fail(f"/dev/fuse: {error.strerror}: {fix}", pytrace=False)
    try:
        return binaries()
    except AssertionError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the test's own, with a short path: a Unix socket's name has room for 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="coral-"))
    yield folder
    remove_tree(folder)


@pytest.fixture
def coral(place: Path, machine: Path) -> Iterator[Coral]:
    made = Coral(place / "home", machine)
    yield made
    assert not (found := made.races()), found


@pytest.fixture
def repo(coral: Coral, place: Path) -> Iterator[Repo]:
    """A fresh repository, not mounted; whatever the test mounts is gone afterwards."""
    made = Repo(coral, place)
    yield made
    made.clean_up()
    assert not made.hung, "the mount did not answer in time; its daemon was killed"


@pytest.fixture
def mounted(repo: Repo, request: pytest.FixtureRequest) -> Iterator[Repo]:
    """The same, mounted; unmounting in the ordinary way is part of every test."""
    repo.mount()
    yield repo
    if repo.mounted():
        repo.umount()


@pytest.fixture
def source(place: Path) -> Path:
    """Where a test makes its files, outside the mount."""
    folder = place / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def main(mounted: Repo) -> Path:
    """The folder of the branch main, for tests that need nothing else."""
    return mounted.main


@pytest.fixture
def three(mounted: Repo) -> tuple[Repo, list[str]]:
    """Three commits of a small tree, oldest first."""
    commits = []
    for seed in range(3):
        write_tree(mounted.main, seed)
        commits.append(mounted.commit(f"commit {seed}"))
    return mounted, commits
