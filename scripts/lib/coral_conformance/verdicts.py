# SPDX-License-Identifier: Apache-2.0
"""What came out of a case on each side, and what the difference means."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from coral_conformance.refusals import REFUSALS


class Kind(enum.Enum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # the suite itself said that it does not apply


@dataclass(frozen=True)
class Outcome:
    kind: Kind
    text: str = ""  # what the suite said, its end
    refusal: str = ""  # key of REFUSALS, where the suite's own words show the refused call and its errno


OK = Outcome(Kind.OK)


def failed(text: str, refusal: str = "") -> Outcome:
    return Outcome(Kind.FAILED, text.strip()[-600:], refusal)


def skipped(text: str = "", refusal: str = "") -> Outcome:
    return Outcome(Kind.SKIPPED, text.strip()[-300:], refusal)


class Verdict(enum.Enum):
    EQUAL = "equal"
    REFUSED = "refused by design"
    NATIVE = "only the disk fails"
    DIFFERS = "DIFFERS"


@dataclass(frozen=True)
class Row:
    case: str
    verdict: Verdict
    native: Outcome
    mount: Outcome
    why: str = ""

    def document(self) -> dict[str, object]:
        sides = {
            name: {**asdict(side), "kind": side.kind.value}
            for name, side in (("native", self.native), ("mount", self.mount))
        }
        return {"case": self.case, "verdict": self.verdict.value, "why": self.why, **sides}


ABSENT = Outcome(Kind.SKIPPED, "did not run there")


def judge(case: str, native: Outcome, mount: Outcome) -> Row:
    if native.kind == mount.kind:
        return Row(case, Verdict.EQUAL, native, mount)
    if mount.refusal:
        return Row(case, Verdict.REFUSED, native, mount, REFUSALS[mount.refusal].text)
    if native.kind == Kind.FAILED and mount.kind == Kind.OK:
        return Row(case, Verdict.NATIVE, native, mount)
    return Row(case, Verdict.DIFFERS, native, mount)


def compare(native: dict[str, Outcome], mount: dict[str, Outcome]) -> Iterator[Row]:
    for case in sorted(native.keys() | mount.keys()):
        yield judge(case, native.get(case, ABSENT), mount.get(case, ABSENT))
