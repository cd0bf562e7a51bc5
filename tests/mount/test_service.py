# SPDX-License-Identifier: Apache-2.0
"""Mounted by the system: lines of /etc/fstab, and the systemd unit, run as systemd runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from driver import Installed, Repo, opened, wait_for

NOBODY = 65534

# Each means something to mount(8), systemd or the kernel, or nothing at all: none may be refused.
WORDS = (
    "defaults,_netdev,nofail,noauto,noatime,nodev,nosuid,x-systemd.automount,x-systemd.mount-timeout=30s,"
    "x-systemd.requires=network-online.target,x-gvfs-show,X-mount.mkdir,comment=text,hot_size=1G,passthrough=off"
)


@pytest.fixture
def installed(repo: Repo, place: Path) -> Installed:
    return Installed(repo.coral, place / "tree")


def options_of(point: Path) -> str:
    """A piece of shell: fails unless the mount there is ours, prints its options."""
    return f"awk '$2 == \"{point}\" && $3 == \"fuse.coral\" {{ print $4; found = 1 }} END {{ exit !found }}' /proc/self/mounts"


def test_lines_of_fstab(repo: Repo, place: Path, installed: Installed) -> None:
    if os.geteuid() != 0:
        return  # only root may name another fstab
    (place / "auto").mkdir()
    other = Repo(repo.coral, place / "auto")
    fstab = place / "fstab"
    fstab.write_text(
        f"{repo.path} {repo.mnt} fuse.coral {WORDS} 0 0\n"
        f"{other.path} {other.mnt} fuse.coral ro,nofail,_netdev,x-systemd.device-timeout=5 0 2\n"
        f"{place}/missing {place}/home fuse.coral nofail 0 0\n"
    )
    script = f"""
        mount -a -T {fstab} 2>{place}/said || [ $? = 64 ]   # some worked: the third line is wrong
        grep -q 'missing: not a CoralFS repository' {place}/said
        {options_of(other.mnt)}
        ! grep -q {repo.mnt} /proc/self/mounts              # noauto
        ! touch {other.mnt}/branches/main/file 2>/dev/null  # ro
        mount -T {fstab} {repo.mnt}                         # found by its mount point
        {options_of(repo.mnt)}
        echo by fstab > {repo.mnt}/branches/main/file
        umount {repo.mnt}
        mount -T {fstab} {repo.path}                        # found by its repository
        cat {repo.mnt}/branches/main/file
        umount {repo.mnt} {other.mnt}
        mount -f -v -T {fstab} {repo.mnt}                   # what would be done
        ! grep -q {repo.mnt} /proc/self/mounts
    """
    done = installed.in_namespace(script, place, repo.coral.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ro,") and "noatime" in lines[1].split(",") and lines[2] == "by fstab"
    wait_for("the daemons leave after umount(8)", lambda: not repo.coral.daemons())


def test_a_line_of_fstab_for_users(repo: Repo, place: Path, installed: Installed) -> None:
    """`user` lets an ordinary user mount, through fusermount3; mount(8) is set-uid and gives its rights away first."""
    if os.geteuid() != 0:
        return  # the line belongs in /etc/fstab
    place.chmod(0o755)
    home = place / "users"
    (home / "mnt").mkdir(parents=True)
    for path in (home, home / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    (place / "fstab").write_text(f"{home}/models.coral {home}/mnt fuse.coral user,noauto,_netdev 0 0\n")
    script = f"""
        chmod -R a+rX {place}/tree
        mount --bind {place}/fstab /etc/fstab
        as_nobody() {{ setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env HOME={home} XDG_RUNTIME_DIR= "$@"; }}
        as_nobody {installed.bin}/coral init {home}/models.coral >/dev/null
        as_nobody mount {home}/mnt
        {options_of(home / "mnt")}
        as_nobody sh -c 'echo by nobody > {home}/mnt/branches/main/file; cat {home}/mnt/branches/main/file'
        as_nobody fusermount3 -u {home}/mnt
    """
    done = installed.in_namespace(script, place, repo.coral.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    options, text = done.stdout.splitlines()
    assert {"nosuid", "nodev", "noexec", f"user_id={NOBODY}"} <= set(options.split(",")) and text == "by nobody"
    wait_for("the daemon leaves", lambda: not repo.coral.daemons())


# --- systemd ----------------------------------------------------------------------------------------------------------


class Service:
    """Does with the unit's lines what systemd does: an environment file, one word for each ${NAME}, Type=notify."""

    def __init__(self, repo: Repo, installed: Installed, place: Path, options: str) -> None:
        self.repo, self.place = repo, place
        pairs = [line.partition("=")[::2] for line in installed.unit.read_text().splitlines() if "=" in line]
        self.settings = {key: value for key, value in pairs if key.isidentifier()}
        assert len(self.settings) == len([key for key, _ in pairs if key.isidentifier()]), "no setting twice"
        [default] = shlex.split(self.settings["Environment"])
        self.values = dict([default.split("=", 1)])
        self.values |= {"REPOSITORY": str(repo.path), "MOUNT_POINT": str(repo.mnt)}
        if options:
            self.values["OPTIONS"] = options
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(place / "notify"))
        self.socket.settimeout(30)

    def words(self, setting: str) -> list[str]:
        words = []
        for word in shlex.split(self.settings[setting]):
            for name, value in self.values.items():
                word = word.replace("${" + name + "}", value)
            words.append(word)
        program = self.repo.coral.bin / Path(words[0]).name
        assert Path(words[0]).is_absolute() and program.exists() and "$" not in "".join(words), words
        return [str(program), *words[1:]]

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**self.repo.coral.environment, "NOTIFY_SOCKET": str(self.place / "notify")}
        process = subprocess.Popen(self.words("ExecStart"), env=environment, stderr=subprocess.PIPE, cwd="/")
        assert self.socket.recv(100) == b"READY=1", "Type=notify"
        assert (self.repo.mnt / "HEAD").is_symlink(), "the mount answers once it has said so"
        return process

    def stop(self) -> int:
        command = self.words("ExecStop")
        return subprocess.run(command, env=self.repo.coral.environment, capture_output=True, check=False).returncode


