# SPDX-License-Identifier: Apache-2.0
"""From an empty folder to the verdict: starts the lanes, looks after disk and hangs, remounts, has everything verified."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from coral_bench import places
from coral_bench.places import Failure

from .checks import Wrong
from .committers import Committer
from .content import Content
from .lane import FREE, FULL, TIGHT, Actor, Commands, Lane, Shared, verify
from .material import Material
from .model import Commit, branch_of
from .readers import Reader
from .repository import PATIENCE, Repository
from .upkeep import Killer, Upkeep
from .writers import Writer

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Plan:
    seconds: float
    seed: str
    lanes: int
    writers: int
    readers: int
    disk: int
    kill_every: int
    pace: float

    @property
    def threads(self) -> int:
        return self.writers + self.readers + 1


@dataclass
class Helper:
    """A lane as the first process sees it."""

    process: Any
    orders: Connection
    commands: list[Connection]
    beats: Any
    servers: list[threading.Thread] = field(default_factory=list)


def live(lane: Lane, plan: Plan, orders: Connection, pipes: list[Connection], scratch: Path) -> None:
    """A lane's whole life, in its own process."""
    commands = [Commands(pipe) for pipe in pipes]
    actors: list[Actor] = [Committer(lane, 0, commands[0])]
    actors += [Writer(lane, 1 + n, commands[1 + n], scratch) for n in range(plan.writers)]
    first = 1 + plan.writers
    actors += [Reader(lane, first + n, commands[first + n]) for n in range(plan.readers)]
    for actor in actors:
        actor.thread.start()
    for actor in actors:
        actor.thread.join()
    orders.send(("done", {"counts": dict(lane.counts), "slowest": lane.slowest}))
    orders.recv()  # the first process has remounted
    try:
        orders.send(("verified", verify(lane)))
    except (Wrong, OSError) as wrong:
        lane.fail(f"lane {lane.number}: {wrong}")
        orders.send(("verified", {}))


