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

from tickpath.errors import TickpathError
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.exposition.buckets import BOUNDS
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.web.application import Application
from tickpath.exporter.web.response import Request
from tickpath.histogram import Histogram
from tickpath.lab.bench.host import undisturbed
from tickpath.lab.bench.measure import alternate
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.bench.synthetic import Stream

_FEEDS = 4  # of 13 series each
_SERIES = 13 * _FEEDS
_FORMATS = {"native": Format.PROTOBUF, "text": Format.TEXT, "openmetrics": Format.OPENMETRICS}
_BAR_MS, _BAR_KB = 5, 20
_TITLES = (
    *(
        Row(
            name=f"scrape_{name}_ms",
            what=f"scrape: {_SERIES} series, {name}, compressed",
            unit="ms",
            bar=f"<= {_BAR_MS}" if name == "native" else "",
        )
        for name in _FORMATS
    ),
    *(
        Row(
            name=f"scrape_{name}_kb",
            what=f"scrape: page of {_SERIES} series, {name}, as it is sent",
            unit="KB",
            bar=f"<= {_BAR_KB}" if name == "native" else "",
        )
        for name in _FORMATS
    ),
    Row(
        name="scrape_effect",
        what="correlator: P99 from poll to poll while scraped 10 times a second, vs not",
        unit="us",
        bar="interval holds <= 1.00x",
    ),
)
_SCRAPE_EVERY_S = 0.1
_WRITE_EVERY_S = 0.005
_BATCH = 256
_WARM_UP = 40  # batches: histograms as full as those of a feed that runs


class _Observed:
    """What the pages ask for, out of a correlator alone."""

    def __init__(self, correlator: Correlator) -> None:
        self._correlator = correlator
        self._started_ns = time.time_ns()

    def observe(self) -> Observation:
        return Observation(self._correlator.snapshot(), {}, {}, {}, 0, self._started_ns, self._correlator.polls())

    def failure(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None


def _yardstick_page() -> Callable[[Format], bytes]:
    """As many histograms with as many buckets, kept by prometheus_client itself; it has no protobuf."""
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

    def __init__(self, scrape: Callable[[Format], bytes]) -> None:
        self._scrape = scrape
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(_SCRAPE_EVERY_S):
            self._scrape(Format.PROTOBUF)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _polled(correlator: Correlator, streams: list[Stream], seconds: float) -> Histogram:
    """From poll to poll of the correlator's own thread, while messages come."""
    correlator.start()
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for stream in streams:
                stream.write(_BATCH // _FEEDS // 8)
            time.sleep(_WRITE_EVERY_S)
        polls = correlator.polls()
    finally:
        correlator.stop()
    if polls is None or polls.intervals.count == 0:
        raise TickpathError("the correlator did not poll")
    return polls.intervals


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    correlator = Correlator(read_clock=False)
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(closing(Stream(settings.folder / "scrape", n))) for n in range(_FEEDS)]
        for stream in streams:
            for ring in stream.rings:
                correlator.attach(ring.path, from_start=True)
        for _ in range(_WARM_UP):
            for stream in streams:
                stream.write(_BATCH // _FEEDS)
            correlator.poll(max(stream.now_ns for stream in streams))
        application = Application(_Observed(correlator))

        def answered(chosen: Format, encoding: str | None = "gzip") -> bytes:
            return application.answer(Request("GET", "/metrics", chosen.value, encoding)).body

        theirs = _yardstick_page()
        for name, chosen in _FORMATS.items():
            row = rows[f"scrape_{name}_ms"]
            pairs = alternate(
                partial(_cpu_ns, answered, chosen),
                partial(_cpu_ns, theirs, chosen),
                settings.effort(least=20, most=100, budget_s=2),
            )
            row.compared(pairs, "prometheus_client's own histograms, as text", 1e-6)
            size = rows[f"scrape_{name}_kb"]
            size.measured([len(answered(chosen))], 1e-3)
            size.note = f"{len(answered(chosen, None)) * 1e-3:.1f} KB before gzip, which Prometheus always asks for"
            if chosen is Format.PROTOBUF:
                row.judge((row.value or 0) <= _BAR_MS)
                size.judge((size.value or 0) <= _BAR_KB)

        longest: dict[bool, int] = {True: 0, False: 0}

        def interval(*, scraped: bool) -> float:
            with ExitStack() as scraping:
                if scraped:
                    scraping.enter_context(_Scraper(answered))
                found = _polled(correlator, streams, 0.25 if settings.quick else 0.6)
            longest[scraped] = max(longest[scraped], found.max_ns or 0)
            return found.quantile_ns(0.99) or 0

        effect = rows["scrape_effect"]
        with undisturbed():
            pairs = alternate(
                partial(interval, scraped=True),
                partial(interval, scraped=False),
                settings.effort(least=12, most=12, budget_s=0),
            )
        effect.compared(pairs, "not scraped", 1e-3)
        effect.note = f"longest: {longest[True] / 1e6:.1f} ms scraped, {longest[False] / 1e6:.1f} ms not"
        effect.clocks = (effect.value or 0) * 1e3 / settings.clock_ns
        effect.judge((effect.ratio_low or 0) <= 1.0)


GROUP = Group("scrape", _TITLES, _run)
