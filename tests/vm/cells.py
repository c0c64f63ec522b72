# SPDX-License-Identifier: Apache-2.0
"""Runs inside a guest: each rung's tests, or its refusal, into /results; what of it is right is for the host to say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RESULTS = Path("/results")
_PROBE = [sys.executable, "-P", "-m", "tickpath", "probe", "kernel", "--port", "1", "--directory", "/tmp/refused"]
# Everything takes some twenty times as long as on the machine itself, and ten times that where that is busy.
_TEST_TIMEOUT_S, _REFUSAL_TIMEOUT_S = 600, 400


def main() -> int:
    """Arguments: a word RUNG=tests or RUNG=refusal for each rung, then the folders of tests for it."""
    print(f"kernel {os.uname().release}, lockdown {_lockdown()}", flush=True)
    (RESULTS / "release").write_text(os.uname().release)
    (RESULTS / "lockdown").write_text(_lockdown())
    for cell in sys.argv[1:]:
        rung, _, tests = cell.partition("=")
        print(f"--- {rung}", flush=True)
        if tests:
            _test(rung, tests.split())
        else:
            _refusal(rung)
    return 0


def _lockdown() -> str:
    path = Path("/sys/kernel/security/lockdown")
    return path.read_text().partition("[")[2].partition("]")[0] if path.exists() else "none"


def _test(rung: str, tests: list[str]) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", f"--timeout={_TEST_TIMEOUT_S}", "--durations=5"]
    # Each ring takes 4 MiB of the guest's memory, and pytest keeps those of three runs: more than there is.
    options += ["-o", "tmp_path_retention_policy=failed"]
    subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options, f"--junitxml={RESULTS / rung}.xml", *tests],
        env={**os.environ, "TICKPATH_KERNEL_RUNG": rung},
        check=False,
    )


def _refusal(rung: str) -> None:
    try:
        done = subprocess.run(
            [*_PROBE, "--rung", rung], capture_output=True, text=True, check=False, timeout=_REFUSAL_TIMEOUT_S
        )
        said, status = done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        said, status = "", 0
    print(said or "it runs", flush=True)
    (RESULTS / f"{rung}.refusal").write_text(f"{status}\n{said}")


if __name__ == "__main__":
    sys.exit(main())
