# SPDX-License-Identifier: Apache-2.0
"""What an operator runs beside the work: gc, repack, warm, fsck, questions; and the daemon's worker killed, if asked."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from coral_bench.places import Failure

from .repository import PATIENCE, Repository

_OTHER_AT_WORK = "is at work"


class Upkeep:
    def __init__(self, repository: Repository, seed: str, killing: bool, fail: Callable[[str], None]) -> None:
        self.repository, self.seed, self.killing, self.fail = repository, seed, killing, fail
        self.stop = threading.Event()
        self.counts: Counter[str] = Counter()
        self.threads: list[threading.Thread] = []

    def begin(self, pace: float, passthrough: bool) -> None:
        for name, seconds, action in (
            ("gc", 5, self.gc),
            ("repack", 12, self.repack),
            ("warm", 4, self.warm),
            ("fsck", 15, self.fsck),
            ("questions", 2, self.ask),
        ):
            if name != "warm" or passthrough:  # plain copies are for the kernel to read by itself
                self.run(name, seconds * pace, action)

    def run(self, name: str, seconds: float, action: Callable[[random.Random], None]) -> None:
        thread = threading.Thread(target=self._loop, args=(name, seconds, action), daemon=True, name=name)
        thread.start()
        self.threads.append(thread)

    def _loop(self, name: str, seconds: float, action: Callable[[random.Random], None]) -> None:
        dice = random.Random(f"{self.seed}/{name}")
        while not self.stop.wait(seconds * (0.5 + dice.random())):
            try:
                action(dice)
                self.counts[name] += 1
            except Failure as failure:
                self.fail(f"{name}: {failure}")
                return

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def coral(
        self, *words: str, also: tuple[int, ...] = (), may_say: str = "", patience: float = PATIENCE
    ) -> str:
        done = self.repository.run("coral", *words, patience=patience)
        if done.code == 0 or done.code in also or (may_say and may_say in done.err):
            return done.out
        if self.killing:
            self.counts[f"{words[0]} interrupted"] += 1
            return ""
        raise Failure(f"coral {' '.join(words)}: exit code {done.code}: {done.err.strip() or done.out.strip()[-600:]}")

    def gc(self, dice: random.Random) -> None:
        self.coral("gc", "-q", *(("--prune=now",) if dice.random() < 0.8 else ()), may_say=_OTHER_AT_WORK)

    def repack(self, dice: random.Random) -> None:
        # Gigabytes encoded anew, beside everything else.
        every, patience = (("--all",), 4 * PATIENCE) if dice.random() < 0.2 else ((), PATIENCE)
        self.coral("repack", "-q", *every, may_say=_OTHER_AT_WORK, patience=patience)

    def warm(self, dice: random.Random) -> None:
        branches = self.coral("branch", "-l").replace("*", " ").split()
        if branches:
            # Exit code 1: no room for some. And the branch may have gone meanwhile.
            self.coral("warm", "-q", dice.choice(branches), also=(1,), may_say="no such")

    def fsck(self, _: random.Random) -> None:
        self.coral("fsck")

    def ask(self, _: random.Random) -> None:
        for words in (("stats",), ("log", "--oneline"), ("status",), ("mount-info",), ("tag",)):
            self.coral(*words)


class Killer:
    """kill -9 of the worker below the supervisor, again and again: clients must see a pause and nothing else."""

    def __init__(self, repository: Repository, milliseconds: int) -> None:
        self.repository, self.seconds = repository, milliseconds / 1000
        if "worker_pid" not in repository.info():
            raise Failure("--kill-every: `coral mount-info --json` names no worker_pid: nothing here restarts a worker")
        self.stop = threading.Event()
        self.count = 0
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        begin, last = time.monotonic(), 0
        while not self.stop.wait(self.seconds):
            with suppress(Failure, ValueError):  # the answer may be what dies
                worker = int(self.repository.info()["worker_pid"])
                if worker and worker != last:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        self.count, last = self.count + 1, worker
        self.seconds_run = time.monotonic() - begin

    def end(self) -> None:
        self.stop.set()
        self.thread.join()
