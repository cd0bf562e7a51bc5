# SPDX-License-Identifier: Apache-2.0
"""What a branch refuses on purpose, with the errno that programs get. The same list is in docs/semantics.md, section 9:
a test compares them. A case that differs is forgiven only where the suite's own output shows this very errno."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    what: str
    code: int  # 0: no call fails, but the answer is another one than the disk's
    sentence: str  # of docs/semantics.md

    @property
    def name(self) -> str:
        return "EOPNOTSUPP" if self.code == errno.EOPNOTSUPP else errno.errorcode.get(self.code, "")

    @property
    def text(self) -> str:
        return self.what + (f": {self.name}" if self.code else "") + f" ({self.sentence})"

    def shown_in(self, output: str) -> bool:
        return self.code == 0 or self.name in output or os.strerror(self.code).lower() in output.lower()


REFUSALS: dict[str, Refusal] = {
    "link": Refusal("hard links", errno.EPERM, "S3.16"),
    "special": Refusal("device nodes, FIFOs and sockets", errno.EPERM, "S3.16"),
    "tmpfile": Refusal("O_TMPFILE", errno.EOPNOTSUPP, "S3.16"),
    "shift": Refusal("fallocate that moves what follows (COLLAPSE_RANGE, INSERT_RANGE)", errno.EOPNOTSUPP, "S3.11"),
    "clone": Refusal("ioctl FICLONE, FICLONERANGE", errno.EOPNOTSUPP, "S3.13"),
    "flags": Refusal("inode flags (chattr) and other ioctls", errno.ENOTTY, "S3.18"),
    "xattr": Refusal("trusted.* attributes", errno.EPERM, "S7.1"),
    "holes": Refusal("SEEK_HOLE finds the end only", 0, "S3.12"),
    "extents": Refusal("ioctl FS_IOC_FIEMAP", errno.EOPNOTSUPP, "S3.12"),
    "uncached": Refusal("reads and writes with RWF_DONTCACHE", errno.EOPNOTSUPP, "S3.19"),
    "blocks": Refusal("st_blocks tells the size, and no holes", 0, "S3.9"),
    "atime": Refusal("a read leaves the atime as it is", 0, "S3.8"),
    "nlink": Refusal("a directory's link count is 2, whatever is below it", 0, "S3.9"),
    "namespaces": Refusal("ACLs and other attributes but user.*", errno.EOPNOTSUPP, "S7.1"),
}
