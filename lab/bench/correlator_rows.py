# SPDX-License-Identifier: Apache-2.0
"""Correlator: CPU per message with all its records, through real rings, histograms included."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np

from tickpath.errors import TickpathError
from tickpath.event import RECORD
from tickpath.exporter.correlator import Correlator
from tickpath.histogram import Histogram
from tickpath.lab.bench._bench import observe_ns
from tickpath.lab.bench.measure import alternate
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.bench.synthetic import Stream
from tickpath.ring import RingReader

BAR_NS = 250
_TITLES = (
    Row(
        name="correlator",
        what="correlator: a message with its wire, readable, copied and read records",
        unit="ns",
        bar="<= 250",
    ),
)
_OBSERVATIONS = 13  # five hops, six parts, two spans
_BATCH = 2048


def _check(correlator: Correlator, messages: int) -> None:
    snapshot = correlator.snapshot()
    matched = sum(count for key, count in snapshot.matched.items() if key[3] == "offset")
    observed = sum(series.histogram.count for series in snapshot.series)
    if (matched, observed) != (messages, _OBSERVATIONS * messages):
        raise TickpathError(
            f"{matched} of {messages} messages were joined by offset, with {observed} observations: "
            f"{dict(snapshot.unmatched)} {dict(snapshot.missing)}"
        )


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    folder = settings.folder / "correlator"
    with closing(Stream(folder)) as stream:
        correlator = Correlator(read_clock=False)
        for ring in stream.rings:
            correlator.attach(ring.path, from_start=True)
        readers = [RingReader(ring.path) for ring in stream.rings]
        batch = np.zeros(512, dtype=RECORD).view(np.uint8)

        def read_and_observe() -> float:
            began_ns = time.thread_time_ns()
            for reader in readers:
                while reader.read(batch):
                    pass
            return (time.thread_time_ns() - began_ns) / _BATCH + _OBSERVATIONS * observation_ns

        def join() -> float:
            began_ns = time.thread_time_ns()
            correlator.poll(stream.now_ns)
            return (time.thread_time_ns() - began_ns) / _BATCH

        values_ns = np.random.default_rng(1).lognormal(np.log(20_000), 1.5, 4096).astype(np.int64)
        observation_ns = observe_ns(Histogram(), values_ns, 100)
        effort = settings.effort(least=40, most=400, budget_s=5)
        stream.write(_BATCH)
        join(), read_and_observe()  # the first batch pays for the maps
        pairs = alternate(join, read_and_observe, effort, before=lambda: stream.write(_BATCH))
        _check(correlator, (len(pairs.ours) + 1) * _BATCH)
    row = rows["correlator"]
    row.compared(pairs, "reading the records and 13 observations alone")
    row.clocks = (row.value or 0) / settings.clock_ns
    row.judge((row.value or 0) <= BAR_NS)


GROUP = Group("correlator", _TITLES, _run)
