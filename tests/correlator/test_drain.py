# SPDX-License-Identifier: Apache-2.0
"""The correlator polls by itself: whatever holds the interpreter does not hold it, and it keeps its books meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tickpath.event import RECORD, Kind
from tickpath.exporter.correlator import Correlator
from tickpath.lab.bench.synthetic import Stream
from tickpath.ring import RingWriter

_HOLD_S = 0.2


@pytest.fixture
def correlator() -> Iterator[Correlator]:
    made = Correlator(read_clock=False)
    made.start()
    yield made
    made.stop()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.005)


def begun(correlator: Correlator) -> int:
    polls = correlator.polls()
    return polls.last_ns if polls else 0


def test_it_polls_while_the_interpreter_is_held(correlator: Correlator) -> None:
    """A single call into C that keeps the interpreter for long: no other Python thread runs meanwhile."""
    until(lambda: begun(correlator) > 0)
    before = correlator.polls()
    began_ns = time.monotonic_ns()
    while time.monotonic_ns() - began_ns < _HOLD_S * 1e9:
        sorted(range(200_000), key=str)
    after = correlator.polls()
    assert before
    assert after
    # Ten of a hundred: the host may be busy with others.
    assert after.intervals.count - before.intervals.count > 10


def test_records_are_taken_without_anyone_asking(correlator: Correlator, tmp_path: Path) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=1024) as writer:
        ring = correlator.attach(writer.path, from_start=True)
        made = np.zeros(100, dtype=RECORD)
        made["kind"] = Kind.READ
        writer.write(made.view("u1"))
        until(lambda: correlator.totals()["records"] == 101)
        correlator.detach(ring)


def test_it_starts_once_and_stops_for_good(correlator: Correlator) -> None:
    with pytest.raises(RuntimeError):
        correlator.start()
    correlator.stop()
    assert correlator.polls() is None
    correlator.stop()
    correlator.start()
    until(lambda: begun(correlator) > 0)


def test_one_that_is_forgotten_while_it_polls_ends_its_thread() -> None:
    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    before = threads()
    made = Correlator(read_clock=False)
    made.start()
    (its,) = threads() - before
    del made
    # It has been joined; the kernel lists it for a moment more.
    until(lambda: its not in threads())


def test_messages_of_the_tail_are_named(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False)
    with closing(Stream(tmp_path, 4)) as stream:
        for ring in stream.rings:
            correlator.attach(ring.path, from_start=True)
        before_ns = time.time_ns()
        stream.write(4000)
        correlator.poll(stream.now_ns)
    found = correlator.snapshot().series
    assert len(found) == 13
    for series in found:
        assert series.exemplars
        for one in series.exemplars:
            assert (one.feed, one.connection) == ("feed-4", 5)
            assert one.ordinal < 4000
            # When it was received, by the realtime clock of the records: 0.1 ms apart, from now on.
            assert abs(one.time_ns - before_ns - one.ordinal * 100_000) < 10**10
            assert series.histogram.min_ns is not None
            assert series.histogram.max_ns is not None
            assert series.histogram.min_ns <= one.value_ns <= series.histogram.max_ns
