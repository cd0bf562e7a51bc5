# SPDX-License-Identifier: Apache-2.0
"""copy_file_range(2) within the mount: bytes as a disk gives them, of which few move."""

from __future__ import annotations

import os
from pathlib import Path

from driver import Repo, opened
from small_files import UNIT, noise


def test_copy_file_range(mounted: Repo) -> None:
    data = noise(3 * UNIT + 17)
    (mounted.main / "source").write_bytes(data)
    commit = mounted.commit("source")
    for origin in (mounted.main / "source", mounted.commit_dir(commit) / "source"):
        target = mounted.main / "target"
        with opened(origin, os.O_RDONLY) as a, opened(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as b:
            done = 0
            while step := os.copy_file_range(a, b, len(data) - done, done, done):
                done += step
            os.copy_file_range(a, b, 1000, 5, UNIT - 7)
        assert target.read_bytes() == data[: UNIT - 7] + data[5:1005] + data[UNIT + 993 :]


def disk_bytes(folder: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*") if file.is_file())


def test_ranges_are_copied_without_their_bytes(mounted: Repo) -> None:
    """Between commits and branches, to any offset; the ends that fill no unit of 256 KiB are copied."""
    data = noise(12 << 20)
    (mounted.main / "source").write_bytes(data)
    commit = mounted.commit("source")
    mounted.run("branch", "other")
    before = disk_bytes(mounted.path / "packs") + disk_bytes(mounted.path / "staging")
    parts = [(5, 1 << 20), (3 << 20, (8 << 20) + 321), ((1 << 20) + 7, 2 << 20)]
    for origin, folder in (
        (mounted.commit_dir(commit), mounted.branch("other")),
        (mounted.branch("other"), mounted.main),
    ):
        with opened(origin / "source", os.O_RDONLY) as a:
            with opened(folder / "target", os.O_WRONLY | os.O_CREAT | os.O_EXCL) as b:
                to = 1000
                for begin, length in parts:
                    done = 0
                    while done < length:
                        done += os.copy_file_range(a, b, length - done, begin + done, to + done)
                    to += length
                staged = disk_bytes(mounted.path / "packs") + disk_bytes(mounted.path / "staging") - before
                assert staged < 4 << 20, "only what is around whole units"
        expected = bytes(1000) + b"".join(data[begin : begin + length] for begin, length in parts)
        assert (folder / "target").read_bytes() == expected
    mounted.commit("target")
    mounted.remount()
    assert (mounted.main / "target").read_bytes() == expected
    assert disk_bytes(mounted.path / "packs") + disk_bytes(mounted.path / "staging") - before < 3 << 20
