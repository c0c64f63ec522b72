# SPDX-License-Identifier: Apache-2.0
"""Each reason that the correlator knows can be brought about, and comes with the fault that it names.

On the truth wire (tests/truth) wire_gap, no_base, no_flow and sock_not_last happen by themselves; the others here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from correlator.model import MS, START_NS, clock_record, record, write
from correlator.test_correlator import EVERYTHING, IRS, Bench, message, opened, read, segment
from tickpath.event import Clock, Kind, MessageFlag, Source, Tier
from tickpath.exporter.correlator import JOINED, Correlator, Leg, Reason
from tickpath.ring import RingWriter

_LATE_NS = START_NS + 2000 * MS


def _joined_message(bench: Bench, **more: int) -> Any:
    """One message whose segment is there."""
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS, cookie=5)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, message(feed, START_NS + 400, 500, **more))
    return bench.poll(_LATE_NS)[0]


def _no_wire(bench: Bench) -> Any:
    feed = opened(bench.feed)
    bench.correlator.detach(1)
    write(bench.feed, message(feed, START_NS, 500))
    return bench.poll(_LATE_NS)[0]


def _no_flow(bench: Bench) -> Any:
    write(bench.feed, message(opened(bench.feed), START_NS, 500))
    return bench.poll(_LATE_NS)[0]


def _ambiguous_flow(bench: Bench) -> Any:
    for port in (1001, 1002):
        write(bench.wire, segment(opened(bench.wire, local=("192.0.2.1", port), irs=IRS), START_NS, 0, 500))
    write(bench.feed, message(opened(bench.feed, irs=IRS), START_NS + 100 * MS, 500))
    return bench.poll(_LATE_NS)[0]


def _no_base(bench: Bench) -> Any:
    wire, feed = opened(bench.wire), opened(bench.feed)
    write(bench.wire, segment(wire, START_NS, 0, 500))
    write(bench.feed, message(feed, START_NS + 100 * MS, 500))
    return bench.poll(_LATE_NS)[0]


def _wire_gap(bench: Bench) -> Any:
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, message(feed, START_NS + 400, 600))
    return bench.poll(_LATE_NS)[0]


def _sock_not_last(bench: Bench) -> Any:
    feed = opened(bench.feed)
    bench.correlator.detach(1)
    write(bench.feed, read(feed, START_NS, 0, 900, sw_ns=1), message(feed, START_NS, 500))
    return bench.poll(_LATE_NS)[0]


def _tier_c(bench: Bench) -> Any:
    return _joined_message(bench, source=Tier.C)


def _evicted(bench: Bench) -> Any:
    few = Correlator(read_clock=False, max_pending=32, memory_bytes=1 << 16, joined_capacity=1000)
    few.attach(bench.feed.path)
    few.attach(bench.wire.path)
    feed = opened(bench.feed)
    write(bench.feed, *(message(feed, START_NS + i, 10 * i, i) for i in range(100)))
    few.poll(START_NS + 1000)
    out = np.zeros(1000, JOINED)
    assert few.joined(out)
    return out[0]


def _row_lost(bench: Bench) -> Any:
    write(bench.feed, message(0x00050003, START_NS, 100))
    return bench.poll(_LATE_NS)[0]


_WHOLE: dict[Reason, Callable[[Bench], Any]] = {
    Reason.NO_WIRE: _no_wire,
    Reason.NO_FLOW: _no_flow,
    Reason.AMBIGUOUS_FLOW: _ambiguous_flow,
    Reason.NO_BASE: _no_base,
    Reason.WIRE_GAP: _wire_gap,
    Reason.SOCK_NOT_LAST: _sock_not_last,
    Reason.TIER_C: _tier_c,
    Reason.EVICTED: _evicted,
    Reason.ROW_LOST: _row_lost,
}


def _unread_clock(bench: Bench) -> Any:
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500, clock=Clock.TAI))
    write(bench.feed, message(feed, START_NS + 400, 500))
    return bench.poll(_LATE_NS)[0]


def _stepped_clock(bench: Bench) -> Any:
    offset_ns = 17 * 10**17 - 5 * MS
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, clock_record(START_NS + 10 * MS), clock_record(START_NS + 20 * MS, offset_ns))
    write(bench.wire, segment(wire, START_NS + 18 * MS, 0, 500, offset_ns=offset_ns))
    write(bench.feed, message(feed, START_NS + 19 * MS, 500))
    return bench.poll(_LATE_NS)[0]


def _mixed_sources(bench: Bench) -> Any:
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 250, 250))
    write(bench.wire, segment(wire, START_NS + 200, 0, 250, source=Source.SW_GRO))
    write(bench.feed, message(feed, START_NS + 400, 500))
    return bench.poll(_LATE_NS)[0]


def _by_socket(bench: Bench) -> Any:
    feed = opened(bench.feed)
    stamped = {"sw_ns": START_NS + 17 * 10**17, "flags": 1}
    write(bench.feed, read(feed, START_NS + 300, 0, 500, **stamped), message(feed, START_NS + 400, 500))
    return bench.poll(_LATE_NS)[0]


def _beside_a_kernel_probe(*kinds: Kind) -> Callable[[Bench], Any]:
    """A message beside a kernel probe that recorded these kinds alone of its connection; none: nothing of it."""

    def bring_about(bench: Bench) -> Any:
        with RingWriter(bench.directory, "kernel", "kernel", capacity=64, rows=8) as kernel:
            bench.correlator.attach(kernel.path)
            interval = {"from": 0, "to": 500, "cookie": 5, "seq": (IRS + 501) % 2**32}
            handle = opened(kernel, cookie=5)
            write(kernel, *(record(kind, handle, START_NS + 150, "interval", **interval) for kind in kinds))
            return _joined_message(bench)

    return bring_about


def _flagged(missing: MessageFlag) -> Callable[[Bench], Any]:
    return lambda bench: _joined_message(bench, flags=EVERYTHING & ~missing)


def _half_of_a_wide_message(bench: Bench) -> Any:
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 600))
    write(bench.feed, message(feed, START_NS + 400, 500, flags=EVERYTHING | MessageFlag.WIDE))
    write(bench.feed, message(feed, START_NS + 500, 600, 1))
    return bench.poll(_LATE_NS)[0]


_LEGS: dict[Reason, tuple[Leg, Callable[[Bench], Any]]] = {
    Reason.CLOCK_STEP: (Leg.BN_TO_NIC, _stepped_clock),
    Reason.CLOCK_UNKNOWN: (Leg.BN_TO_NIC, _unread_clock),
    Reason.MIXED_SOURCES: (Leg.HOL_WAIT, _mixed_sources),
    Reason.SOCK: (Leg.HOL_WAIT, _by_socket),
    Reason.NO_KERNEL: (Leg.KERNEL_TO_USER, _joined_message),
    Reason.NO_SOCKET: (Leg.KERNEL_TO_USER, _beside_a_kernel_probe()),
    Reason.READABLE_GAP: (Leg.NIC_TO_KERNEL, _beside_a_kernel_probe(Kind.COPIED)),
    Reason.COPIED_GAP: (Leg.BACKLOG, _beside_a_kernel_probe(Kind.READABLE)),
    Reason.NO_READ: (Leg.APP_BUSY, _beside_a_kernel_probe(Kind.READABLE)),
    Reason.NO_EXCHANGE: (Leg.BN_TO_NIC, _flagged(MessageFlag.HAS_EXCHANGE)),
    Reason.NO_DECODE: (Leg.DECODE, _flagged(MessageFlag.HAS_DECODE)),
    Reason.NOT_PARSED: (Leg.CPU, _flagged(MessageFlag.HAS_PARSED)),
    Reason.NOT_PUBLISHED: (Leg.MSK, _flagged(MessageFlag.HAS_PUBLISHED)),
    Reason.WIDE_LOST: (Leg.CPU, _half_of_a_wide_message),
}


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    correlator = Correlator(joined_capacity=1000, read_clock=False)
    with (
        RingWriter(tmp_path, "feed-a", "feed", capacity=4096, rows=8) as feed,
        RingWriter(tmp_path, "wire-a", "wire", capacity=4096, rows=8) as wire,
    ):
        correlator.attach(feed.path)
        correlator.attach(wire.path)
        write(feed, clock_record())
        yield Bench(tmp_path, correlator, feed, wire)


def test_every_reason_is_brought_about() -> None:
    assert _WHOLE.keys() | _LEGS.keys() | {Reason.NONE} == set(Reason)


@pytest.mark.parametrize("reason", _WHOLE, ids=lambda reason: reason.name)
def test_a_message_without_a_match_says_why(bench: Bench, reason: Reason) -> None:
    result = _WHOLE[reason](bench)
    assert Reason(int(result["reason"])) is reason
    assert result["method"] != 1


@pytest.mark.parametrize("reason", _LEGS, ids=lambda reason: reason.name)
def test_a_leg_that_is_missing_says_why(bench: Bench, reason: Reason) -> None:
    leg, bring_about = _LEGS[reason]
    result = bring_about(bench)
    assert not int(result["legs"]) & 1 << leg
    assert Reason(int(result["missing"][leg])) is reason
