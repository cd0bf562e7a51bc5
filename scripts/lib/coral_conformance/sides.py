# SPDX-License-Identifier: Apache-2.0
"""The two places where a suite runs: a directory of the disk, and a branch of a fresh repository on that disk."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from coral_bench.places import Failure


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    late: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.late


def run(
    command: list[str | Path], cwd: Path, seconds: float, env: dict[str, str] | None = None, stdin: str = ""
) -> Done:
    """In a session of its own, which ends with it: no suite's stragglers disturb the next case. In a fixed language,
    since suites are told apart from each other by their words."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": str(cwd), **(env or {})}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        late = False
        try:
            process.communicate(stdin.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - (8 << 20)))
        output = said.read().decode(errors="replace")
    if late:
        output += f"\nstopped after {seconds:g} s"
    return Done(process.returncode, output, late)


class Side:
    """A place with a folder for each case."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A fresh one, open to every user since many suites change theirs; gone afterwards."""
        place = self.root / name.replace("/", "-")[:200]
        place.mkdir()
        place.chmod(0o777)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def again(self) -> None:
        """Forget what is cached."""

    def again_command(self) -> str:
        """The same, for a shell."""
        return "true"


class Mount(Side):
    def __init__(self, coral: Path, work: Path, options: str) -> None:
        self.coral, self.repo, self.point = coral / "coral", work / "trial.coral", work / "mnt"
        self.options = options
        self.point.mkdir()
        self.call("init", self.repo)
        self.start()
        super().__init__("mount", self.point / "branches/main")

    def call(self, *words: object) -> None:
        done = subprocess.run([self.coral, *map(str, words)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"coral {words[0]}: {done.stderr.strip()}")

    def start(self) -> None:
        self.call("mount", *(["-o", self.options] if self.options else []), self.repo, self.point)

    def stop(self) -> None:
        self.call("umount", self.point)

    def again(self) -> None:
        self.stop()
        self.start()

    def again_command(self) -> str:
        words = ["-o", self.options] if self.options else []
        stop, start = [self.coral, "umount", self.point], [self.coral, "mount", *words, self.repo, self.point]
        return " && ".join(shlex.join(map(str, command)) for command in (stop, start))


def default_mount_options() -> str:
    """Suites that run as root change their user."""
    return "allow_other" if os.geteuid() == 0 else ""


class Sides:
    """Both, in one work folder; unmounted and removed in the end, whatever happens."""

    def __init__(self, coral: Path, work: Path | None, options: str) -> None:
        if work:
            Path(work).mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="coral-conform-", dir=work))
        self.work.chmod(0o755)
        native = self.work / "native"
        native.mkdir()
        try:
            self.mount = Mount(coral, self.work, options)
        except BaseException:
            shutil.rmtree(self.work, ignore_errors=True)
            raise
        self.native = Side("native", native)

    def __enter__(self) -> Sides:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.mount.stop()
        except Failure as failure:
            subprocess.run(["umount", "-l", self.mount.point], capture_output=True, check=False)
            if error is None:
                raise Failure(f"{failure}; unmounted lazily, {self.work} is left as it is") from None
            return
        shutil.rmtree(self.work, ignore_errors=True)
