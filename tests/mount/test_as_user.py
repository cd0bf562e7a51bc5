# SPDX-License-Identifier: Apache-2.0
"""Without root: everything goes through fusermount3, and /dev/fuse must be open to users."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from driver import Repo, remove_tree

NOBODY = 65534

SCRIPT = """
set -eu
umask 022
cd "$1"
coral="$2"
"$coral" init models.coral
mkdir mnt
"$coral" mount models.coral mnt
trap '"$coral" umount mnt' EXIT
head -c 3000000 /dev/urandom > weights
cp weights mnt/branches/main/
cmp weights mnt/branches/main/weights
(cd mnt/branches/main && "$coral" commit -m "as a user")
cmp weights mnt/at/main/weights
test "$(stat -c %u mnt/at/main/weights)" = "$(id -u)"
test "$(stat -c %u mnt/branches/main/weights)" = "$(id -u)"
grep -q "$1/mnt fuse" /proc/self/mounts
trap - EXIT
"$coral" umount mnt
! grep -q "$1/mnt " /proc/self/mounts
"$coral" mount models.coral mnt
cmp weights mnt/at/main/weights
"$coral" umount mnt
"""


@pytest.fixture
def open_place(machine: Path) -> Iterator[Path]:
    """A folder and a copy of the programs that any user can reach; the checkout may lie in somebody's home."""
    folder = Path(tempfile.mkdtemp(prefix="coral-"))
    folder.chmod(0o755)
    (folder / "bin").mkdir()
    for name in ("coral", "coralfs"):
        shutil.copy2(machine / name, folder / "bin" / name)
    (folder / "work").mkdir()
    yield folder
    remove_tree(folder)


def run_as_user(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    (place / "script").write_text(script)
    command = ["bash", str(place / "script"), str(place / "work"), str(place / "bin" / "coral")]
    if os.geteuid() == 0:
        os.chown(place / "work", NOBODY, NOBODY)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(place / "work"), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_an_ordinary_user_can_do_it_all(open_place: Path) -> None:
    mode = os.stat("/dev/fuse").st_mode & 0o666
    assert mode == 0o666 or os.geteuid() != 0, "open /dev/fuse to users first, as udev does: chmod 0666 /dev/fuse"
    done = run_as_user(open_place, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_belongs_to_somebody_else(repo: Repo, open_place: Path) -> None:
    """A repository of another user is refused with a word about why; its socket does not obey strangers."""
    if os.geteuid() != 0:
        os.chmod(repo.path, 0)  # without root there is no second user: a folder nobody may enter stands for it
    else:
        os.chmod(repo.path, 0o700)
    try:
        script = f'"$2" -C {repo.path} status || exit 77'
        done = run_as_user(open_place, script)
        assert done.returncode == 77 and done.stderr.strip() and done.stdout == ""
    finally:
        os.chmod(repo.path, 0o755)
    assert repo.status() == {}
