# SPDX-License-Identifier: Apache-2.0
"""Logs go to standard error, in the form and from the level that the configuration says."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = (
    "import structlog, tickpath.log as log; log.set_up(); l = structlog.get_logger(); l.info('low'); l.error('up', n=1)"
)


def _run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, text=True, capture_output=True, check=True, timeout=60
    )


def test_json_lines_on_standard_error_from_the_level_asked_for() -> None:
    done = _run(TICKPATH_LOG_FORMAT="json", TICKPATH_LOG_LEVEL="warning", PYTHONSAFEPATH="1")
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["event"], entry["n"]) == ("error", "up", 1)
    assert done.stdout == ""


def test_logfmt_where_there_is_no_terminal_and_unknown_variables_are_told() -> None:
    done = _run(TICKPATH_DIRECTRY="/x", PYTHONSAFEPATH="1")
    assert "did you mean 'TICKPATH_DIRECTORY'?" in done.stderr
    assert "level=info event=low" in done.stderr
