# SPDX-License-Identifier: Apache-2.0
"""What the correlator knows at one moment: the only thing that exposition, web and the demo read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tickpath.histogram import Histogram


class SeriesKind(StrEnum):
    """Which of the three histogram metrics a series belongs to (DESIGN 2)."""

    HOP = "hop"
    PART = "part"
    SPAN = "span"


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One message in the tail of a series: its value there, when it was received (since 1970), and what names it.

    `connection` is the socket's cookie; 0: unknown.
    """

    value_ns: int
    time_ns: int
    feed: str
    connection: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram and the labels it is known by.

    `name` is the hop's or span's DESIGN name ("nic_to_user"), `part` the part's ("decode") where kind is PART, else "".
    `source` is who took the wire stamp ("sw", "sock"), "" where none enters. The histogram is a copy: it does not move.
    """

    kind: SeriesKind
    name: str
    part: str
    venue: str
    feed: str
    source: str
    histogram: Histogram
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True, slots=True)
class RingState:
    """One attached ring.

    `ring` is the id that attach returned, `alive` whether its producer holds the lock. `lost` counts the records that
    were overwritten before they were read, `skipped` those written before this reader attached (it starts at the head).
    `cursor` is the sequence number of the last record that was read or given up: a successor learns from it what it
    skipped. `counters` are the producer's own totals by the lower-case name of enum tp_counter without its prefix
    ("parse_failed"); zero ones may be left out. `stopped`: none holds the lock, and the last one ended of its own will.
    """

    ring: int
    name: str
    kind: str
    alive: bool
    lost: int
    skipped: int
    cursor: int
    counters: Mapping[str, int]
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class ClockState:
    """One clock that producers publish readings of.

    `clock` is "realtime", "tai", "tsc", "nic2" (ifindex) or "phc0" (index). `offset_ns` is clock - CLOCK_MONOTONIC at
    the newest reading. `bound_ns` is the half-width of what a time converted from it may be off by against UTC; None:
    unknown. `epoch` counts up from 0 with every step; `steps` is how many steps were seen.
    """

    clock: str
    offset_ns: int
    bound_ns: int | None
    epoch: int
    steps: int


@dataclass(frozen=True, slots=True)
class Polls:
    """What the thread that polls did.

    `last_ns` is when it last began a poll (CLOCK_MONOTONIC; 0: it did not yet); `intervals` holds the times from the
    beginning of one poll to that of the next.
    """

    last_ns: int
    intervals: Histogram


@dataclass(frozen=True, slots=True)
class Pings:
    """Pings of one target by one protocol ("icmp", "udp", "tcp"); both empty: of those whose target is not known.

    `results` is by "sent", "reply", "lost", "late", "duplicate", "error": each that was sent comes to one of reply,
    lost and error; late ones are among the lost. `rtt` is of replies and late ones, by what it was taken with ("sw").
    `no_stamp` counts arrivals without the kernel's stamps of both ends, `disbelieved` those whose stamps could not be.
    `path` is out and back together, `out` and `back` each way alone, by the worse of what both ends were taken with;
    `unsplit` counts those whose ways alone are not known, by why ("far_unbound"). `split_bound_ns` is what each way of
    the last one may be off by, inf where nothing bounds it, None where no far end told its times.
    """

    target: str
    proto: str
    results: Mapping[str, int]
    no_stamp: int
    disbelieved: int
    rtt: Mapping[str, Histogram]
    path: Mapping[str, Histogram] = field(default_factory=dict)
    out: Mapping[str, Histogram] = field(default_factory=dict)
    back: Mapping[str, Histogram] = field(default_factory=dict)
    unsplit: Mapping[str, int] = field(default_factory=dict)
    split_bound_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent state of the correlator, taken between two polls; nothing in it moves afterwards.

    For every (venue, feed): the sum of `matched` plus the sum of `unmatched` equals `messages`, always. Messages that
    still wait for their stamps are in `pending` alone. Names of venues and feeds are UTF-8 text; the correlator keeps
    them unique and bounds how many there can be.
    """

    series: tuple[Series, ...]
    messages: Mapping[tuple[str, str], int]
    """(venue, feed)"""
    matched: Mapping[tuple[str, str, str, str, str], int]
    """(venue, feed, tier "A"|"B"|"C", method "offset"|"socket"|"window", source)"""
    unmatched: Mapping[tuple[str, str, str], int]
    """(venue, feed, reason)"""
    missing: Mapping[tuple[str, str, str, str], int]
    """(venue, feed, hop, reason): messages for which the hop could not be recorded"""
    negative: Mapping[tuple[str, str, str], int]
    """(venue, feed, hop): values below zero; they are in the histograms too"""
    hol_blocked: Mapping[tuple[str, str], int]
    """(venue, feed): messages with a head-of-line wait above zero"""
    missed: Mapping[tuple[str, str], int]
    """(venue, feed): messages that were overwritten in their ring before they were read, by the numbers left out"""
    retransmitted: Mapping[tuple[str, str], int]
    """(venue, feed): messages of which a byte arrived more than once"""
    merged: Mapping[tuple[str, str], int]
    """(venue, feed): messages whose own arrival was a frame merged by GRO"""
    rings: tuple[RingState, ...]
    clocks: tuple[ClockState, ...]
    pending: int
    """Messages that wait for stamps."""
    records: int
    """Records taken from all rings."""
    evicted: Mapping[str, int]
    """What was dropped to stay within bounded memory, by what it was ("connection", "segment", "message")."""
    connects: Mapping[str, int] = field(default_factory=dict)
    """Attempts to connect that kernel probes saw, by result ("opened", "timed_out"); all of them once there was any."""
    stamp_bounds: Mapping[str, int] = field(default_factory=dict)
    """By source ("hw"): how far, in nanoseconds, lately matched messages' own arrivals may be off by their clock."""
    connect_latencies: Mapping[str, Histogram] = field(default_factory=dict)
    """How long those that succeeded took, by family ("ipv4", "ipv6")."""
    pings: tuple[Pings, ...] = ()
    """What became of pings, by target and protocol."""
