# SPDX-License-Identifier: Apache-2.0
"""Prints "PASSED FAILED" of a JUnit file. A test that did not run (skipped, disabled, not built) counts as failed: this
project's suites have no tests that may be left out."""

import sys
import xml.etree.ElementTree as ElementTree

BAD_STATUS = {"fail", "notrun", "disabled"}  # ctest's; pytest has no such attribute
BAD_CHILD = ("failure", "error", "skipped")

passed = failed = 0
for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    if case.get("status") in BAD_STATUS or any(case.find(tag) is not None for tag in BAD_CHILD):
        failed += 1
    else:
        passed += 1
print(passed, failed)
