# SPDX-License-Identifier: Apache-2.0
"""What the correlator does around the join: who is bound to whom, what is waited for, counted, bounded and shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from correlator.model import MS, OFFSET_NS, START_NS, Features, Producers, Scenario, clock_record, record, row, write
from tickpath.errors import RingError
from tickpath.event import RECORD, Clock, ConnectResult, Kind, MessageFlag, ReadFlag, SegmentFlag, Source, Tier
from tickpath.exporter.correlator import JOINED, Correlator, Leg, Match, Reason, Stamp
from tickpath.exporter.snapshot import Snapshot
from tickpath.ring import RingWriter

IRS = 2**32 - 50
EVERYTHING = MessageFlag.HAS_EXCHANGE | MessageFlag.HAS_DECODE | MessageFlag.HAS_PARSED | MessageFlag.HAS_PUBLISHED


def segment(handle: int, at_ns: int, offset: int, length: int, **more: int) -> Any:
    fields = {"clock": Clock.REALTIME, "source": Source.SW, "length": length, "frame": 1, "seen_ns": at_ns + 1}
    seq = (IRS + 1 + offset) % 2**32
    stamp = at_ns + more.pop("offset_ns", OFFSET_NS)
    return record(Kind.SEGMENT, handle, stamp, "segment", **{**fields, "seq": seq, **more})


def message(handle: int, received_ns: int, end: int, ordinal: int = 0, **more: int) -> Any:
    fields = {
        "source": Tier.A,
        "flags": EVERYTHING,
        "exchange_ns": received_ns + OFFSET_NS - 3 * MS,
        "decode_ns": 100,
        "parsed_ns": 200,
        "published_ns": 300,
    }
    return record(Kind.MESSAGE, handle, received_ns, "message", end=end, ordinal=ordinal, **{**fields, **more})


def read(handle: int, returned_ns: int, start: int, end: int, **more: int) -> Any:
    fields = {"from": start, "to": end, "asked_ns": returned_ns - 1000}
    return record(Kind.READ, handle, returned_ns, "read", **{**fields, **more})


@dataclass
class Bench:
    """A correlator over a feed and a wire ring of the test's own."""

    directory: Path
    correlator: Correlator
    feed: RingWriter
    wire: RingWriter

    def poll(self, at_ns: int) -> Any:
        self.correlator.poll(at_ns)
        out = np.zeros(1000, dtype=JOINED)
        return out[: self.correlator.joined(out)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    correlator = Correlator(joined_capacity=1000, read_clock=False)
    with (
        RingWriter(tmp_path, "feed-a", "feed", capacity=4096, rows=8) as feed,
        RingWriter(tmp_path, "wire-a", "wire", capacity=4096, rows=8) as wire,
    ):
        correlator.attach(feed.path)
        correlator.attach(wire.path)
        write(feed, clock_record())
        yield Bench(tmp_path, correlator, feed, wire)


def reason(result: Any) -> Reason:
    return Reason(int(result["reason"]))


def opened(ring: RingWriter, **fields: Any) -> int:
    handle = ring.open_row(row(**fields))
    assert handle is not None
    return handle


def test_a_flow_is_joined_in_the_middle_beyond_four_gibibytes(bench: Bench) -> None:
    """Nobody saw the handshake: the sequence comes from the feed's row, the multiple of 2^32 from where it stands."""
    far = 5 * 2**32 + 12345
    wire, feed = opened(bench.wire), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, far, 500))
    write(bench.feed, read(feed, START_NS + 300, far, far + 500), message(feed, START_NS + 400, far + 500))
    (result,) = bench.poll(START_NS + 1000)
    assert result["method"] == Match.OFFSET
    assert result["own_ns"] == START_NS + 100
    assert result["tcp_seq"] == (IRS + far + 500) % 2**32


