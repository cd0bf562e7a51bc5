# SPDX-License-Identifier: Apache-2.0
"""One workload of scripts/bench/codec: sizes, whether the bytes come back, and speeds, in rounds that take turns."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import ours, places
from .checkpoints import Checkpoint
from .peers import Peer
from .workloads import Workload

OURS = "CoralFS"


@dataclass
class Result:
    coder: str
    stored: int = 0
    exact: bool = True
    failed: str = ""  # what a peer said when it could not
    encode: list[float] = field(default_factory=list)  # GB/s, one for each round
    decode: list[float] = field(default_factory=list)
    more: dict[str, float] = field(default_factory=dict)

    def speed(self, which: str) -> float | None:
        values = getattr(self, which)
        return statistics.median(values) if values else None

    def document(self, raw: int) -> dict[str, object]:
        return {
            "coder": self.coder,
            "stored_bytes": self.stored,
            "ratio": self.stored / raw,
            "exact": self.exact,
            "failed": self.failed or None,
            "encode_gbs": self.speed("encode"),
            "decode_gbs": self.speed("decode"),
            **self.more,
        }


def processor_seconds() -> float:
    """Of this process and of those that it waited for: what others do on the machine counts little."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, action: Callable[[], object]) -> object:
        begin = processor_seconds()
        made = action()
        self.seconds += processor_seconds() - begin
        return made


def same_bytes(decoded: object, raw: np.ndarray) -> bool:
    return np.array_equal(np.frombuffer(decoded, np.uint8), raw) if len(raw) else True


def guarded_round(peer: Peer, checkpoints: list[tuple[Checkpoint, Checkpoint | None]], result: Result) -> None:
    """A peer that cannot is a result, too, and no reason to end a long run."""
    try:
        peer_round(peer, checkpoints, result)
    except Exception as error:  # each library has exceptions of its own
        result.exact, result.failed, result.stored = False, f"{type(error).__name__}: {error}".splitlines()[0], 0
        places.note(f"{peer.name} failed: {result.failed}")


def peer_round(peer: Peer, checkpoints: list[tuple[Checkpoint, Checkpoint | None]], result: Result) -> None:
    """Every piece to and fro. Held against the file's own bytes: a coder may have changed what it was given."""
    encoding, decoding, stored, raw = Clock(), Clock(), 0, 0
    for new, base in checkpoints:
        for piece in peer.pieces(new, base):
            taken = peer.take(piece)
            coded = encoding.time(lambda t=taken: peer.encode(t))
            decoded = decoding.time(lambda c=coded, p=piece: peer.decode(c, p))
            result.exact = same_bytes(decoded, piece.raw) and result.exact
            stored += len(coded)
            raw += piece.raw.size
    result.stored = stored
    result.encode.append(raw / 1e9 / encoding.seconds)
    result.decode.append(raw / 1e9 / decoding.seconds)


def our_round(programs: Path, workload: Workload, result: Result) -> None:
    totals = {"raw": 0.0, "encode": 0.0, "decode": 0.0}
    for index, file in enumerate(workload.new):
        told = ours.in_memory(programs, file, workload.base_of(index))
        if told is None:
            return
        result.exact = bool(told["exact"]) and result.exact
        totals = {key: value + told[key] for key, value in totals.items()}
    result.encode.append(totals["raw"] / 1e9 / totals["encode"])
    result.decode.append(totals["raw"] / 1e9 / totals["decode"])


def measure(
    programs: Path,
    workload: Workload,
    peers: list[Peer],
    place: Path,
    rounds: int,
    say: Callable[[str], None],
    on_one_core: Callable[[bool], None],
) -> list[Result]:
    say("CoralFS, through the program")
    found = ours.stored(programs, place / f"{workload.key}.coral", workload.given, workload.new)
    mine = Result(OURS, int(found["stored_bytes"]), bool(found["exact"]))
    raw = workload.raw_bytes()
    peers = [peer for peer in peers if any(workload.bases) or not peer.needs_base]
    mine.more = {"add_mbs": raw / 1e6 / found["add_seconds"], "cat_mbs": raw / 1e6 / found["cat_seconds"]}
    loaded: dict[Path, Checkpoint] = {}
    pairs = []
    for index, file in enumerate(workload.new):
        base = workload.base_of(index)
        for path in filter(None, (file, base)):
            loaded.setdefault(path, Checkpoint(path))
        pairs.append((loaded[file], loaded[base] if base else None))
    results = [mine, *(Result(peer.name) for peer in peers)]
    on_one_core(True)
    try:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}, {mine.coder}")
            if not workload.found_by_name:
                our_round(programs, workload, mine)
            for peer, result in zip(peers, results[1:], strict=True):
                if result.failed or (peer.slow and number):
                    continue
                say(f"round {number + 1} of {rounds}, {peer.name}")
                guarded_round(peer, pairs, result)
    finally:
        on_one_core(False)
    return results
