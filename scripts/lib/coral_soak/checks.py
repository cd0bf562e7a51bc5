# SPDX-License-Identifier: Apache-2.0
"""Comparing what was read with what must be there, and saying precisely what is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .content import STEP, Content

_PAGE = 4096
_SHOWN = 24


class Wrong(Exception):
    """The mount is not what the model says; the text tells where and how."""


def first_difference(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] != b[low:middle]:
            high = middle
        else:
            low = middle
    return low


def describe(path: Path | str, offset: int, wanted: bytes, got: bytes, more: str = "") -> str:
    zeros = " (got zeros)" if got and not any(got) else ""
    return (
        f"{path}: at offset {offset}: expected {wanted[:_SHOWN].hex() or 'the end'}, "
        f"got {got[:_SHOWN].hex() or 'the end'}{zeros}{more}"
    )


def expect(path: Path | str, at: int, wanted: bytes, got: bytes, more: str = "") -> None:
    if wanted == got:
        return
    where = first_difference(wanted, got)
    last = max((i for i in range(0, min(len(wanted), len(got)), 512) if wanted[i : i + 512] != got[i : i + 512]), default=0)
    more = f"; differs up to about offset {at + last}, {len(wanted)} bytes expected, {len(got)} read{more}"
    raise Wrong(describe(path, at + where, wanted[where:], got[where:], more))


def expect_file(path: Path, content: Content, more: str = "") -> int:
    """The whole file, by read(2)."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != content.size:
            raise Wrong(f"{path}: {size} bytes, expected {content.size}{more}")
        for at, wanted in content.steps():
            expect(path, at, wanted, read_at(file.fileno(), at, len(wanted)), more)
    return content.size


def read_at(descriptor: int, at: int, length: int) -> bytes:
    """A short read is only right at the end of the file."""
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, at)
        if not part:
            break
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return b"".join(parts)


def matching(path: Path, candidates: Sequence[Content]) -> Content:
    """That one of them which the file holds, as a whole."""
    failures = []
    for content in dict.fromkeys(candidates):
        try:
            expect_file(path, content)
            return content
        except Wrong as wrong:
            failures.append(str(wrong))
    raise Wrong(f"{path}: none of the {len(failures)} contents it may have: " + "; ".join(failures[:4]))


def expect_mixture(path: Path, at: int, got: bytes, candidates: Sequence[Content], more: str = "") -> None:
    """Each byte from one of several contents: a range that was read while it was being written, without a lock.

    Where the file's size changed meanwhile, zeros are right too, as on any Linux filesystem.
    """
    contents = [content.read(at, len(got)) for content in dict.fromkeys(candidates)]
    if any(content == got for content in contents):
        return
    if len(got) > max(map(len, contents)):
        raise Wrong(f"{path}: {at + len(got)} bytes are there, expected at most {at + max(map(len, contents))}{more}")
    sizes = {content.size for content in candidates}
    if len(sizes) > 1:
        contents.append(bytes(len(got)))
    for begin in range(0, len(got), _PAGE):
        page = got[begin : begin + _PAGE]
        pages = [content[begin : begin + _PAGE] for content in contents]
        if any(page == wanted[: len(page)] for wanted in pages):
            continue
        for index, byte in enumerate(page):
            if not any(index < len(wanted) and wanted[index] == byte for wanted in pages):
                text = f": one of {len(pages)} contents, written at the time{more}"
                raise Wrong(describe(path, at + begin + index, pages[0][index:], page[index:], text))


def expect_tree(root: Path, tree: dict[str, Content], more: str = "") -> tuple[int, int]:
    """Names and bytes of all files below, by read(2); the count of files and of bytes."""
    found = names_below(root)
    if found != tree.keys():
        lost, extra = sorted(tree.keys() - found)[:5], sorted(found - tree.keys())[:5]
        raise Wrong(f"{root}: missing {lost}, and not expected {extra}{more}")
    return len(tree), sum(expect_file(root / name, content, more) for name, content in sorted(tree.items()))


def names_below(root: Path) -> set[str]:
    found: set[str] = set()
    for where, _, names in os.walk(root, onerror=_raise):
        found.update(os.path.relpath(os.path.join(where, name), root) for name in names)
    return found


def _raise(error: OSError) -> None:
    raise error


assert STEP % _PAGE == 0
