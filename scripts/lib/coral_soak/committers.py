# SPDX-License-Identifier: Apache-2.0
"""Commits, tags and branches, made and taken away again: what is not needed any more is what gc lives on."""

from __future__ import annotations

import os
import time

from . import checks
from .checks import Wrong
from .content import Content
from .lane import FREE, TIGHT, Actor
from .model import Branch, Commit, branch_of

MOST_BRANCHES = 3
MOST_COMMITS = 6  # of a branch, then it goes
MOST_TAGS = 3
_RELEASE_SECONDS = 20.0  # a close returns before the daemon knows of it
# Of a file that changes all the time, a commit beside its writers takes what was last taken in, which may be that old.
_TAKEN_IN_SECONDS = 200.0
_NOTHING_TO_COMMIT = 1
_DONE_ALREADY = ("exists already", "no such tag", "no such branch")


class Committer(Actor):
    name = "committer"
    made = 0

    def pause(self) -> None:
        self.lane.shared.stop.wait(0.2 + self.dice.random() * 1.5)

    def step(self) -> None:
        branches = self.lane.live_branches()
        old = [branch for branch in branches if len(branch.commits) > MOST_COMMITS]
        hurry = (0.0, 0.2, 1.0)[self.lane.level]
        if len(branches) > 1 and (old or self.dice.random() < hurry):
            self.retire(old[0] if old else branches[0])
        elif len(branches) < MOST_BRANCHES and self.dice.random() < 0.5:
            self.grow()
        elif self.dice.random() < 0.15:
            self.tag()
        elif self.lane.level <= TIGHT or self.dice.random() < 0.2:
            branch = self.dice.choice(branches)
            (self.commit_settled if self.dice.random() < 0.5 else self.commit_racing)(branch)

    def coral(self, *words: str) -> str:
        """Tried again where the daemon is being killed; then what says that it is done already is right, too."""
        for attempt in range(20 if self.lane.killing else 1):
            done = self.commands.run("coral", *words)
            if done.code == 0 or (attempt and any(said in done.err for said in _DONE_ALREADY)):
                return done.out.strip()
            time.sleep(0.2 if self.lane.killing else 0)
        raise Wrong(f"coral {' '.join(words)}: exit code {done.code}: {done.err.strip() or done.out.strip()}")

    def head(self, branch: Branch) -> str:
        return self.coral("rev-parse", branch.name)

    # ---- commits

    def commit(self, branch: Branch, *words: str) -> str:
        """The new commit's id; empty when nothing has changed."""
        before, begin = branch.commits[-1].id, time.monotonic()
        for _ in range(20):
            done = self.commands.run("coral", "commit", "-q", "-b", branch.name, "-m", f"at {begin:.3f}", *words)
            now = self.head(branch)
            if now != before:
                if done.code and not self.lane.killing:
                    raise Wrong(f"coral commit: exit code {done.code}, but there is a new commit {now}: {done.err}")
                return now
            if done.code == _NOTHING_TO_COMMIT:
                return ""
            if not self.lane.killing:
                raise Wrong(f"coral commit on {branch.name}: exit code {done.code}: {done.err.strip() or done.out}")
            self.lane.count("commits tried again")
            time.sleep(0.2)
        raise Wrong(f"coral commit on {branch.name}: {done.err.strip()}")

    def commit_settled(self, branch: Branch) -> None:
        """While the branch's writers wait: exactly what is there."""
        with self.doing(f"commit-settled {branch.name}"), branch.life.shared(), branch.gate.alone():
            tree = branch.tree()
            id_ = self.commit(branch)
            if id_:
                self.add(branch, Commit(id_, tree, True))
            else:
                self.check_nothing(branch, tree)

    def check_nothing(self, branch: Branch, tree: dict[str, Content]) -> None:
        """`coral commit` says that nothing has changed. Then the last commit is what is there."""
        checks.expect_tree(self.lane.commit_folder(branch.commits[-1]), tree, ", though nothing was to be committed")

    def commit_racing(self, branch: Branch) -> None:
        """While its writers go on: of each file a content that it had when it was closed."""
        with self.doing(f"commit-racing {branch.name}"), branch.life.shared():
            parent, first = branch.commits[-1], time.monotonic()
            id_ = self.commit(branch, "--allow-open")
            last = time.monotonic()
            if id_:
                self.add(branch, Commit(id_, self.explain(branch, parent, id_, first, last), False))

    def explain(self, branch: Branch, parent: Commit, id_: str, first: float, last: float) -> dict[str, Content]:
        root = self.lane.mount / "commits" / id_
        found, tree = checks.names_below(root), {}
        for name in sorted(found):
            contents = self.possible(branch, parent, name, first, last)
            try:
                tree[name] = checks.matching(root / name, [content for content in contents if content])
            except Wrong as wrong:
                said = [done for file in branch.names[name].between(first, last) if file for done in file.done]
                raise Wrong(f"{wrong}; {last - first:.3f} s from {first:.3f}; done to it: {' | '.join(said)}") from None
        for name in sorted(branch.names.keys() - found):
            if None not in self.possible(branch, parent, name, first, last):
                raise Wrong(f"{root / name}: not in the commit, but it was there and whole all the time")
        return tree

    def possible(self, branch: Branch, parent: Commit, name: str, first: float, last: float) -> list[Content | None]:
        """What a commit between two times may have under a name; None: nothing."""
        if name not in branch.names:
            return [None]
        found: list[Content | None] = []
        for file in branch.names[name].between(first, last):
            if file is None:
                found.append(None)
            elif not file.contents.settled(first - _RELEASE_SECONDS, last):
                found.append(parent.tree.get(name))  # open: the last commit's content stays, or the file is left out
        # What was replaced by what is not taken in yet lends it its content.
        for file in branch.names[name].between(first - _TAKEN_IN_SECONDS, last):
            if file:
                found += file.contents.complete_between(first - _TAKEN_IN_SECONDS, last)
        return found

    def add(self, branch: Branch, commit: Commit) -> None:
        with self.lane.lock:
            branch.commits.append(commit)

    # ---- branches and tags

    def grow(self) -> None:
        commit = self.dice.choice([c for branch in self.lane.live_branches() for c in branch.commits[-2:]])
        self.made += 1
        name = self.dice.choice(("", "exp/")) + f"lane{self.lane.number}-{self.made}"
        with self.doing(f"branch {name}"), commit.gate.shared():
            if commit.gone:
                return
            self.coral("branch", name, commit.id)
            branch = branch_of(name, commit)
            checks.expect_tree(self.lane.folder(branch), commit.tree, ", of a new branch")
            with self.lane.lock:
                self.lane.branches.append(branch)

    def tag(self) -> None:
        with self.lane.lock:
            tags = dict(self.lane.tagged)
        if len(tags) >= MOST_TAGS or (tags and self.lane.level > FREE):
            name = self.dice.choice(sorted(tags))
            with self.doing(f"untag {name}"), self.lane.lock:
                commit = self.lane.tagged.pop(name)
                others = any(commit in branch.commits for branch in self.lane.branches)
            if not others:
                self.drop([commit])
            self.coral("tag", "-d", name)
            return
        commit = self.dice.choice(self.lane.commits())
        self.made += 1
        name = f"lane{self.lane.number}/t{self.made}"
        with self.doing(f"tag {name}"), commit.gate.shared():
            if commit.gone:
                return
            self.coral("tag", *(("-m", "why") if self.dice.random() < 0.5 else ()), name, commit.id)
            target = os.readlink(self.lane.mount / "tags" / name)
            if os.path.basename(target) != commit.id:
                raise Wrong(f"tags/{name}: leads to {target}, expected {commit.id}")
            with self.lane.lock:
                self.lane.tagged[name] = commit

    def retire(self, branch: Branch) -> None:
        """Verified as a whole for the last time, then deleted, its commits with it; gc may have them."""
        with self.doing(f"retire {branch.name}"):
            with branch.life.alone():
                branch.gone = True
                checks.expect_tree(self.lane.folder(branch), branch.tree(), ", of a branch that goes")
                for commit in branch.commits[-2:]:
                    checks.expect_tree(self.lane.commit_folder(commit), commit.tree, ", of a branch that goes")
                with self.lane.lock:
                    self.lane.branches.remove(branch)
                    kept = {c for other in self.lane.branches for c in other.commits} | set(self.lane.tagged.values())
                self.drop([commit for commit in branch.commits if commit not in kept])
                self.delete(branch)

    def drop(self, commits: list[Commit]) -> None:
        for commit in commits:
            with commit.gate.alone():
                commit.gone = True

    def delete(self, branch: Branch) -> None:
        for _ in range(50):
            done = self.commands.run("coral", "branch", "-q", "-D", branch.name)
            if done.code == 0:
                return
            # The kernel tells the daemon of the last close a moment later.
            self.lane.count("branch -D tried again")
            if not self.lane.killing and not any(word in done.err for word in ("open", "in use", "owns it")):
                break
            time.sleep(0.2)
        raise Wrong(f"coral branch -D {branch.name}: {done.err.strip()}")
