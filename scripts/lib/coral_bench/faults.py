# SPDX-License-Identifier: Apache-2.0
"""Page faults of many threads all over a file: run as a program, FILE THREADS FAULTS, it prints the times as JSON.

The copy is made by libc's memmove, called without the interpreter's lock, so a thread that waits for its page stops no
other. What remains of the interpreter is in the figures: run it on a plain file too and compare.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import sys
import threading
import time

PAGE = mmap.PAGESIZE


def fault(address: int, pages: list[int], times: list[int], begin: threading.Barrier) -> None:
    target = ctypes.create_string_buffer(64)
    begin.wait()
    for page in pages:
        before = time.perf_counter_ns()
        ctypes.memmove(target, address + page * PAGE, 64)
        times.append(time.perf_counter_ns() - before)


def measure(path: str, threads: int, faults: int) -> dict[str, float]:
    sys.setswitchinterval(0.0001)
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    whole = len(view) // PAGE
    pages = random.Random(1).sample(range(whole), min(faults, whole))
    begin = threading.Barrier(threads + 1)
    times: list[list[int]] = [[] for _ in range(threads)]
    parts = [(address, pages[number::threads], times[number], begin) for number in range(threads)]
    running = [threading.Thread(target=fault, args=part) for part in parts]
    for thread in running:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    seconds = time.perf_counter() - began
    every = sorted(t for part in times for t in part)
    median, worst = every[len(every) // 2] / 1e3, every[-1] / 1e6
    return {"faults": len(every), "seconds": seconds, "worst_ms": worst, "median_us": median}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
