# SPDX-License-Identifier: Apache-2.0
"""How scripts/data talks: progress on stderr, failures as one sentence that names the cause and the fix."""

from __future__ import annotations

import sys
import time

BEGAN = time.monotonic()


class Failure(Exception):
    """Something outside this program went wrong; its text is for the user."""


def say(message: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {message}", file=sys.stderr, flush=True)