def test_the_base_may_become_known_after_the_first_records(bench: Bench) -> None:
    wire, feed = opened(bench.wire), opened(bench.feed)
    write(bench.wire, segment(wire, START_NS + 100, 1000, 500))
    write(bench.feed, read(feed, START_NS + 300, 1000, 1500), message(feed, START_NS + 400, 1500))
    assert len(bench.poll(START_NS + 1000)) == 0, "it waits for the base"
    bench.feed.update_row(feed, row(irs=IRS))
    (result,) = bench.poll(START_NS + 20 * MS)
    assert result["method"] == Match.OFFSET


@pytest.mark.parametrize("reads", [True, False], ids=["told by both", "told by the kernel alone"])
def test_the_application_s_own_word_of_when_it_asked_comes_first(bench: Bench, reads: bool) -> None:
    with RingWriter(bench.directory, "kernel-a", "kernel", capacity=64, rows=8) as kernel:
        bench.correlator.attach(kernel.path)
        socket, feed = opened(kernel, irs=IRS, cookie=7), opened(bench.feed, irs=IRS, cookie=7)
        span = {"from": 1000, "to": 1500, "cookie": 7}
        write(kernel, record(Kind.READABLE, socket, START_NS + 200, "interval", **span))
        write(kernel, record(Kind.COPIED, socket, START_NS + 280, "interval", **span, asked_ns=START_NS + 150))
        if reads:
            write(bench.feed, read(feed, START_NS + 300, 1000, 1500, asked_ns=START_NS + 140))
        write(bench.feed, message(feed, START_NS + 400, 1500))
        (result,) = bench.poll(START_NS + 2000 * MS)
        assert result["stamps"] & Stamp.ASKED
        assert result["asked_ns"] == START_NS + (140 if reads else 150)


def test_without_a_base_order_alone_is_left(bench: Bench) -> None:
    wire, feed = opened(bench.wire), opened(bench.feed)
    write(bench.wire, segment(wire, START_NS + 100, 1000, 500), segment(wire, START_NS + 350, 1500, 500))
    write(bench.feed, read(feed, START_NS + 300, 1000, 1500), message(feed, START_NS + 400, 1500))
    (result,) = bench.poll(START_NS + 2000 * MS)
    assert (result["method"], reason(result)) == (Match.SOCKET, Reason.NO_BASE)
    assert result["own_ns"] == START_NS + 100
    assert not result["legs"] & 1 << Leg.BN_TO_NIC, "not in histograms unless asked for"
    snapshot = bench.correlator.snapshot()
    assert snapshot.matched == {("test", "btcusdt", "A", "socket", "sw"): 1}
    assert snapshot.missing["test", "btcusdt", "bn_to_nic", "no_base"] == 1


def test_an_old_segment_does_not_stand_for_a_byte_that_was_never_captured(bench: Bench) -> None:
    """The base is known, so the byte is: any segment that does not hold it is a wrong one."""
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 1000), message(feed, START_NS + 400, 500))
    write(bench.feed, message(feed, START_NS + 500, 1000, 1))
    first, second = bench.poll(START_NS + 2000 * MS)
    assert first["method"] == Match.OFFSET
    assert (second["method"], reason(second)) == (0, Reason.WIRE_GAP)
    assert not second["stamps"] & Stamp.OWN


def test_a_segment_from_before_a_read_that_left_nothing_was_in_that_read(bench: Bench) -> None:
    wire, feed = opened(bench.wire), opened(bench.feed)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(
        bench.feed,
        read(feed, START_NS + 3000, 0, 500, flags=ReadFlag.DRAINED),
        message(feed, START_NS + 3100, 500),
        read(feed, START_NS + 9000, 500, 1000, flags=ReadFlag.DRAINED),
        message(feed, START_NS + 9100, 1000, 1),
    )
    first, second = bench.poll(START_NS + 2000 * MS)
    assert first["method"] == Match.SOCKET
    assert (second["method"], reason(second)) == (0, Reason.NO_BASE)


