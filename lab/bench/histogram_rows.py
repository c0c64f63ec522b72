# SPDX-License-Identifier: Apache-2.0
"""Histogram: one observation in C, beside prometheus_client's."""

from __future__ import annotations

import time

import numpy as np
import prometheus_client

from tickpath.histogram import Histogram
from tickpath.lab.bench._bench import observe_ns
from tickpath.lab.bench.measure import alternate
from tickpath.lab.bench.row import Group, Row, Settings

_TITLES = (Row(name="histogram", what="histogram: one observation", unit="ns", bar="<= 10 and >= 100x"),)


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    # Latencies: a median of 20 µs with a long tail, no two alike, so that no branch can be learnt by heart.
    values_ns = np.random.default_rng(1).lognormal(np.log(20_000), 1.5, 4096).astype(np.int64)
    histogram = Histogram()
    theirs = prometheus_client.Histogram("bench_seconds", "bench", registry=prometheus_client.CollectorRegistry())
    in_seconds = [float(ns) / 1e9 for ns in values_ns]

    def client_observe_ns() -> float:
        observe = theirs.observe
        began_ns = time.thread_time_ns()
        for value in in_seconds:
            observe(value)
        return (time.thread_time_ns() - began_ns) / len(in_seconds)

    pairs = alternate(
        lambda: observe_ns(histogram, values_ns, 20 if settings.quick else 500),
        client_observe_ns,
        settings.effort(least=20, most=100, budget_s=4),
    )
    row = rows["histogram"]
    row.compared(pairs, "prometheus_client observe()")
    row.clocks = (row.value or 0) / settings.clock_ns
    row.judge((row.value or 0) <= 10 and pairs.ratio.median <= 0.01)


GROUP = Group("histogram", _TITLES, _run)
