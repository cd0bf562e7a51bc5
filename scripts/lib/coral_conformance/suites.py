# SPDX-License-Identifier: Apache-2.0
"""All suites by name. Each module has ABOUT (a line for --help), CHECKOUT (does it need --source?) and
run_on(side, options), which gives an outcome for each case."""

from __future__ import annotations

from types import ModuleType

from coral_conformance import cpython, fio, fsstress, fsx, ltp, pjdfstest, stress_ng, xfstests

SUITES: dict[str, ModuleType] = {
    "pjdfstest": pjdfstest,
    "xfstests": xfstests,
    "fsx": fsx,
    "fsstress": fsstress,
    "fio": fio,
    "stress-ng": stress_ng,
    "cpython": cpython,
    "ltp": ltp,
}