def test_a_wire_producer_that_came_back_is_waited_for(bench: Bench) -> None:
    """It captures from its first record on; its frames come here a few milliseconds after the message."""
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, message(feed, START_NS + 400, 500))
    assert len(bench.poll(START_NS + 1000)) == 1
    bench.wire.close()
    bench.poll(START_NS + 200 * MS)
    with RingWriter(bench.directory, "wire-a", "wire", capacity=4096, rows=8) as back:
        row_again = opened(back)
        at_ns = START_NS + 210 * MS
        write(bench.feed, message(feed, at_ns + 200, 1000, 1))
        assert len(bench.poll(at_ns + 300)) == 0, "it may have captured it"
        write(back, segment(row_again, at_ns + 100, 500, 500))
        (result,) = bench.poll(at_ns + 4 * MS)
    assert result["method"] == Match.OFFSET
    assert result["own_ns"] == at_ns + 100


def test_a_kernel_record_gives_the_base_of_a_connection_whose_handshake_nobody_saw(bench: Bench) -> None:
    with RingWriter(bench.directory, "kernel", "kernel", capacity=64, rows=8) as kernel:
        bench.correlator.attach(kernel.path)
        wire, feed = opened(bench.wire), opened(bench.feed, cookie=5)
        handle = opened(kernel, cookie=5)
        write(bench.wire, segment(wire, START_NS + 100, 1000, 500))
        interval = {"from": 1000, "to": 1500, "cookie": 5, "seq": (IRS + 1 + 1500) % 2**32}
        write(kernel, record(Kind.READABLE, handle, START_NS + 150, "interval", **interval))
        write(kernel, record(Kind.COPIED, handle, START_NS + 200, "interval", **interval))
        write(bench.feed, read(feed, START_NS + 300, 1000, 1500), message(feed, START_NS + 400, 1500))
        (result,) = bench.poll(START_NS + 1000)
    assert result["method"] == Match.OFFSET
    assert result["leg_ns"][Leg.NIC_TO_KERNEL] == 50
    assert result["leg_ns"][Leg.WAKE] == 50


def _unselected(bench: Bench) -> None:
    """A message whose connection the kernel probe does not select; its wire stamp is there."""
    wire, feed = opened(bench.wire, irs=IRS), opened(bench.feed, irs=IRS, cookie=5)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))


@pytest.mark.parametrize("kind", [Kind.READABLE, Kind.COPIED, Kind.CONNECT, Kind.PASSED])
def test_a_message_waits_for_the_kernel_probe_until_it_tells_of_a_later_moment(bench: Bench, kind: Kind) -> None:
    """Its records come in the order of events: what it tells of another connection, or of none, shows that it has."""
    with RingWriter(bench.directory, "kernel", "kernel", capacity=64, rows=8) as kernel:
        bench.correlator.attach(kernel.path)
        handle = opened(kernel, cookie=6, local=("10.0.0.1", 40001))
        interval = {"from": 0, "to": 500, "cookie": 6, "seq": 501}
        bodies = {Kind.CONNECT: ("connect", {"cookie": 6, "family": 4}), Kind.PASSED: ("interval", {})}
        body, fields = bodies.get(kind, ("interval", interval))

        def told(at_ns: int) -> Any:
            return record(kind, handle, at_ns, body, **fields)

        _unselected(bench)
        assert len(bench.poll(START_NS + 1 * MS)) == 0
        write(kernel, told(START_NS + 400))
        assert len(bench.poll(START_NS + 2 * MS)) == 0, "the moment of its receipt is not later"
        write(kernel, told(START_NS + 1 * MS))
        (result,) = bench.poll(START_NS + 3 * MS)
    assert Reason(int(result["missing"][Leg.KERNEL_TO_USER])) is Reason.NO_SOCKET


def test_a_message_waits_for_every_kernel_probe_that_lives(bench: Bench) -> None:
    first = RingWriter(bench.directory, "kernel-a", "kernel", capacity=64, rows=8)
    with first, RingWriter(bench.directory, "kernel-b", "kernel", capacity=64, rows=8) as second:
        for kernel in (first, second):
            bench.correlator.attach(kernel.path)
        _unselected(bench)
        write(first, record(Kind.PASSED, 0xFFFFFFFF, START_NS + 1 * MS))
        assert len(bench.poll(START_NS + 2 * MS)) == 0
        interval = {"from": 0, "to": 500, "cookie": 5, "seq": (IRS + 501) % 2**32}
        handle = opened(second, cookie=5)
        write(second, record(Kind.READABLE, handle, START_NS + 150, "interval", **interval))
        write(second, record(Kind.COPIED, handle, START_NS + 200, "interval", **interval))
        (result,) = bench.poll(START_NS + 3 * MS)
    assert result["leg_ns"][Leg.WAKE] == 50


