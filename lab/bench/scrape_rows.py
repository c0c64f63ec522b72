# SPDX-License-Identifier: Apache-2.0
"""Scrape: size and time of a page of 52 histogram series, and what ten scrapes a second do to the correlator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import prometheus_client
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tickpath.exporter.correlator import Correlator
from tickpath.exporter.exposition.buckets import BOUNDS
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.exposition.page import MetricsPage
from tickpath.lab.bench.host import undisturbed
from tickpath.lab.bench.measure import alternate
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.bench.synthetic import Stream

_FEEDS = 4  # of 13 series each
_SERIES = 13 * _FEEDS
_FORMATS = {"text": Format.TEXT, "openmetrics": Format.OPENMETRICS}
_TITLES = (
    *(Row(name=f"scrape_{name}_ms", what=f"scrape: {_SERIES} series, {name}", unit="ms") for name in _FORMATS),
    *(Row(name=f"scrape_{name}_kb", what=f"scrape: page of {_SERIES} series, {name}", unit="KB") for name in _FORMATS),
    Row(
        name="scrape_effect",
        what="correlator: a message while scraped 10 times a second, vs not",
        unit="ns",
        bar="interval holds <= 1.00x",
    ),
)
_NATIVE = "classic buckets; the bar of 5 ms and 20 KB is for native histograms, which are not served yet"
_SCRAPE_EVERY_S = 0.1
_BATCH = 1024


def _yardstick_page() -> Callable[[Format], bytes]:
    """As many histograms with as many buckets, kept by prometheus_client itself."""
    registry = prometheus_client.CollectorRegistry()
    bounds = [float(bound) for bound in BOUNDS]
    histogram = prometheus_client.Histogram(
        "bench_hop_latency_seconds", "bench", ["hop", "venue", "feed", "source"], registry=registry, buckets=bounds
    )
    for number in range(_SERIES):
        histogram.labels(f"hop-{number % 13}", "bench", f"feed-{number // 13}", "sw").observe(1e-5)

    def render(chosen: Format) -> bytes:
        if chosen is Format.OPENMETRICS:
            page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call] # ships no types
            return page
        return prometheus_client.generate_latest(registry)

    return render


def _cpu_ns(render: Callable[[Format], bytes], chosen: Format) -> float:
    began_ns = time.thread_time_ns()
    render(chosen)
    return time.thread_time_ns() - began_ns


class _Scraper:
    """A thread that asks for the page again and again."""

    def __init__(self, render: Callable[[Format], bytes]) -> None:
        self._render = render
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(_SCRAPE_EVERY_S):
            self._render(Format.TEXT)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    correlator = Correlator(read_clock=False)
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(closing(Stream(settings.folder / "scrape", n))) for n in range(_FEEDS)]
        for stream in streams:
            for ring in stream.rings:
                correlator.attach(ring.path, from_start=True)

        def join() -> int:
            """Wall time: what a scrape takes away is a lock, the interpreter or a core."""
            for stream in streams:
                stream.write(_BATCH // _FEEDS)
            began_ns = time.monotonic_ns()
            correlator.poll(max(stream.now_ns for stream in streams))
            return time.monotonic_ns() - began_ns

        def joining() -> float:
            spent_ns = batches = 0
            until = time.monotonic() + (0.25 if settings.quick else 0.5)
            while time.monotonic() < until:
                spent_ns += join()
                batches += 1
            return spent_ns / (batches * _BATCH)

        join()
        page = MetricsPage(lambda: Observation(correlator.snapshot(), {}, {}, {}, 0, 0))
        theirs = _yardstick_page()
        for name, chosen in _FORMATS.items():
            row = rows[f"scrape_{name}_ms"]
            pairs = alternate(
                partial(_cpu_ns, page.render, chosen),
                partial(_cpu_ns, theirs, chosen),
                settings.effort(least=20, most=100, budget_s=2),
            )
            row.compared(pairs, "prometheus_client's own histograms", 1e-6)
            row.note = _NATIVE
            size = rows[f"scrape_{name}_kb"]
            size.measured([len(page.render(chosen))], 1e-3)
            size.yardstick, size.yardstick_value = row.yardstick, len(theirs(chosen)) * 1e-3

        def scraped() -> float:
            with _Scraper(page.render):
                return joining()

        effect = rows["scrape_effect"]
        with undisturbed():
            pairs = alternate(scraped, joining, settings.effort(least=12, most=12, budget_s=0))
        effect.compared(pairs, "not scraped")
        effect.clocks = (effect.value or 0) / settings.clock_ns
        effect.judge((effect.ratio_low or 0) <= 1.0)


GROUP = Group("scrape", _TITLES, _run)
