# SPDX-License-Identifier: Apache-2.0
"""The repository of a soak, its mount, and the commands on it. In the first process, which has nothing of the mount open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from coral_bench.places import Failure

from .lane import Done

PATIENCE = 300  # seconds until a command or a call counts as hung


class Repository:
    def __init__(self, bin_: Path, place: Path, options: str) -> None:
        self.coral, self.place, self.options = bin_ / "coral", place, options
        self.path, self.mount = place / "soak.coral", place / "mnt"
        self.environment = {**os.environ, "CORAL_AUTHOR_NAME": "soak", "CORAL_AUTHOR_EMAIL": "soak@example.org"}
        self.daemon = self.worker = 0
        self.mount.mkdir()

    def run(self, *words: str, cwd: Path | None = None, patience: float = PATIENCE) -> Done:
        """`coral` on the repository, or another program."""
        command = [str(self.coral), "-C", str(self.path), *words[1:]] if words[0] == "coral" else list(words)
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Done(-1, "", f"not done within {patience:.0f} s")
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str) -> str:
        done = self.run(*words)
        if done.code:
            raise Failure(f"{' '.join(words)}: exit code {done.code}: {done.err.strip() or done.out.strip()}")
        return done.out

    def json(self, *words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.must("coral", *words, "--json"))
        return document

    def begin(self) -> None:
        self.must(str(self.coral), "init", str(self.path))
        # gc leaves the pack alone that a mount appends to: with large ones the soak would wait at its limit of the disk.
        self.must("coral", "config", "store.pack_mib", "64")
        self.start()
        (self.mount / "branches/main/about").write_text("a soak\n")
        self.must("coral", "commit", "-q", "-m", "before the soak")

    def start(self) -> None:
        words = ["-o", self.options] if self.options else []
        self.must(str(self.coral), "mount", *words, str(self.path), str(self.mount))
        info = self.info()
        self.daemon, self.worker = int(info["pid"]), int(info["worker_pid"])

    def stop(self) -> None:
        for attempt in range(50):
            done = self.run(str(self.coral), "umount", str(self.mount))
            if done.code == 0:
                return
            if "busy" not in done.err or attempt == 49:
                raise Failure(f"coral umount: {done.err.strip()}")
            time.sleep(0.2)  # a reader's last close is still under way

    def info(self) -> dict[str, Any]:
        return self.json("mount-info")

    def disk_bytes(self) -> int:
        total = 0
        for where, _, names in os.walk(self.place):
            if Path(where) == self.mount:
                continue
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(where, name)).st_blocks * 512
        return total

    def memory_bytes(self) -> int:
        """What the daemon has for itself: pages of files that it maps are the kernel's to take."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
        return 0

    def end(self) -> None:
        """After something was wrong: no mount and no daemon stay, the repository does."""
        with contextlib.suppress(Failure):
            self.stop()
            return
        self.end_by_force()

    def end_by_force(self) -> None:
        """After a hang: whoever waits for the daemon gets an error."""
        for process in (self.daemon, self.worker):  # the supervisor first: it would start another worker
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        for words in (("umount", "-l"), ("fusermount3", "-uz")):
            if not os.path.ismount(self.mount) and os.access(self.mount, os.R_OK):
                break
            with contextlib.suppress(FileNotFoundError):
                self.run(*words, str(self.mount))
