# SPDX-License-Identifier: Apache-2.0
"""Thousands of connections: memory stays within its bound, and what had to be let go is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# In a process of its own, so that what it holds is the correlator's. $1 directory, $2 how many connections, $3 how many
# of them are open at once.
_PROGRAM = """
import json, sys
from pathlib import Path
from correlator.model import MS, START_NS, clock_record, row, write
from correlator.test_correlator import message, read, segment
from tickpath.exporter.correlator import Correlator
from tickpath.ring import RingWriter

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10

directory, total, together = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
correlator = Correlator(read_clock=False)
feed = RingWriter(directory, "feed-a", "feed", capacity=1 << 16, rows=together + 1)
wire = RingWriter(directory, "wire-a", "wire", capacity=1 << 16, rows=together + 1)
for ring in (feed, wire):
    correlator.attach(ring.path)
write(feed, clock_record())
now, open_ones, marks, sent, records = START_NS, [], [], 0, 0
correlator.poll(now)
began = resident()
for number in range(total):
    now += MS
    local = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1024 + number % 60000)
    if len(open_ones) == together:
        f, w = open_ones.pop(0)
        feed.close_row(f, now)
        wire.close_row(w, now)
    w = wire.open_row(row(local=local, irs=2**32 - 50, opened_ns=now))
    f = feed.open_row(row(local=local, irs=2**32 - 50, opened_ns=now, cookie=number + 1))
    open_ones.append((f, w))
    for ordinal in range(3):
        at = now + 1000 * ordinal
        write(wire, segment(w, at, 100 * ordinal, 100))
        write(feed, read(f, at + 300, 100 * ordinal, 100 * ordinal + 100))
        write(feed, message(f, at + 400, 100 * ordinal + 100, ordinal))
        records += 3
        sent += 1
    if number % 200 == 0:
        correlator.poll(now)
    if number in (total // 2, total - 1):
        correlator.poll(now)
        marks.append(resident())
now += 10_000 * MS
correlator.poll(now)
correlator.flush(now)
state = correlator.snapshot()
totals = correlator.totals()
print(json.dumps({
    "sent": sent,
    "offset": sum(n for (_, _, _, method, _), n in state.matched.items() if method == "offset"),
    "counted": sum(state.matched.values()) + sum(state.unmatched.values()),
    "lost": sum(ring.lost for ring in state.rings),
    "grown": [mark - began for mark in marks],
    "records_per_connection": records / total,
    "totals": totals,
}))
"""


def _run(directory: Path, total: int, together: int) -> dict[str, Any]:
    tests = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, directory, str(total), str(together)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    print(told)
    return told


def test_connections_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    told = _run(tmp_path, 8000, 200)
    assert told["lost"] == 0
    assert told["counted"] == told["offset"] == told["sent"]
    half, whole = told["grown"]
    assert whole - half < 4 << 20, "the second half took no memory of its own"


@pytest.mark.parametrize("together", [2000, 6000])
def test_thousands_of_connections_at_once_are_bounded_and_counted(tmp_path: Path, together: int) -> None:
    told = _run(tmp_path, together, together)
    assert told["lost"] == 0
    assert told["counted"] == told["sent"]
    assert max(told["grown"]) < 64 << 20
    totals = told["totals"]
    assert totals["memory_bytes"] <= 32 << 20
    if together <= 4096:
        assert totals["connections_evicted"] == totals["flows_evicted"] == 0
        assert told["offset"] == told["sent"]
    else:
        assert totals["connections_evicted"] > 0
        assert totals["flows_evicted"] > 0
