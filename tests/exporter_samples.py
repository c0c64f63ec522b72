# SPDX-License-Identifier: Apache-2.0
"""Snapshots made by hand, for what reads them, and a page of them."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.snapshot import ClockState, Pings, RingState, Series, SeriesKind, Snapshot
from tickpath.exporter.web.application import Application, Observed
from tickpath.exporter.web.server import Server
from tickpath.histogram import Histogram

VENUE = "binance-usdm"
FEED = "btcusdt"
STARTED_NS = 1_700_000_000_123_456_789


def histogram(values_ns: Iterable[int]) -> Histogram:
    made = Histogram()
    for value in values_ns:
        made.observe(value)
    return made


def series(
    kind: SeriesKind, name: str, values_ns: Iterable[int], *, part: str = "", feed: str = FEED, source: str = ""
) -> Series:
    return Series(kind, name, part, VENUE, feed, source, histogram(values_ns))


def empty_snapshot() -> Snapshot:
    return Snapshot((), {}, {}, {}, {}, {}, {}, {}, {}, {}, (), (), 0, 0, {})


def full_snapshot(feeds: tuple[str, ...] = (FEED,)) -> Snapshot:
    """Ten messages a feed: seven matched by offset with the wire's stamps, one by the socket's, two not at all."""
    made: list[Series] = []
    for feed in feeds:
        made += [
            series(SeriesKind.HOP, "bn_to_nic", [3_000_000 + n * 100_000 for n in range(7)], feed=feed, source="sw"),
            series(SeriesKind.HOP, "bn_to_nic", [-1_270_000_000], feed=feed, source="sock"),
            series(SeriesKind.HOP, "cpu", [1_000 + n for n in range(10)], feed=feed),
            series(SeriesKind.HOP, "msk", [17_000 + n for n in range(10)], feed=feed),
            series(SeriesKind.PART, "kernel_to_user", [500] * 10, part="decode", feed=feed),
            series(SeriesKind.SPAN, "nic_to_user", [40_000] * 7, feed=feed, source="sw"),
            series(SeriesKind.SPAN, "total", [3_100_000] * 7, feed=feed, source="sw"),
        ]
    return Snapshot(
        series=tuple(made),
        messages={(VENUE, feed): 10 for feed in feeds},
        matched={(VENUE, feed, "A", "offset", "sw"): 7 for feed in feeds}
        | {(VENUE, feed, "A", "offset", "sock"): 1 for feed in feeds},
        unmatched={(VENUE, feed, "wire_gap"): 2 for feed in feeds},
        missing={(VENUE, feed, hop, "no_kernel"): 10 for feed in feeds for hop in ("nic_to_kernel", "kernel_to_user")},
        negative={(VENUE, feed, "bn_to_nic"): 1 for feed in feeds},
        hol_blocked={(VENUE, feed): 1 for feed in feeds},
        missed={(VENUE, feed): 0 for feed in feeds},
        retransmitted={(VENUE, feed): 0 for feed in feeds},
        merged={(VENUE, feed): 2 for feed in feeds},
        rings=(
            RingState(
                0, "feed-btcusdt", "feed", True, 0, 4, 120, {"messages": 10, "connects": 1, "publish_dropped": 3}
            ),
            RingState(1, "wire-lo", "wire", False, 5, 0, 77, {"frames": 20, "frames_dropped": 2}),
        ),
        clocks=(
            ClockState("realtime", 1_700_000_000_000_000_000, 1_500_000, 1, 1),
            ClockState("phc0", 1_700_000_037_000_000_000, None, 0, 0),
        ),
        pending=2,
        records=197,
        evicted={"segment": 9},
        connects={"opened": 3, "refused": 1, "timed_out": 0, "unreachable": 0, "aborted": 0, "other": 0},
        pings=(
            Pings(
                "10.0.0.1",
                "icmp",
                {"sent": 12, "reply": 9, "lost": 2, "late": 1, "duplicate": 3, "error": 1},
                4,
                0,
                {"sw": histogram([100_000, 200_000]), "app": histogram([300_000])},
            ),
            Pings(
                "10.0.0.2:18066",
                "udp",
                {"sent": 3, "reply": 3, "lost": 0, "late": 0, "duplicate": 0, "error": 0},
                0,
                0,
                {"sw": histogram([100_000, 100_000, 100_000])},
                path={"sw": histogram([90_000, 90_000, 90_000])},
                out={"sw": histogram([100_000, 95_000])},
                back={"sw": histogram([-10_000, -5_000])},
                unsplit={"far_unbound": 1},
                split_bound_ns=math.inf,
            ),
        ),
        connect_latencies={"ipv4": histogram([2_000_000, 3_000_000]), "ipv6": histogram([500_000])},
    )


def observation(snapshot: Snapshot | None = None) -> Observation:
    made = full_snapshot() if snapshot is None else snapshot
    return Observation(
        snapshot=made,
        lost={ring.name: ring.lost for ring in made.rings},
        skipped={ring.name: ring.skipped for ring in made.rings},
        unreadable={"broken": "broken.ring: not a ring: wrong magic"},
        unreadable_total=1,
        started_ns=STARTED_NS,
    )


@dataclass
class FakeService:
    """What the web asks of the service, set by hand."""

    observed: Observation = field(default_factory=observation)
    failed: str | None = None
    unready: str | None = None

    def observe(self) -> Observation:
        return self.observed

    def failure(self) -> str | None:
        return self.failed

    def not_ready(self) -> str | None:
        return self.failed or self.unready


@contextmanager
def served(service: Observed) -> Iterator[str]:
    """HOST:PORT of the exporter's web over what a service observes."""
    server = Server(("127.0.0.1", 0), Application(service))
    server.start()
    try:
        yield urllib.parse.urlsplit(server.url).netloc
    finally:
        server.stop()