def test_a_kernel_probe_that_died_is_waited_for_no_more(bench: Bench) -> None:
    with RingWriter(bench.directory, "kernel", "kernel", capacity=64, rows=8) as kernel:
        bench.correlator.attach(kernel.path)
        _unselected(bench)
        assert len(bench.poll(START_NS + 1 * MS)) == 0
    assert len(bench.poll(START_NS + 200 * MS)) == 1


def test_nat_is_seen_through_by_remote_address_and_sequence(bench: Bench) -> None:
    wire = opened(bench.wire, local=("192.0.2.9", 61000), irs=IRS)
    feed = opened(bench.feed, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    (result,) = bench.poll(START_NS + 1000)
    assert result["method"] == Match.OFFSET


def test_two_flows_that_fit_are_none(bench: Bench) -> None:
    feed = opened(bench.feed, irs=IRS)
    for port in (61000, 61001):
        wire = opened(bench.wire, local=("192.0.2.9", port), irs=IRS)
        write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    (result,) = bench.poll(START_NS + 2000 * MS)
    assert reason(result) is Reason.AMBIGUOUS_FLOW


def test_two_connections_of_one_tuple_at_one_time_are_told_apart_by_the_handshake_or_not_at_all(bench: Bench) -> None:
    wire = opened(bench.wire, irs=IRS)
    first, second = opened(bench.feed, irs=IRS), opened(bench.feed, irs=IRS - 999)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    for feed in (first, second):
        write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    results = bench.poll(START_NS + 2000 * MS)
    assert [int(r["row"]) for r in results if r["method"] == Match.OFFSET] == [first]
    assert {int(r["row"]) for r in results} == {first, second}
    third = opened(bench.feed)
    fourth = opened(bench.feed)
    write(bench.feed, message(third, START_NS + 500, 500), message(fourth, START_NS + 500, 500))
    assert {reason(r) for r in bench.poll(START_NS + 4000 * MS)} == {Reason.AMBIGUOUS_FLOW}


def test_a_wire_producer_that_starts_again_goes_on_with_the_same_flow(bench: Bench) -> None:
    feed = opened(bench.feed, irs=IRS)
    wire = opened(bench.wire, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    assert len(bench.poll(START_NS + 1000)) == 1
    bench.wire.close()
    with RingWriter(bench.directory, "wire-a", "wire", capacity=4096, rows=8) as again:
        wire = opened(again)
        write(again, segment(wire, START_NS + 2000, 500, 500))
        write(bench.feed, read(feed, START_NS + 2300, 500, 1000), message(feed, START_NS + 2400, 1000, 1))
        (result,) = bench.poll(START_NS + 3000)
    assert result["method"] == Match.OFFSET
    assert result["stamps"] & Stamp.IN_ORDER


def test_a_second_observer_that_is_behind_is_waited_for_and_its_better_stamp_taken(bench: Bench) -> None:
    with RingWriter(bench.directory, "wire-b", "wire", capacity=64, rows=8) as better:
        bench.correlator.attach(better.path)
        feed, wire, other = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS), opened(better, irs=IRS)
        write(better, segment(other, START_NS + 50, 0, 100, source=Source.HW))
        write(bench.wire, segment(wire, START_NS + 60, 0, 100), segment(wire, START_NS + 110, 100, 400))
        write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
        assert len(bench.poll(START_NS + 1000)) == 0
        write(better, segment(other, START_NS + 100, 100, 400, source=Source.HW, frame=9))
        (result,) = bench.poll(START_NS + 2000)
    assert (result["source"], result["own_ns"], result["frame"]) == (Source.HW, START_NS + 100, 9)


def test_a_byte_not_captured_is_given_up_once_segments_from_after_delivery_are_seen(
    bench: Bench,
) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    received = START_NS + 400
    write(bench.wire, segment(wire, START_NS + 50, 0, 100), segment(wire, received + MS // 2, 500, 100))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, received, 500))
    assert len(bench.poll(received + MS)) == 0, "the clocks may disagree by a millisecond"
    write(bench.wire, segment(wire, received + 2 * MS, 600, 100))
    (result,) = bench.poll(received + 3 * MS)
    assert reason(result) is Reason.WIRE_GAP


def test_a_retransmission_seen_after_delivery_is_not_taken_for_the_arrival(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 5 * MS, 0, 500))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    (result,) = bench.poll(START_NS + 6 * MS)
    assert reason(result) is Reason.WIRE_GAP


def test_a_dead_wire_producer_is_not_waited_for(bench: Bench) -> None:
    feed = opened(bench.feed, irs=IRS)
    bench.wire.close()
    bench.poll(START_NS)
    bench.poll(START_NS + 200 * MS)
    write(bench.feed, read(feed, START_NS + 200 * MS, 0, 500), message(feed, START_NS + 201 * MS, 500))
    (result,) = bench.poll(START_NS + 202 * MS)
    assert reason(result) is Reason.NO_WIRE


def test_a_socket_stamp_is_taken_only_where_the_message_ends_the_read(bench: Bench) -> None:
    feed = opened(bench.feed)
    bench.correlator.detach(1)
    stamped = {"sw_ns": START_NS + 250 + OFFSET_NS, "flags": ReadFlag.DRAINED}
    write(bench.feed, read(feed, START_NS + 300, 0, 500, **stamped))
    write(bench.feed, message(feed, START_NS + 400, 200), message(feed, START_NS + 500, 500, 1))
    inner, last = bench.poll(START_NS + 1000)
    assert (inner["method"], reason(inner)) == (0, Reason.SOCK_NOT_LAST)
    assert (last["method"], last["source"], last["own_ns"]) == (Match.OFFSET, Source.SOCK, START_NS + 250)
    assert Reason(int(last["missing"][Leg.HOL_WAIT])) is Reason.SOCK
    assert last["leg_ns"][Leg.NIC_TO_USER] == 250


def test_an_upper_bound_of_the_message_end_is_never_an_exact_match(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    write(bench.feed, message(feed, START_NS + 400, 500, source=Tier.C))
    (result,) = bench.poll(START_NS + 2000 * MS)
    assert (result["method"], reason(result)) == (Match.SOCKET, Reason.TIER_C)


def test_a_stamp_near_a_step_of_its_clock_measures_nothing(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(bench.wire, clock_record(START_NS + 10 * MS), clock_record(START_NS + 20 * MS, OFFSET_NS - 5 * MS))
    write(bench.wire, segment(wire, START_NS + 18 * MS, 0, 500, offset_ns=OFFSET_NS - 5 * MS))
    write(bench.feed, read(feed, START_NS + 19 * MS, 0, 500), message(feed, START_NS + 19 * MS, 500))
    (result,) = bench.poll(START_NS + 2000 * MS)
    assert result["method"] == Match.OFFSET
    assert Reason(int(result["missing"][Leg.BN_TO_NIC])) is Reason.CLOCK_STEP
    assert not result["stamps"] & Stamp.OWN
    (clock,) = bench.correlator.snapshot().clocks
    assert (clock.clock, clock.steps, clock.offset_ns) == ("realtime", 1, OFFSET_NS - 5 * MS)


def test_a_stamp_of_an_unread_clock_is_said_to_be_one(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500, clock=Clock.PHC))
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    (result,) = bench.poll(START_NS + 2000 * MS)
    assert Reason(int(result["missing"][Leg.BN_TO_NIC])) is Reason.CLOCK_UNKNOWN


def test_a_negative_hop_stays_negative_and_is_counted(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(bench.wire, segment(wire, START_NS + 100, 0, 500))
    ahead = START_NS + OFFSET_NS + 1_270 * MS
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500, exchange_ns=ahead))
    (result,) = bench.poll(START_NS + 1000)
    assert result["leg_ns"][Leg.BN_TO_NIC] == 100 - 1_270 * MS
    snapshot = bench.correlator.snapshot()
    assert snapshot.negative["test", "btcusdt", "bn_to_nic"] == 1
    (series,) = (s for s in snapshot.series if s.name == "bn_to_nic")
    assert series.histogram.sum_ns == 100 - 1_270 * MS


def test_a_bad_checksum_and_a_merged_frame_are_told(bench: Bench) -> None:
    feed, wire = opened(bench.feed, irs=IRS), opened(bench.wire, irs=IRS)
    write(
        bench.wire,
        segment(wire, START_NS + 90, 0, 500, flags=SegmentFlag.BAD_CSUM),
        segment(wire, START_NS + 100, 0, 500, flags=SegmentFlag.MERGED, source=Source.SW_GRO),
    )
    write(bench.feed, read(feed, START_NS + 300, 0, 500), message(feed, START_NS + 400, 500))
    (result,) = bench.poll(START_NS + 1000)
    assert (result["own_ns"], result["source"]) == (START_NS + 100, Source.SW_GRO)
    assert bench.correlator.snapshot().merged["test", "btcusdt"] == 1
    assert bench.correlator.totals()["segments_bad_checksum"] == 1


def test_a_wide_message_takes_its_times_from_its_second_record(bench: Bench) -> None:
    feed = opened(bench.feed)
    bench.correlator.detach(1)
    flags = EVERYTHING | MessageFlag.WIDE
    seconds = 7 * 10**9
    wide = record(Kind.MESSAGE_WIDE, feed, 0, "wide", decode_ns=1, parsed_ns=seconds, published_ns=5, length=9)
    write(bench.feed, message(feed, START_NS, 10, flags=flags), wide)
    write(bench.feed, message(feed, START_NS, 20, 1, flags=flags), message(feed, START_NS, 30, 2))
    whole, lost, plain = bench.poll(START_NS + 2000 * MS)
    assert whole["leg_ns"][Leg.CPU] == seconds
    assert Reason(int(lost["missing"][Leg.CPU])) is Reason.WIDE_LOST
    assert plain["leg_ns"][Leg.CPU] == 200


def test_pending_messages_are_bounded_and_the_oldest_are_given_up(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False, max_pending=64, memory_bytes=1 << 16)
    with (
        RingWriter(tmp_path, "feed-a", "feed", capacity=4096, rows=8) as feed,
        RingWriter(tmp_path, "wire-a", "wire", capacity=4096, rows=8) as wire,
    ):
        correlator.attach(feed.path)
        correlator.attach(wire.path)
        handle = opened(feed)
        write(feed, *(message(handle, START_NS + i, 10 * i, i) for i in range(1000)))
        correlator.poll(START_NS + 1000)
        snapshot = correlator.snapshot()
        assert snapshot.pending == 64
        assert snapshot.evicted["message"] == 936
        assert snapshot.unmatched["test", "btcusdt", "evicted"] == 936
        correlator.flush(START_NS + 1000)
        assert correlator.snapshot().messages["test", "btcusdt"] == 1000


@pytest.mark.parametrize("pending", [1, 2, 8, 10])
def test_a_queue_of_few_holds_few(tmp_path: Path, pending: int) -> None:
    correlator = Correlator(read_clock=False, max_pending=pending)
    with (
        RingWriter(tmp_path, "feed-a", "feed", capacity=4096, rows=8) as feed,
        RingWriter(tmp_path, "wire-a", "wire", capacity=4096, rows=8) as wire,
    ):
        correlator.attach(feed.path)
        correlator.attach(wire.path)
        handle = opened(feed)
        write(feed, *(message(handle, START_NS + i, 10 * i, i) for i in range(100)))
        correlator.poll(START_NS + 1000)
        snapshot = correlator.snapshot()
        assert 1 <= snapshot.pending <= pending
        assert snapshot.unmatched == {("test", "btcusdt", "evicted"): 100 - snapshot.pending}


def test_a_message_for_which_there_is_no_memory_keeps_its_name_and_says_so(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False, memory_bytes=100)
    with RingWriter(tmp_path, "feed-a", "feed", capacity=4096, rows=8) as feed:
        correlator.attach(feed.path)
        write(feed, message(opened(feed), START_NS, 10))
        correlator.poll(START_NS + 1000)
        snapshot = correlator.snapshot()
        assert snapshot.messages == {("test", "btcusdt"): 1}
        assert snapshot.unmatched == {("test", "btcusdt", "evicted"): 1}
        assert snapshot.evicted["message"] == 1


def test_segments_without_messages_stay_within_memory(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False, max_segments=256, max_connections=16, memory_bytes=1 << 20)
    with RingWriter(tmp_path, "wire-a", "wire", capacity=1 << 15, rows=64) as wire:
        correlator.attach(wire.path)
        for port in range(64):
            handle = opened(wire, local=("10.0.0.1", 1000 + port))
            write(wire, *(segment(handle, START_NS + i, 100 * i, 100) for i in range(400)))
        correlator.poll(START_NS + 1000)
        totals = correlator.totals()
    assert totals["flows"] <= 16
    assert totals["memory_bytes"] <= 1 << 20
    assert totals["spans_evicted"] > 0
    assert totals["flows_evicted"] == 48


def test_a_message_whose_row_is_gone_is_counted_once_under_its_reason(bench: Bench) -> None:
    write(bench.feed, message(0x00050003, START_NS, 100))
    (result,) = bench.poll(START_NS + 10)
    assert reason(result) is Reason.ROW_LOST
    assert bench.correlator.snapshot().unmatched == {("", "", "row_lost"): 1}


def test_lapped_records_and_missed_ordinals_are_counted(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False)
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64, rows=8) as feed:
        correlator.attach(feed.path)
        handle = opened(feed)
        for i in range(200):
            write(feed, message(handle, START_NS + i, 10 * i, i))
        correlator.poll(START_NS + 1000)
        snapshot = correlator.snapshot()
        (ring,) = snapshot.rings
        assert ring.lost + sum(snapshot.messages.values()) == 200
        assert ring.lost > 0


def test_a_producer_that_said_goodbye_is_told_from_one_that_is_gone(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False)
    told: list[tuple[bool, bool]] = []
    for end in (RingWriter.close, RingWriter.abandon):
        feed = RingWriter(tmp_path, f"feed-{end.__name__}", "feed", capacity=64, rows=8)
        correlator.attach(feed.path)
        assert [ring.stopped for ring in correlator.snapshot().rings if ring.alive] == [False]
        end(feed)
        told.append((correlator.snapshot().rings[-1].alive, correlator.snapshot().rings[-1].stopped))
    assert told == [(False, True), (False, False)]


def test_the_ring_of_a_new_file_is_told_from_the_attached_one(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False)
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64, rows=8) as feed:
        ring = correlator.attach(feed.path)
        assert correlator.alive(ring)
        assert not correlator.stale(ring)
        feed.path.unlink()
        assert correlator.stale(ring)
    assert not correlator.alive(ring)
    correlator.detach(ring)
    with pytest.raises(RingError, match="no ring"):
        correlator.detach(ring)
    with pytest.raises(RingError, match="nothing"):
        correlator.attach(tmp_path / "nothing.ring")