@pytest.fixture
def service(repo: Repo, place: Path, installed: Installed) -> Service:
    return Service(repo, installed, place, "noatime")


def test_the_unit_is_valid(installed: Installed, repo: Repo, place: Path) -> None:
    program = shutil.which("systemd-analyze")
    assert program, "no systemd-analyze: apt install systemd"
    assert installed.unit.name == "coralfs@.service" and installed.unit.parent.match("lib/systemd/system")
    # The programs are not where the unit will find them.
    text = installed.unit.read_text().replace(str(installed.prefix), str(repo.coral.bin))
    unit = place / "coralfs@models.service"
    unit.write_text(text)
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "coralfs@" in line]
    assert done.returncode == 0 and not ours, done.stderr
    unit.write_text(text.replace("TimeoutStopSec=", "TimeoutStopSex="))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert "TimeoutStopSex" in done.stderr, "systemd-analyze would have told"


def test_started_and_stopped(service: Service, repo: Repo) -> None:
    process = service.start()
    (repo.main / "file").write_bytes(b"x" * 3_000_000)
    with open("/proc/self/mounts") as mounts:
        assert any(line.split()[1] == str(repo.mnt) and "noatime" in line for line in mounts)
    assert service.stop() == 0
    assert process.wait(10) == 0 and not repo.mounted(), "a stop is no failure: Restart=on-failure must not start it again"
    assert repo.status() == {"file": "added"}


def test_started_without_options(repo: Repo, place: Path, installed: Installed) -> None:
    service = Service(repo, installed, place, "")
    process = service.start()
    assert service.stop() == 0 and process.wait(10) == 0


def test_started_again_after_a_crash(service: Service, repo: Repo) -> None:
    process = service.start()
    (repo.main / "file").write_bytes(b"x")
    repo.coral.kill_daemons()
    assert process.wait(10) != 0, "Restart=on-failure wants a failure"
    wait_for("the mount point is dead", repo.dead)
    process = service.start()
    assert (repo.main / "file").read_bytes() == b"x"
    assert service.stop() == 0 and process.wait(10) == 0


def test_stopped_while_in_use(service: Service, repo: Repo) -> None:
    """ExecStop refuses, then comes SIGTERM: what was written is there."""
    process = service.start()
    with opened(repo.main / "file", os.O_CREAT | os.O_RDWR) as descriptor:
        os.write(descriptor, b"x")
        assert service.stop() != 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    if repo.mounted():
        subprocess.run(["umount", "-l", repo.mnt], check=False)
    repo.mount()
    assert (repo.main / "file").read_bytes() == b"x"
    repo.umount()
