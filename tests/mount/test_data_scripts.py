# SPDX-License-Identifier: Apache-2.0
"""What scripts/data says when it cannot have what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from driver import ROOT

sys.path.insert(0, str(ROOT / "scripts/lib"))

from coral_data import environment  # noqa: E402
from coral_data.report import Failure  # noqa: E402

RETRY = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by "
    "'NewConnectionError('<HTTPSConnection object>: Failed to establish a new connection: [Errno 111] refused')': /simple/"
)
FETCH = (
    "Could not fetch URL https://localhost/simple/torch/: There was a problem confirming the ssl certificate: (Caused by "
    "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate'))) - skipping"
)
END = "ERROR: No matching distribution found for torch"


@pytest.mark.parametrize(
    ("out", "errors", "cause"),
    [
        (f"Looking in indexes: https://localhost\n{FETCH}", [RETRY, END], "CERTIFICATE_VERIFY_FAILED"),
        ("", [RETRY, RETRY, END], "refused"),
        ("", ["WARNING: a newer pip is there", END], "No matching"),
    ],
    ids=["certificate", "no network", "no such version"],
)
def test_pip_s_cause_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, out: str, errors: list[str], cause: str
) -> None:
    """A pip that fails as the real one does; the line with the cause comes first, nothing twice."""
    program = place / "bin" / "python"
    program.parent.mkdir()
    text = "\n".join(errors)
    program.write_text(
        f"""#!/bin/sh
case "$*" in
    *" list "*) echo '[]' ;;
    *--quiet*) echo 'no pip tells its cause with --quiet' >&2; exit 1 ;;
    *) cat <<'OUT'
{out}
OUT
    cat >&2 <<'ERR'
{text}
ERR
    exit 1 ;;
esac
"""
    )
    program.chmod(0o755)
    with pytest.raises(Failure) as failure:
        environment.install(place, "training", allow_cuda=False)
    said = str(failure.value)
    assert cause in said and said.endswith(END), said
    assert said.count(cause) == 1 and "newer pip" not in said
