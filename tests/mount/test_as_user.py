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

TASKS_SCRIPT = """
set -eu
cd "$1"
coral="$2"
"$coral" init models.coral
mkdir mnt
"$coral" mount models.coral mnt
trap '"$coral" umount -l mnt' EXIT
echo kept > mnt/branches/main/file
number() { "$coral" mount-info mnt --json | grep -o "\\"$1\\": *[0-9]*" | grep -o '[0-9]*$'; }
supervisor=$(number pid)
usual=$(prlimit --pid "$supervisor" --nproc --output SOFT --noheadings | tr -d ' ')
prlimit --pid "$supervisor" --nproc=0:
kill -9 "$(number worker_pid)"
sleep 1
# A process can be started now, but it may have no threads; then few, more, and at some moment enough.
tasks=$(ps -L -u "$(id -u)" --no-headers | wc -l)
for more in 2 2 2 2 2 2 2 2 $(seq 3 24); do
    prlimit --pid "$supervisor" --nproc=$((tasks + more)):
    sleep 0.6
done
prlimit --pid "$supervisor" --nproc="$usual:"
prlimit --pid "$supervisor" --nproc="$usual:"
test "$(cat mnt/branches/main/file)" = kept
prlimit --pid "$(pgrep -P "$supervisor" coralfs)" --nproc="$usual:"
echo more > mnt/branches/main/file
trap - EXIT
"$coral" umount mnt
! grep -q "$1/mnt " /proc/self/mounts
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


def test_at_the_limit_of_tasks(open_place: Path) -> None:
    """Clients wait for a daemon that cannot be started, or may have no threads; the mount stays. As a user, since root
    has no such limit."""
    done = run_as_user(open_place, TASKS_SCRIPT)
    log = (open_place / "work/models.coral/run/coralfs.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert "no daemon can be started yet" in log, log


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
