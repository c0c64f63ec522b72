# SPDX-License-Identifier: Apache-2.0
"""The latency families: signed histograms by their labels, and how the text formats show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.core import Exemplar as TextExemplar
from prometheus_client.core import HistogramMetricFamily

from tickpath.exporter.exposition.buckets import BOUNDS, bound_of, split
from tickpath.exporter.exposition.exemplars import labels_of
from tickpath.exporter.exposition.label import label
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.snapshot import Exemplar, SeriesKind
from tickpath.histogram import Histogram

UNIT = "seconds"
_NEGATIVE_HELP = "Magnitudes of negative times: evidence of clock error. They are in no other histogram of this page."
_NEGATIVE_LABELS = ("hop", "part", "span", "venue", "feed", "source", "target", "direction")


@dataclass(slots=True)
class Latency:
    """One series: a signed histogram, and a few of the messages in its tail."""

    histogram: Histogram
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(slots=True)
class LatencyFamily:
    """A histogram family. `series` is by label values, in the order of `labels`."""

    name: str
    help: str
    labels: tuple[str, ...]
    series: dict[tuple[str, ...], Latency] = field(default_factory=dict)

    def add(self, values: tuple[str, ...], one: Latency) -> None:
        """Add a series; one whose labels are alike once encoded is added up: a series may only be written once."""
        encoded = tuple(map(label, values))
        before = self.series.get(encoded)
        if before is None:
            self.series[encoded] = one
            return
        both = before.histogram.copy()
        both.merge(one.histogram)
        self.series[encoded] = Latency(both, before.exemplars + one.exemplars)


def latencies(observation: Observation) -> list[LatencyFamily]:
    """Hops, parts and spans, how long connecting took, and how often rings were looked at."""
    hop = LatencyFamily(
        "tickpath_hop_latency_seconds", "Time of one hop per message.", ("hop", "venue", "feed", "source")
    )
    part = LatencyFamily(
        "tickpath_hop_part_latency_seconds",
        "Time of one part of a hop per message.",
        ("hop", "part", "venue", "feed", "source"),
    )
    span = LatencyFamily(
        "tickpath_span_latency_seconds",
        "Time of a span of several hops per message.",
        ("span", "venue", "feed", "source"),
    )
    polls = LatencyFamily(
        "tickpath_exporter_poll_interval_seconds",
        "Time from the beginning of one look at the rings to that of the next.",
        (),
    )
    connect = LatencyFamily(
        "tickpath_connect_latency_seconds", "Time that attempts to connect took, of those that succeeded.", ("family",)
    )
    rtt = LatencyFamily(
        "tickpath_ping_rtt_seconds",
        "Round trips of pings that were answered, late ones too, by what took both ends of it.",
        ("target", "proto", "source"),
    )
    path = LatencyFamily(
        "tickpath_ping_path_seconds",
        "Round trips without the time at the far end, where that told it: out and back together.",
        ("target", "source"),
    )
    oneway = LatencyFamily(
        "tickpath_ping_oneway_seconds",
        "One way of answered pings, where both ends' clocks are known well enough.",
        ("target", "direction", "source"),
    )
    for one in observation.snapshot.series:
        latency = Latency(one.histogram, one.exemplars)
        if one.kind is SeriesKind.PART:
            part.add((one.name, one.part, one.venue, one.feed, one.source), latency)
        else:
            family = hop if one.kind is SeriesKind.HOP else span
            family.add((one.name, one.venue, one.feed, one.source), latency)
    if observation.polls:
        polls.add((), Latency(observation.polls.intervals))
    for by, histogram in observation.snapshot.connect_latencies.items():
        connect.add((by,), Latency(histogram))
    for pings in observation.snapshot.pings:
        for source, histogram in pings.rtt.items():
            rtt.add((pings.target, pings.proto, source), Latency(histogram))
        for source, histogram in pings.path.items():
            path.add((pings.target, source), Latency(histogram))
        for direction, histograms in (("out", pings.out), ("back", pings.back)):
            for source, histogram in histograms.items():
                oneway.add((pings.target, direction, source), Latency(histogram))
    return [hop, part, span, connect, rtt, path, oneway, polls]


def classic(families: list[LatencyFamily]) -> Iterator[HistogramMetricFamily]:
    """The same for the text formats, whose histograms cannot hold what is below zero: it is in a family of its own."""
    negative = HistogramMetricFamily(
        "tickpath_negative_latency_seconds", _NEGATIVE_HELP, labels=_NEGATIVE_LABELS, unit=UNIT
    )
    for family in families:
        shown = HistogramMetricFamily(family.name, f"{family.help} Values from 0 up.", labels=family.labels, unit=UNIT)
        for values, one in family.series.items():
            above, below = split(one.histogram)
            _add(shown, values, above.cumulative, above.sum_ns, [e for e in one.exemplars if e.value_ns >= 0])
            if below.count:
                named = dict(zip(family.labels, values, strict=True))
                _add(
                    negative,
                    tuple(named.get(name, "") for name in _NEGATIVE_LABELS),
                    below.cumulative,
                    below.sum_ns,
                    [e for e in one.exemplars if e.value_ns < 0],
                )
        yield shown
    yield negative


def _add(
    family: HistogramMetricFamily,
    values: tuple[str, ...],
    cumulative: list[int],
    sum_ns: int,
    exemplars: list[Exemplar],
) -> None:
    """One series; a bucket shows the slowest of the exemplars that lie in it."""
    by_bound: dict[str, Exemplar] = {}
    for one in sorted(exemplars, key=lambda e: abs(e.value_ns)):
        by_bound[bound_of(abs(one.value_ns))] = one
    buckets: list[tuple[str, float] | tuple[str, float, TextExemplar]] = []
    for bound, count in zip(BOUNDS, cumulative, strict=True):
        found = by_bound.get(bound)
        if found is None:
            buckets.append((bound, count))
        else:
            shown = TextExemplar(labels_of(found), abs(found.value_ns) / 1e9, found.time_ns / 1e9)
            buckets.append((bound, count, shown))
    family.add_metric(values, buckets, sum_ns / 1e9)