class Soak:
    def __init__(self, repository: Repository, material: Material, plan: Plan) -> None:
        self.repository, self.material, self.plan = repository, material, plan
        self.stop, self.level = _FORK.Event(), _FORK.Value("i", FREE)
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.disk_peak = self.memory_peak = 0
        self.upkeep = Upkeep(repository, plan.seed, plan.kill_every > 0, self.fail)
        self.killer: Killer | None = None
        self.begun = time.monotonic()
        self.hung = False

    def fail(self, text: str) -> None:
        self.failures.append(text)
        self.stop.set()

    # ---- lanes

    def start_lane(self, number: int, commit: Commit, passthrough: bool) -> Helper:
        plan = self.plan
        name = f"lane{number}"
        self.repository.must("coral", "branch", name, commit.id)
        ours, theirs = _FORK.Pipe()
        pairs = [_FORK.Pipe() for _ in range(plan.threads)]
        beats = _FORK.Array("d", plan.threads, lock=False)
        fails, told = _FORK.Pipe(duplex=False)

        def fail(text: str) -> None:
            told.send(text)
            self.stop.set()

        lane = Lane(
            number=number,
            seed=plan.seed,
            mount=self.repository.mount,
            material=self.material,
            shared=Shared(self.stop, self.level, beats),
            killing=plan.kill_every > 0,
            passthrough=passthrough,
            fail=fail,
            branches=[branch_of(name, commit)],
        )
        pipes = [there for _, there in pairs]
        process = _FORK.Process(target=live, args=(lane, plan, theirs, pipes, self.repository.place), daemon=True)
        process.start()
        for end in (theirs, told, *pipes):
            end.close()
        helper = Helper(process, ours, [here for here, _ in pairs], beats)
        self.serve(helper, self.hear, fails)
        return helper

    def serve(self, helper: Helper, target: Callable[[Connection], None], pipe: Connection) -> None:
        thread = threading.Thread(target=target, args=(pipe,), daemon=True)
        thread.start()
        helper.servers.append(thread)

    def hear(self, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.failures.append(pipe.recv())

    def run_commands(self, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                pipe.send(self.repository.run(*pipe.recv()))

    # ---- the time in between

    def watch(self, helpers: list[Helper]) -> None:
        """Once a second, until the time is over or something is wrong."""
        limit = self.plan.disk
        while not self.stop.wait(1.0):
            used = self.repository.disk_bytes()
            self.disk_peak = max(self.disk_peak, used)
            self.memory_peak = max(self.memory_peak, self.repository.memory_bytes())
            self.level.value = FULL if used > 0.65 * limit else TIGHT if used > 0.45 * limit else FREE
            elapsed = time.monotonic() - self.begun
            places.progress(
                f"{elapsed:5.0f} of {self.plan.seconds:.0f} s, disk {used >> 20} MiB of {limit >> 20} "
                f"({('free', 'tight', 'full')[self.level.value]}), daemon {self.memory_peak >> 20} MiB at most, "
                + ", ".join(f"{name} {count}" for name, count in sorted(self.upkeep.counts.items()))
            )
            self.look_for_hangs(helpers)
            if elapsed > self.plan.seconds:
                self.stop.set()

    def look_for_hangs(self, helpers: list[Helper]) -> None:
        for number, helper in enumerate(helpers):
            if helper.process.exitcode is not None:
                self.fail(f"lane {number}: ended with {helper.process.exitcode} (-7: SIGBUS, a page of a mapping that failed)")
            for slot, since in enumerate(helper.beats):
                if since and time.time() - since > 1.5 * PATIENCE:
                    self.hung = True
                    self.fail(f"lane {number}: thread {slot} hangs: one step for {time.time() - since:.0f} s")

    def answer(self, helper: Helper, number: int, seconds: float) -> dict[str, Any]:
        """What a lane says when it is done; looks for hangs meanwhile."""
        end = time.monotonic() + seconds
        with contextlib.suppress(EOFError, OSError):
            while time.monotonic() < end and not self.hung:
                if helper.orders.poll(1.0):
                    found: dict[str, Any] = helper.orders.recv()[1]
                    return found
                self.look_for_hangs([helper])
                if helper.process.exitcode is not None:
                    break
        self.hung = True
        self.fail(f"lane {number}: no answer (exit code {helper.process.exitcode})")
        return {}

    # ---- all of it

    def run(self) -> dict[str, Any]:
        self.repository.begin()
        passthrough = bool(self.repository.info()["passthrough"])
        first = Commit(self.repository.must("coral", "rev-parse", "HEAD").strip(), {}, True)
        first.tree["about"] = Content.of(b"a soak\n")
        helpers = [self.start_lane(number, first, passthrough) for number in range(self.plan.lanes)]
        # Only now, when no fork can copy a lock that one of them holds.
        for helper in helpers:
            for pipe in helper.commands:
                self.serve(helper, self.run_commands, pipe)
        self.begun = time.monotonic()
        self.upkeep.begin(self.plan.pace, passthrough)
        if self.plan.kill_every:
            self.killer = Killer(self.repository, self.plan.kill_every)
        self.watch(helpers)
        return self.finish(helpers, passthrough)

    def finish(self, helpers: list[Helper], passthrough: bool) -> dict[str, Any]:
        seconds = time.monotonic() - self.begun
        places.progress("waiting for the last steps")
        if self.killer:
            self.killer.end()
        if self.hung:
            self.repository.end_by_force()
        self.upkeep.end()
        for number, helper in enumerate(helpers):
            done = self.answer(helper, number, 2 * PATIENCE)
            self.counts.update(done.get("counts", {}))
            for kind, longest in done.get("slowest", {}).items():
                self.slowest[kind] = max(self.slowest.get(kind, 0.0), round(longest, 3))
        totals = {} if self.failures or self.hung else self.verify(helpers)
        if self.hung:
            self.repository.end_by_force()
        for helper in helpers:
            if self.failures:
                helper.process.kill()
            helper.process.join(30)
        if self.failures:
            self.repository.end()
        places.progress("")
        return {
            "seed": self.plan.seed,
            "seconds": round(seconds, 1),
            "passthrough": passthrough,
            "ok": not self.failures,
            "failures": self.failures,
            "disk_peak_bytes": self.disk_peak,
            "daemon_anonymous_peak_bytes": self.memory_peak,
            "kills": self.killer.count if self.killer else 0,
            "done": dict(sorted((self.counts + self.upkeep.counts).items())),
            "slowest_seconds": dict(sorted(self.slowest.items())),
            "verified_after_remount": totals,
        }

    def verify(self, helpers: list[Helper]) -> dict[str, int]:
        places.progress("remounting")
        totals: Counter[str] = Counter()
        try:
            self.repository.stop()
            self.repository.start()
            places.progress("verifying every commit and branch")
            for helper in helpers:
                helper.orders.send("verify")
            for number, helper in enumerate(helpers):
                totals.update(self.answer(helper, number, 3 * PATIENCE))
            self.repository.stop()
            places.progress("coral fsck --full")
            self.repository.must("coral", "fsck", "--full")
        except Failure as failure:
            self.fail(str(failure))
        return dict(totals)


