# SPDX-License-Identifier: Apache-2.0
"""Made-up contents: noise, a small tree, and many small files that are known from their numbers.

As a program: small_files.py FOLDER FIRST LAST makes the small files of that range.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

UNIT = 256 << 10
"""What a chunk holds, and what the overlay over a committed file is counted in: a size to be just around."""


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def write_tree(folder: Path, seed: int = 0) -> None:
    (folder / "models" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "a.bin").write_bytes(bytes([seed]) * 100_000)
    (folder / "models" / "deep" / "b.bin").write_bytes(b"b" * (10 + seed))
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    if not os.path.lexists(folder / "latest"):
        (folder / "latest").symlink_to("models/a.bin")


TREE = {"models/a.bin", "models/deep/b.bin", "config.json", "run.sh", "latest"}


def small_file(number: int) -> tuple[bytes, bytes]:
    """Path and content."""
    size = (number * 37) % 300  # both sides of what a record holds inline
    text = f"{number}:".encode() * (size // 2 + 1)
    return f"{number // 1000:03}/{number:06}.json".encode(), text[:size]


def main() -> None:
    root, first, last = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, last):
        path, data = small_file(number)
        path = os.path.join(root, path)
        if number == first or number % 1000 == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)


if __name__ == "__main__":
    main()
