# SPDX-License-Identifier: Apache-2.0
"""A ring directory on a tmpfs that is full: one line at the start, no SIGBUS, and what runs already goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IS_ROOT = os.geteuid() == 0

# Runs in a mount namespace of its own: nothing stays behind. $1 is the mount point, $2 the Python.
_SCRIPT = """
mount -t tmpfs -o size=3m tmpfs "$1" || exit 77
cd "$1"
"$2" -P -c '
import sys
from pathlib import Path
import numpy as np
from tickpath.errors import RingError
from tickpath.event import RECORD
from tickpath.ring import RingReader, RingWriter
ring = RingWriter(Path("."), "first", "feed", capacity=1 << 14, rows=16)
try:
    RingWriter(Path("."), "second", "feed", capacity=1 << 16)
except RingError as error:
    print(error)
assert not Path("second.ring").exists(), "no half a ring is left"
with open("filler", "wb", buffering=0) as filler:  # to the last page
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError as error:
        print(error.strerror)
with RingReader(ring.path) as reader:
    ring.write(np.zeros(3 << 14, RECORD).view("u1"))
    out = np.zeros(1 << 14, RECORD)
    print(reader.read(out.view("u1")) + reader.lost)
'
export TICKPATH_DIRECTORY="$1"
"$2" -P -m tickpath feed ws://127.0.0.1:9/ws/btcusdt@trade --venue binance-usdm --publish none --name x; echo "feed $?"
"$2" -P -m tickpath probe wire --interface lo --port 9; echo "wire $?"
timeout -s TERM 5 "$2" -P -m tickpath exporter --listen 127.0.0.1:0; echo "exporter $?"
ls
"""


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="mounting a tmpfs needs CAP_SYS_ADMIN")
def test_a_full_tmpfs_is_one_line_at_start_and_no_signal(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", str(tmp_path), sys.executable]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if result.returncode == 77:
        pytest.skip(f"no tmpfs can be mounted: {result.stderr}")
    print(result.stdout, result.stderr)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cannot reserve 4 MiB for ring file")
    assert "free space there" in lines[0]
    assert lines[1:3] == ["No space left on device", str(3 << 14)]
    assert "feed 1" in lines
    assert "wire 1" in lines
    assert "exporter 124" in lines, "it served until it was told to stop"
    refused = [line for line in result.stderr.splitlines() if "cannot reserve" in line]
    assert len(refused) == 2
    assert "Traceback" not in result.stderr
    assert {line for line in lines if line.endswith(".ring")} == {"first.ring"}
