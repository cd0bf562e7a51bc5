# SPDX-License-Identifier: Apache-2.0
"""Mounting and unmounting: by the command, in the foreground, by mount(8); and what is said when it fails."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from driver import FATAL, NO, Coral, Installed, Repo, errno_of, opened, wait_for


def test_mount_reports_what_is_wrong(repo: Repo, place: Path) -> None:
    """Once, in one line, in the name of the program that was called: what, why, and what to do."""
    (place / "full").mkdir()
    (place / "full" / "file").touch()
    (place / "damaged").mkdir()
    (place / "damaged" / "FORMAT").write_text("junk")
    wrong: list[tuple[list[str | Path], str, str]] = [
        ([repo.path, place / "missing"], "missing", "mkdir"),
        ([place / "no-repository", repo.mnt], "no-repository", "coral init"),
        ([place, repo.mnt], str(place), "coral init"),
        ([repo.path, repo.path / "FORMAT"], "FORMAT", "empty directory"),
        ([repo.path, place / "full"], "full", "nonempty"),
        ([repo.path, place], "models.coral", "another directory"),
        ([place / "damaged", repo.mnt], "FORMAT", "backup"),
        (["-o", "nosuch", repo.path, repo.mnt], "nosuch", "--help"),
        (["-o", "threads=many", repo.path, repo.mnt], "threads", "number"),
    ]
    for arguments, cause, fix in wrong:
        for words in (arguments, ["-f", *arguments]):
            said = repo.coral.run("mount", *words, expect=FATAL).stderr.decode()
            assert said.startswith("coral: error: ") and said.count("error: ") == said.count("\n") == 1, said
            assert "coralfs:" not in said and cause in said and fix in said, said
            assert not repo.coral.daemons(), arguments
    assert not repo.mounted()
    repo.coral.run("umount", repo.mnt, expect=(NO, FATAL))


def test_mounting_twice_is_refused(mounted: Repo, place: Path) -> None:
    other = Repo(mounted.coral, place / "home")
    for path in (mounted.path, other.path):
        said = mounted.coral.run("mount", path, mounted.mnt, expect=FATAL).stderr.decode()
        assert said.startswith("coral: error: ") and "is mounted there" in said and "coral umount" in said, said
    assert len(mounted.workers()) == 1


def test_the_daemon_by_itself_speaks_in_its_own_name(repo: Repo, place: Path) -> None:
    for words in ([repo.path, place / "missing\nline"], [repo.path], ["--nosuch", repo.path, repo.mnt]):
        command = [repo.coral.bin / "coralfs", *words]
        done = subprocess.run(command, env=repo.coral.environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0 and done.stdout == ""
        assert done.stderr.startswith("coralfs: error: ") and done.stderr.count("\n") == 1, done.stderr


def test_umount_with_open_files(mounted: Repo) -> None:
    (mounted.main / "file").write_bytes(b"x")
    with opened(mounted.main / "file", os.O_RDONLY):
        done = mounted.coral.run("umount", mounted.mnt, expect=(NO, FATAL))
        assert done.stderr and mounted.mounted()
        assert (mounted.main / "file").read_bytes() == b"x"


def test_umount_while_another_namespace_has_the_mount(mounted: Repo, place: Path) -> None:
    """A container that was started meanwhile keeps the kernel's session alive: that is said, and nobody waits for ever."""

    def terminate(pinned: set[int]) -> None:
        for pid in pinned - set(mounted.workers()):
            os.kill(pid, signal.SIGTERM)

    for end_it in (lambda _: mounted.coral.run("umount", mounted.path), terminate):
        (mounted.main / "file").write_bytes(b"kept")
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 300"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as container:
            try:
                assert container.stdout and container.stdout.readline() == b"ready\n"
                said = mounted.coral.run("umount", mounted.mnt, expect=FATAL, timeout=60).stderr.decode()
                assert "another mount namespace" in said and f"coral umount {mounted.path}" in said
                assert not mounted.mounted()
                # What is mounted there next is not what ends with it.
                pinned, other = set(mounted.coral.daemons()), place / "other.coral"
                if not other.exists():
                    mounted.coral.run("init", other)
                mounted.coral.run("mount", other, mounted.mnt)
                end_it(pinned)
                wait_for("the daemon leaves", lambda: not pinned & set(mounted.coral.daemons()), 20)
                assert mounted.mounted(), "another repository's mount went"
                mounted.coral.run("umount", mounted.mnt)
            finally:
                container.kill()
        assert mounted.watchdog
        mounted.watchdog.cancel()
        mounted.mount()
        assert (mounted.main / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("supervisor", ["auto", "off"])
def test_a_detached_mount_ends_without_touching_what_took_its_place(
    repo: Repo, place: Path, supervisor: str
) -> None:
    repo.mount("-o", f"supervisor={supervisor}")
    (repo.main / "f").write_bytes(b"x")
    with open(repo.main / "f", "rb"):
        first = set(repo.coral.daemons()) - set(repo.workers())
        repo.coral.run("umount", "-l", repo.mnt)
        repo.coral.run("init", place / "other.coral")
        repo.coral.run("mount", place / "other.coral", repo.mnt)
        (repo.main / "g").write_bytes(b"y")
        for pid in first:
            os.kill(pid, signal.SIGTERM)
        wait_for("the first mount's daemon ends", lambda: not first & set(repo.coral.daemons()), 40)
        assert os.listdir(repo.main) == ["g"]
    repo.umount()


def test_a_mount_whose_folder_was_renamed(repo: Repo, place: Path) -> None:
    (place / "folder" / "mnt").mkdir(parents=True)
    moved = place / "moved" / "mnt"
    try:
        for end in ("umount", "signal", "by force"):
            repo.coral.run("mount", repo.path, place / "folder" / "mnt")
            os.rename(place / "folder", place / "moved")
            if end == "umount":
                repo.coral.run("umount", moved)
            else:
                # "By force": the folder is in use.
                here = os.open(moved, os.O_RDONLY) if end == "by force" else -1
                for pid in set(repo.coral.daemons()) - set(repo.workers()):
                    os.kill(pid, signal.SIGTERM)
                wait_for("the daemon ends", lambda: not repo.coral.daemons(), 40)
                if here >= 0:
                    os.close(here)
            assert not os.path.ismount(moved) and os.listdir(moved) == [], end
            os.rename(place / "moved", place / "folder")
    finally:
        repo.coral.kill_daemons()
        subprocess.run(["umount", "-l", str(moved)], capture_output=True, check=False)


def test_foreground(repo: Repo) -> None:
    command = [str(repo.coral.bin / "coral"), "mount", "-f", str(repo.path), str(repo.mnt)]
    running = subprocess.Popen(command, env=repo.coral.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("the mount answers", lambda: (repo.mnt / "HEAD").is_symlink() or running.poll() is not None)
    assert running.poll() is None
    (repo.main / "file").write_bytes(b"x")
    running.terminate()
    assert running.wait(30) in (0, -15, 143)
    running.communicate()
    wait_for("SIGTERM unmounts", lambda: not repo.mounted())
    assert repo.status() == {"file": "added"}


def test_help_names_every_option(coral: Coral) -> None:
    daemon = subprocess.run([coral.bin / "coralfs", "--help"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^  ([a-z_]+)(?:=\w+)?  ", daemon.partition("Options after -o")[2], re.MULTILINE)
    assert len(options) > 15, options
    said = coral.text("mount", "--help")
    assert not [name for name in options if not re.search(rf"\b{name}\b", said)]


def test_daemon_logs_into_the_repository(mounted: Repo) -> None:
    logs = [p for p in mounted.path.rglob("*.log*") if p.is_file()]
    assert logs and any(p.stat().st_size for p in logs)


def test_commands_inside_symlinked_and_read_only_places(three: tuple[Repo, list[str]], place: Path) -> None:
    repo, commits = three
    (place / "shortcut").symlink_to(repo.main)
    assert repo.coral.text("rev-parse", "HEAD", cwd=place / "shortcut") == commits[2]
    assert len(repo.coral.json("log", cwd=repo.mnt)["commits"]) == 3
    # In a commit's folder there is no branch to change.
    repo.coral.run("commit", "-m", "x", cwd=repo.commit_dir(commits[0]), expect=(NO, FATAL))


def test_mount_helper(repo: Repo, place: Path) -> None:
    """`mount -t fuse.coral` as fstab uses it, with what `cmake --install` puts in place. In a mount namespace of its
    own, so that nothing of this machine's /sbin is changed."""
    installed = Installed(repo.coral, place / "tree")
    sbin = installed.helper.parent
    assert sbin in (place / "tree/sbin", place / "tree/usr/sbin") and os.access(installed.helper, os.X_OK)
    environment = repo.coral.environment
    if os.geteuid() == 0:
        script = f"""
            mount -t fuse.coral {repo.path} {repo.mnt} -o nosuid,noauto
            echo by mount > {repo.mnt}/branches/main/file
            grep -q '{repo.mnt} fuse.coral' /proc/self/mounts
            umount {repo.mnt}
        """
        done = installed.in_namespace(script, place, environment)
    else:
        command = [str(installed.helper), str(repo.path), str(repo.mnt), "-o", "rw,nosuid"]
        environment = {**environment, "PATH": f"{installed.bin}:{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if os.geteuid() == 0:
        wait_for("the daemon leaves after umount(8)", lambda: not repo.coral.daemons())
    else:
        (repo.main / "file").write_text("by mount\n")
        repo.umount()
    assert repo.status() == {"file": "added"}
    repo.mount()
    assert (repo.main / "file").read_text() == "by mount\n"
    repo.umount()


def test_a_guarded_mount_point(repo: Repo) -> None:
    if os.geteuid() != 0:
        done = repo.coral.run("mount", "-o", "guard", repo.path, repo.mnt, expect=FATAL)
        assert b"only root can make a folder unchangeable" in done.stderr
        return
    try:
        repo.mount("-o", "guard")
        (repo.main / "f").write_bytes(b"inside")
        repo.umount()
        for refused in (repo.mnt / "f", repo.mnt / "branches"):
            assert errno_of(refused.mkdir) == errno.EPERM
            assert errno_of(os.open, refused, os.O_CREAT | os.O_WRONLY) == errno.EPERM
        repo.mount()  # it stays so, and mounts as any other
        assert (repo.main / "f").read_bytes() == b"inside"
        repo.umount()
        assert errno_of((repo.mnt / "f").mkdir) == errno.EPERM
    finally:
        subprocess.run(["chattr", "-i", repo.mnt], check=True)
    (repo.mnt / "f").mkdir()
    (repo.mnt / "f").rmdir()
