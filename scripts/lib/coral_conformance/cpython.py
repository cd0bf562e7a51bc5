# SPDX-License-Identifier: Apache-2.0
"""CPython's own tests of os, io and what stands on them, with the working and the temporary folder inside."""

from __future__ import annotations

import json
from pathlib import Path

from coral_bench.places import Failure
from coral_conformance.options import Options
from coral_conformance.refusals import REFUSALS
from coral_conformance.sides import Side, run
from coral_conformance.verdicts import OK, Kind, Outcome, failed, skipped

ABOUT = "CPython's tests of os, io, mmap, shutil, tempfile, tarfile … (package libpython3.11-testsuite)"
CHECKOUT = False
PYTHON = Path("/usr/bin/python3.11")  # the one that the package's tests belong to

MODULES = (
    "test_os", "test_posix", "test_posixpath", "test_genericpath", "test_io", "test_fileio", "test_file",
    "test_bufio", "test_univnewlines", "test_largefile", "test_mmap", "test_fcntl", "test_stat", "test_shutil",
    "test_tempfile", "test_pathlib", "test_glob", "test_filecmp", "test_fileinput", "test_linecache", "test_tarfile",
    "test_zipfile", "test_gzip", "test_bz2", "test_lzma", "test_shelve", "test_dbm", "test_dbm_dumb", "test_mailbox",
    "test_sqlite3", "test_py_compile", "test_zipapp", "test_zipimport",
)  # fmt: skip

# Tests whose subject is refused: what their names or their failures must tell, beside the errno.
REFUSED = {"link": ("link",), "special": ("fifo", "mknod", "socket")}
# How test.support says that setxattr of trusted.foo failed.
NO_TRUSTED = "no non-broken extended attribute support"

PROGRAM = """
import io, json, sys, unittest
from test import support
support.use_resources = ["largefile"]
support.verbose = 0
found = {}
class Result(unittest.TestResult):
    def addSuccess(self, test): found.setdefault(test.id(), ["ok", ""])
    def addError(self, test, error): found[test.id()] = ["failed", self._exc_info_to_string(error, test)]
    addFailure = addError
    def addSkip(self, test, reason): found[test.id()] = ["skipped", reason]
    def addExpectedFailure(self, test, error): found[test.id()] = ["ok", ""]
    def addUnexpectedSuccess(self, test): found[test.id()] = ["failed", "unexpected success"]
    def addSubTest(self, test, part, error):
        if error: found[test.id()] = ["failed", self._exc_info_to_string(error, test)]
try:
    tests = unittest.defaultTestLoader.loadTestsFromName("test." + sys.argv[1])
    tests.run(Result())
except unittest.SkipTest as skip:
    found["test." + sys.argv[1]] = ["skipped", str(skip)]
with open(sys.argv[2], "w") as file:
    json.dump(found, file)
"""


def refusal(case: str, text: str) -> str:
    told = (case + text).lower()
    for key, words in REFUSED.items():
        if REFUSALS[key].shown_in(text) and any(word in told for word in words):
            return key
    return "xattr" if NO_TRUSTED in text else ""


def outcome(case: str, kind: str, text: str) -> Outcome:
    if kind == Kind.OK.value:
        return OK
    key = refusal(case, text)
    return skipped(text, key) if kind == Kind.SKIPPED.value else failed(text, key)


def run_on(side: Side, options: Options) -> dict[str, Outcome]:
    tests = Path("/usr/lib/python3.11/test")
    if not PYTHON.exists() or not (tests / "test_os.py").exists():
        raise Failure(f"no {tests}/test_os.py: apt install python3.11 libpython3.11-testsuite")
    found: dict[str, Outcome] = {}
    for module in MODULES:
        if not options.wanted(module) or not any(tests.glob(f"{module}*")):
            continue
        options.progress(side, module)
        with side.folder(module) as place:
            done = run(
                [PYTHON, "-B", "-c", PROGRAM, module, "report.json"], place, 1200, {"PYTHONDONTWRITEBYTECODE": "1"}
            )
            try:
                cases = json.loads((place / "report.json").read_text())
            except (OSError, ValueError):
                found[module] = failed(done.output)
                continue
        for case, (kind, text) in cases.items():
            found[case.removeprefix("test.")] = outcome(case, kind, text)
    return found
