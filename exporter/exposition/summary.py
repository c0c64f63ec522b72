# SPDX-License-Identifier: Apache-2.0
"""The exact figures of a snapshot, added up over feeds: /api/summary, and what the demo prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tickpath.exporter.exposition.label import label
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.snapshot import Series, SeriesKind
from tickpath.histogram import Histogram

HOPS = ("bn_to_nic", "nic_to_kernel", "kernel_to_user", "cpu", "msk")
"""The five hops, in the order in which a message passes them (DESIGN 2)."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "nic_to_kernel": ("hol_wait", "stack"),
    "kernel_to_user": ("app_busy", "wake", "backlog", "decode"),
}
"""The parts of each hop that has some."""

SPANS = ("total", "in_host", "nic_to_user")
"""What is measured over several hops."""

METHODS = ("offset", "socket", "window")
"""How a message can be matched, best first."""


class Figures(msgspec.Struct, frozen=True, omit_defaults=True):
    """One histogram in figures. `sum_ns` and `max_ns` are exact, quantiles within one bucket (4.4 %).

    `source` is who took the wire stamp, left out where none enters. Stamps of different sources are never added up:
    where there are several, these figures are of the one with the most messages, and `other_sources` holds the rest.
    """

    count: int
    sum_ns: int
    p50_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    max_ns: int | None
    source: str = ""
    other_sources: dict[str, Figures] = {}


class RingFigures(msgspec.Struct, frozen=True):
    """One ring, as attached now."""

    kind: str
    alive: bool
    lost_records: int
    skipped_records: int
    counters: dict[str, int]
    stopped: bool = False


class ClockFigures(msgspec.Struct, frozen=True):
    """One clock; `bound_ns` is null where nothing bounds its error against UTC."""

    offset_ns: int
    bound_ns: int | None
    steps: int


class Summary(msgspec.Struct, frozen=True):
    """Everything, in whole nanoseconds. `matched` and `unmatched` add up to `messages`.

    Messages that still wait for stamps are in `pending` alone: when it is 0 and producers have stopped, figures are
    final. `missing` says per hop, part's hop or span why messages have no value there. Rings, clocks, lost and skipped
    records are those of the whole exporter, also when feeds were selected.
    """

    messages: int
    pending: int
    hops: dict[str, Figures]
    parts: dict[str, Figures]
    spans: dict[str, Figures]
    matched: dict[str, int]
    unmatched: dict[str, int]
    missing: dict[str, dict[str, int]]
    negative: dict[str, int]
    sources: dict[str, int]
    lost_records: int
    skipped_records: int
    missed: int
    """Messages among the lost records."""
    feeds: dict[str, int]
    rings: dict[str, RingFigures]
    unreadable_rings: dict[str, str]
    clocks: dict[str, ClockFigures]


def _merged(series: Iterable[Series]) -> dict[str, Histogram]:
    """By source, the one with the most values first."""
    by_source: dict[str, Histogram] = {}
    for one in series:
        if one.source in by_source:
            by_source[one.source].merge(one.histogram)
        else:
            by_source[one.source] = one.histogram.copy()
    return dict(sorted(by_source.items(), key=lambda item: -item[1].count))


def _figures(histogram: Histogram, source: str, others: Mapping[str, Histogram]) -> Figures:
    return Figures(
        count=histogram.count,
        sum_ns=histogram.sum_ns,
        p50_ns=histogram.quantile_ns(0.5),
        p99_ns=histogram.quantile_ns(0.99),
        p999_ns=histogram.quantile_ns(0.999),
        max_ns=histogram.max_ns,
        source=source,
        other_sources={name: _figures(other, "", {}) for name, other in others.items()},
    )


def _table(series: Sequence[Series], kind: SeriesKind, names: Iterable[str]) -> dict[str, Figures]:
    """Figures by hop, part or span: those of DESIGN 2 first and in its order, then what it does not name."""
    groups: dict[str, list[Series]] = {name: [] for name in names}
    for one in series:
        if one.kind is kind and one.histogram.count:
            groups.setdefault(one.part if kind is SeriesKind.PART else one.name, []).append(one)
    table = {}
    for name, members in groups.items():
        if members:
            (source, histogram), *others = _merged(members).items()
            table[name] = _figures(histogram, source, dict(others))
    return table


def summarise(observation: Observation, feeds: frozenset[str] = frozenset()) -> Summary:
    """The figures of all feeds, or of those named."""
    snapshot = observation.snapshot

    def wanted(feed: str) -> bool:
        return not feeds or feed in feeds

    series = [one for one in snapshot.series if wanted(one.feed)]
    matched = Counter(dict.fromkeys(METHODS, 0))
    sources: Counter[str] = Counter()
    for (_, feed, _, method, source), count in snapshot.matched.items():
        if wanted(feed):
            matched[method] += count
            sources[source] += count
    unmatched: Counter[str] = Counter()
    for (_, feed, reason), count in snapshot.unmatched.items():
        if wanted(feed):
            unmatched[reason] += count
    missing: dict[str, Counter[str]] = {}
    for (_, feed, hop, reason), count in snapshot.missing.items():
        if wanted(feed):
            missing.setdefault(hop, Counter())[reason] += count
    negative: Counter[str] = Counter()
    for (_, feed, hop), count in snapshot.negative.items():
        if wanted(feed):
            negative[hop] += count
    by_feed: Counter[str] = Counter()
    for (_, feed), count in snapshot.messages.items():
        if wanted(feed):
            by_feed[label(feed)] += count
    return Summary(
        messages=by_feed.total(),
        pending=snapshot.pending,
        hops=_table(series, SeriesKind.HOP, HOPS),
        parts=_table(series, SeriesKind.PART, (part for parts in PARTS.values() for part in parts)),
        spans=_table(series, SeriesKind.SPAN, SPANS),
        matched=dict(matched),
        unmatched=dict(unmatched),
        missing={hop: dict(reasons) for hop, reasons in missing.items()},
        negative=dict(negative),
        sources=dict(sources),
        lost_records=sum(observation.lost.values()),
        skipped_records=sum(observation.skipped.values()),
        missed=sum(count for (_, feed), count in snapshot.missed.items() if wanted(feed)),
        feeds=dict(by_feed),
        rings={
            label(ring.name): RingFigures(
                ring.kind,
                ring.alive,
                observation.lost.get(ring.name, 0),
                observation.skipped.get(ring.name, 0),
                dict(ring.counters),
                ring.stopped,
            )
            for ring in snapshot.rings
        },
        unreadable_rings={label(name): label(why) for name, why in observation.unreadable.items()},
        clocks={
            label(clock.clock): ClockFigures(clock.offset_ns, clock.bound_ns, clock.steps) for clock in snapshot.clocks
        },
    )