def _books(snapshot: Snapshot) -> None:
    """What must hold of any snapshot."""
    assert sum(snapshot.matched.values()) + sum(snapshot.unmatched.values()) == sum(snapshot.messages.values())
    sums: dict[tuple[str, str], tuple[int, int]] = {
        (s.kind, s.part or s.name): (s.histogram.count, s.histogram.sum_ns) for s in snapshot.series
    }
    if not sums:
        return
    assert not snapshot.missing
    count, total = sums["span", "total"]
    hops = [sums["hop", name] for name in ("bn_to_nic", "nic_to_kernel", "kernel_to_user", "cpu", "msk")]
    assert {hop_count for hop_count, _ in hops} == {count}
    assert sum(hop_sum for _, hop_sum in hops) == total
    assert sums["part", "hol_wait"][1] + sums["part", "stack"][1] == sums["hop", "nic_to_kernel"][1]


def test_snapshots_taken_while_polling_never_tear(tmp_path: Path) -> None:
    scenario = Scenario(1, Features(holes=False), messages=400)
    producers = Producers(scenario, tmp_path)
    correlator = Correlator(read_clock=False)
    for ring in producers.rings():
        correlator.attach(ring.path)
    producers.open()
    correlator.poll(START_NS)  # the clock's reading, before any stamp
    stop = threading.Event()
    polls = 0

    def poll() -> None:
        nonlocal polls
        while not stop.is_set():
            correlator.poll(START_NS)
            polls += 1

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        end_ns = max(m.published_ns for m in scenario.messages)
        for step in range(60):
            producers.write_until(START_NS + (end_ns - START_NS) * step // 60)
            _books(correlator.snapshot())
        producers.write_until(None)
        deadline = time.monotonic() + 20
        while sum(correlator.snapshot().messages.values()) < 400:
            assert time.monotonic() < deadline
            _books(correlator.snapshot())
    finally:
        stop.set()
        thread.join()
        producers.close()
    assert polls > 0
    _books(correlator.snapshot())


def test_results_are_refused_into_an_array_of_another_kind() -> None:
    with pytest.raises(ValueError, match="JOINED"):
        Correlator(joined_capacity=4).joined(np.zeros(4, dtype=RECORD))


def test_results_that_nobody_fetched_in_time_are_counted(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False, joined_capacity=16)
    with RingWriter(tmp_path, "feed-a", "feed", capacity=256, rows=8) as feed:
        correlator.attach(feed.path)
        handle = opened(feed)
        write(feed, *(message(handle, START_NS + i, 10 * i, i) for i in range(100)))
        correlator.poll(START_NS + 1000)
        out = np.zeros(100, dtype=JOINED)
        assert correlator.joined(out) == 16
        assert out["ordinal"][:16].tolist() == list(range(84, 100))
        assert correlator.snapshot().evicted["joined"] == 84


def test_connects_are_counted_by_result_and_those_that_succeeded_timed_by_family(bench: Bench) -> None:
    def connect(result: int, family: int, latency_ns: int) -> Any:
        return record(
            Kind.CONNECT, 0, START_NS, "connect", cookie=9, result=result, family=family, latency_ns=latency_ns
        )

    assert bench.correlator.snapshot().connects == {}, "a host that no kernel probe watches has no such figure"
    with RingWriter(bench.directory, "kernel", "kernel", rows=8) as kernel:
        bench.correlator.attach(kernel.path)
        write(
            kernel,
            connect(ConnectResult.OPENED, 4, 1000),
            connect(ConnectResult.OPENED, 4, 3000),
            connect(ConnectResult.OPENED, 6, 2**40),
            connect(ConnectResult.REFUSED, 4, 10),
            connect(ConnectResult.TIMED_OUT, 6, 10),
            connect(200, 4, 10),
            connect(ConnectResult.OPENED, 9, 10),
            connect(ConnectResult.OPENED, 4, 2**63),
        )
        write(bench.feed, connect(ConnectResult.OPENED, 4, 10))
        bench.poll(START_NS + 1)
    snapshot = bench.correlator.snapshot()
    assert snapshot.connects == {
        "opened": 3,
        "refused": 1,
        "timed_out": 1,
        "unreachable": 0,
        "aborted": 0,
        "other": 0,
    }
    assert {family: (h.count, h.sum_ns) for family, h in snapshot.connect_latencies.items()} == {
        "ipv4": (2, 4000),
        "ipv6": (1, 2**40),
    }
    assert bench.correlator.totals()["malformed"] == 3
    assert bench.correlator.totals()["unknown_kinds"] == 1
