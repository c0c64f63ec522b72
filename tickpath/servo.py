# SPDX-License-Identifier: Apache-2.0
"""Asks chronyd and ptp4l whether they are in lock, by their own tools. Changes nothing; waits two seconds at most."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 2.0
_TRACKING_FIELDS = 14
_MOST_BYTES = 1 << 16
_LOCAL = 0x7F7F0101
# IEEE 1588: what a port of a clock that follows another goes through.
_FOLLOWING = ("SLAVE", "TIME_RECEIVER")


@dataclass(frozen=True, slots=True)
class Said:
    """What a servo says of itself. locked: None where that is not known; `detail` says why then."""

    locked: bool | None
    detail: str


def chrony(command: Sequence[str] = ("chronyc", "-c", "-n", "tracking"), timeout_s: float = TIMEOUT_S) -> Said:
    """What `chronyc` says of the chronyd that it reaches."""
    answer = _answer(command, timeout_s)
    return answer if isinstance(answer, Said) else tracking(answer)


def ptp(process: str = "", timeout_s: float = TIMEOUT_S) -> Said:
    """What `pmc` says of the ptp4l whose command line is `process`: that, or its file, names its socket and domain."""
    command = ["pmc", "-u", "-b", "0"]
    settings = process
    if named := re.search(r"(?:^|\s)-f\s*(\S+)", process):
        with contextlib.suppress(OSError), Path(named[1]).open(encoding="utf-8", errors="replace") as file:
            settings += "\n" + file.read(_MOST_BYTES)
    for option, flag in (("uds_address", "-s"), ("domainNumber", "-d")):
        if found := re.search(rf"(?:--|^[ \t]*){option}(?:=|[ \t]+)(\S+)", settings, re.MULTILINE):
            command += [flag, found[1]]
    answer = _answer([*command, "GET TIME_STATUS_NP", "GET PORT_DATA_SET"], timeout_s)
    return answer if isinstance(answer, Said) else time_status(answer)


def _answer(command: Sequence[str], timeout_s: float) -> str | Said:
    """What it wrote, or why there is nothing."""
    tool = command[0]
    if not shutil.which(tool):
        return Said(None, f"{tool} is not on the PATH")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Said(None, f"{tool} gave no answer within {timeout_s:g} s")
    except OSError as error:
        return Said(None, f"{tool} cannot be run: {error.strerror}")
    out = done.stdout[:_MOST_BYTES].decode("utf-8", "replace")
    if done.returncode:
        why = (done.stderr.decode("utf-8", "replace").strip() or out.strip() or f"code {done.returncode}").splitlines()
        return Said(None, f"{tool} could not ask it: {why[-1][:200]}")
    return out


def tracking(text: str) -> Said:
    """Of `chronyc -c tracking`: one line of 14 fields, seconds and ppm."""
    fields = text.strip().split(",")
    if len(fields) != _TRACKING_FIELDS:
        return Said(None, "chronyc's answer cannot be read")
    try:
        reference, name, stratum, leap = int(fields[0], 16), fields[1], int(fields[2]), fields[13]
        off_s, delay_s, dispersion_s = float(fields[4]), float(fields[10]), float(fields[11])
    except ValueError:
        return Said(None, "chronyc's answer cannot be read")
    if leap == "Not synchronised" or reference == 0:
        return Said(False, "it has no source that it follows")
    if reference == _LOCAL:
        return Said(False, f"it gives its own clock out as stratum {stratum} and follows no source")
    # RFC 5905: the root distance bounds what a server's time may be off by.
    bound_ms = (delay_s / 2 + dispersion_s) * 1e3
    return Said(
        True,
        f"in lock with {name or f'{reference:08X}'}, stratum {stratum}; {off_s * 1e6:+.3f} us still to correct, "
        f"root distance {bound_ms:.3f} ms",
    )


def time_status(text: str) -> Said:
    """Of pmc's TIME_STATUS_NP and PORT_DATA_SET, of each port one: lines of a name and a value."""
    states = re.findall(r"^\s*portState\s+(\w+)\s*$", text, re.MULTILINE)
    offset = re.search(r"^\s*master_?[oO]ffset\s+(-?\d{1,19})\s*$", text, re.MULTILINE)
    if not states:
        return Said(None, "pmc had no answer from it")
    if any(state in _FOLLOWING for state in states):
        off = f"{int(offset[1]):+d} ns from it" if offset else "how far off it does not say"
        return Said(True, f"in lock with its time transmitter, {off}")
    named = ", ".join(states)
    if all(state in ("MASTER", "GRAND_MASTER", "TIME_TRANSMITTER") for state in states):
        return Said(True, f"follows nobody: it gives time to others (port {named})")
    off = f", {int(offset[1]):+d} ns from it" if offset and "UNCALIBRATED" in states else ""
    found = "it measures a time transmitter and does not follow it" if off else "it follows no clock"
    return Said(False, f"{found} (port {named}){off}")
