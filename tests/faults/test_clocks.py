# SPDX-License-Identifier: Apache-2.0
"""Clocks that are not what a reader takes them for: stepped ones, and those of another time namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from correlator.model import MS, OFFSET_NS, START_NS, clock_record, row, write
from correlator.test_correlator import message, read, segment
from plant import Plant, wait_for
from tickpath.errors import RingError
from tickpath.event import ClockFlag
from tickpath.exporter.correlator import Correlator
from tickpath.ring import RingReader, RingWriter

IS_ROOT = os.geteuid() == 0
root = pytest.mark.root
needs_root = pytest.mark.skipif(not IS_ROOT, reason="a time namespace needs CAP_SYS_ADMIN")

_PRODUCER = """
import sys
from pathlib import Path
from tickpath.ring import RingWriter
with RingWriter(Path(sys.argv[1]), "feed-a", "feed", capacity=64, rows=4):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def _produce(directory: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-P", "-c", _PRODUCER, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def shifted(tmp_path: Path) -> Iterator[Path]:
    """The ring directory of a producer whose CLOCK_MONOTONIC is a thousand seconds ahead."""
    producer = _produce(tmp_path, "unshare", "--time", "--monotonic", "1000")
    yield tmp_path
    producer.communicate("\n", 20)


@root
@needs_root
def test_a_producer_on_another_monotonic_clock_is_refused_in_one_line(shifted: Path) -> None:
    with pytest.raises(RingError, match="another time namespace") as refused:
        RingReader(shifted / "feed-a.ring")
    assert "\n" not in str(refused.value)


@root
@needs_root
def test_a_namespace_that_shifts_only_the_boot_clock_is_the_same_timeline(tmp_path: Path) -> None:
    producer = _produce(tmp_path, "unshare", "--time", "--boottime", "1000")
    with RingReader(tmp_path / "feed-a.ring") as reader:
        assert reader.alive
    producer.communicate("\n", 20)


@root
@needs_root
def test_a_successor_on_another_monotonic_clock_takes_a_new_file(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64, rows=4) as writer:
        reader = RingReader(writer.path)
    with reader:
        producer = _produce(tmp_path, "unshare", "--time", "--monotonic", "1000")
        assert (tmp_path / "feed-a.ring").stat().st_ino != reader.inode
        assert not reader.alive, "what this reader follows is not written on another clock"
        producer.communicate("\n", 20)


@root
@needs_root
def test_the_exporter_names_it_and_goes_on_with_the_others(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, feeds=["b"]) as plant:
        producer = _produce(plant.rings, "unshare", "--time", "--monotonic", "1000")
        wait_for(lambda: "feed-a" in plant.summary().unreadable_rings, "the ring's refusal")
        assert "another time namespace" in plant.summary().unreadable_rings["feed-a"]
        producer.communicate("\n", 20)
        summary = plant.settle()
        assert plant.books(summary).uncounted == 0


SECOND = 1000 * MS


@pytest.mark.parametrize("step_ns", [3600 * SECOND, -3600 * SECOND, 50 * MS, -50 * MS], ids=str)
def test_a_stepped_clock_is_counted_and_measures_on_in_its_new_epoch(tmp_path: Path, step_ns: int) -> None:
    """A message a millisecond for two seconds; half way the realtime clock is set."""
    correlator = Correlator(read_clock=False)
    with contextlib.ExitStack() as stack:
        feed, wire = (
            stack.enter_context(RingWriter(tmp_path, f"{kind}-a", kind, capacity=1 << 14, rows=4))
            for kind in ("feed", "wire")
        )
        for ring in (feed, wire):
            correlator.attach(ring.path)
        connection = row(irs=2**32 - 50)
        f, w = feed.open_row(connection), wire.open_row(connection)
        assert f is not None
        assert w is not None
        count, set_at, batch = 2000, 1025, 50
        write(feed, clock_record(START_NS, OFFSET_NS))
        for first in range(0, count, batch):
            # The exporter reads the clock before it drains the rings: after the messages that lie there by then.
            read_at = START_NS + (first + batch) * MS
            reading = clock_record(read_at, OFFSET_NS + (step_ns if first + batch > set_at else 0))
            if first < set_at < first + batch:
                reading["flags"] = ClockFlag.STEPPED
            write(wire, reading)  # drained first, as what the exporter reads itself
            for number in range(first, first + batch):
                now = START_NS + number * MS
                offset = OFFSET_NS + (step_ns if number >= set_at else 0)
                write(wire, segment(w, now + 10_000, number * 100, 100, offset_ns=offset))
                write(feed, read(f, now + 20_000, number * 100, number * 100 + 100))
                write(feed, message(f, now + 25_000, number * 100 + 100, number, exchange_ns=now + offset - 3 * MS))
            correlator.poll(read_at)
        correlator.flush(START_NS + count * MS)
        state = correlator.snapshot()
        assert sum(state.matched.values()) + sum(state.unmatched.values()) == count
        (clock,) = (clock for clock in state.clocks if clock.clock == "realtime")
        assert clock.steps == 1
        values = {one.name: one.histogram for one in state.series if one.name in ("bn_to_nic", "nic_to_user")}
        withheld = {hop: sum(n for (_, _, leg, _), n in state.missing.items() if leg == hop) for hop in values}
        for hop, truth_ns in (("bn_to_nic", 3 * MS + 10_000), ("nic_to_user", 15_000)):
            histogram = values[hop]
            assert histogram.count + withheld[hop] == count, "measured, or missing by reason"
            # The hour that a clock set back shows twice is withheld whole: which of the two a stamp is of is not known.
            least = 900 if step_ns < -SECOND else count - 250
            assert histogram.count >= least, "only what lies near the step is withheld"
            # No figure is off by the step: everything that was measured is what it was.
            assert histogram.min_ns == histogram.max_ns == truth_ns
        reasons = {reason for (_, _, hop, reason) in state.missing if hop in values}
        assert reasons <= {"clock_step"}
