# SPDX-License-Identifier: Apache-2.0
"""What the correlator makes of pings: counts by target, protocol and result, RTTs by what took them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from correlator.model import START_NS, record, write
from tickpath.event import ROW, Kind, PingFlag, PingProto, PingResult, PingSource, PingSplit
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.snapshot import Pings
from tickpath.ring import RingWriter


def ping(handle: int, result: int, **more: Any) -> Any:
    fields = {"result": result, "proto": PingProto.UDP, "source": PingSource.SW, "rtt_ns": 1000, **more}
    return record(Kind.PING, handle, START_NS, "ping", **fields)


def target(ring: RingWriter, name: str) -> int:
    row = np.zeros((), ROW)
    row["stream"] = name.encode()
    handle = ring.open_row(row)
    assert handle is not None
    return handle


@pytest.fixture
def rings(tmp_path: Path) -> Iterator[tuple[Correlator, RingWriter]]:
    correlator = Correlator(read_clock=False)
    with RingWriter(tmp_path, "ping", "ping", capacity=4096, rows=400) as ring:
        correlator.attach(ring.path)
        yield correlator, ring


def by_target(correlator: Correlator) -> dict[tuple[str, str], Pings]:
    return {(one.target, one.proto): one for one in correlator.snapshot().pings}


def test_each_result_is_counted_under_its_target_and_protocol(rings: tuple[Correlator, RingWriter]) -> None:
    correlator, ring = rings
    assert correlator.snapshot().pings == (), "a host that pings nobody has no such figure"
    one, other = target(ring, "10.0.0.1"), target(ring, "x" * 120)
    write(
        ring,
        *(ping(one, PingResult.SENT) for _ in range(4)),
        ping(one, PingResult.REPLY),
        ping(one, PingResult.REPLY, rtt_ns=9000, source=PingSource.HW),
        ping(one, PingResult.LOST),
        ping(one, PingResult.LATE, rtt_ns=2000, flags=PingFlag.NO_STAMP | PingFlag.DISBELIEVED),
        ping(one, PingResult.DUPLICATE, rtt_ns=5000),
        ping(one, PingResult.ERROR),
        ping(other, PingResult.SENT, proto=PingProto.ICMP),
        ping(other, PingResult.SENT, proto=PingProto.TCP),
    )
    correlator.poll(START_NS)
    found = by_target(correlator)
    assert set(found) == {("10.0.0.1", "udp"), ("x" * 120, "icmp"), ("x" * 120, "tcp")}
    udp = found["10.0.0.1", "udp"]
    assert udp.results == {"sent": 4, "reply": 2, "lost": 1, "late": 1, "duplicate": 1, "error": 1}
    assert (udp.no_stamp, udp.disbelieved) == (1, 1)
    assert {source: (h.count, h.sum_ns) for source, h in udp.rtt.items()} == {"hw": (1, 9000), "sw": (2, 3000)}
    assert found["x" * 120, "tcp"].rtt == {}


def split(handle: int, why: PingSplit, **more: Any) -> Any:
    fields = {"why": why, "proto": PingProto.UDP, "source": PingSource.SW, "far_source": PingSource.SW, **more}
    return record(Kind.PING_SPLIT, handle, START_NS, "split", **fields)


def test_each_way_is_kept_by_the_worse_of_both_ends_and_what_is_not_known_is_counted(
    rings: tuple[Correlator, RingWriter],
) -> None:
    correlator, ring = rings
    handle, other = target(ring, "a"), target(ring, "b")
    write(
        ring,
        split(handle, PingSplit.KNOWN, path_ns=900, out_ns=1000, bound_ns=150),
        split(handle, PingSplit.KNOWN, path_ns=900, out_ns=500, bound_ns=100, far_source=PingSource.APP),
        split(handle, PingSplit.NIC, path_ns=800, bound_ns=2**63 - 1, source=PingSource.HW, far_source=PingSource.HW),
        split(handle, PingSplit.UNBELIEVED, bound_ns=2**63 - 1),
        split(other, PingSplit.KNOWN, path_ns=2, out_ns=1, bound_ns=0),
        split(other, PingSplit.FAR_UNBOUND, path_ns=700, bound_ns=2**63 - 1),
        # What cannot be:
        split(handle, 99),  # type: ignore[arg-type]
        split(handle, PingSplit.KNOWN, proto=0),
        split(handle, PingSplit.KNOWN, far_source=99),
        split(handle, PingSplit.KNOWN, bound_ns=-1),
        split(handle, PingSplit.KNOWN, path_ns=2**62),
    )
    correlator.poll(START_NS)
    found = by_target(correlator)
    one = found["a", "udp"]
    sums = {way: {s: (h.count, h.sum_ns) for s, h in getattr(one, way).items()} for way in ("path", "out", "back")}
    assert sums == {
        "path": {"sw": (1, 900), "app": (1, 900), "hw": (1, 800)},
        "out": {"sw": (1, 1000), "app": (1, 500)},
        "back": {"sw": (1, -100), "app": (1, 400)},
    }
    assert {why: count for why, count in one.unsplit.items() if count} == {"nic": 1, "unbelieved": 1}
    assert (one.split_bound_ns, found["b", "udp"].split_bound_ns) == (100, math.inf)
    assert (one.rtt, sum(one.results.values())) == ({}, 0)
    assert correlator.totals()["malformed"] == 5


def test_what_cannot_be_is_left_out_and_counted(rings: tuple[Correlator, RingWriter], tmp_path: Path) -> None:
    correlator, ring = rings
    handle = target(ring, "a")
    write(
        ring,
        ping(handle, 200),
        ping(handle, PingResult.REPLY, proto=0),
        ping(handle, PingResult.REPLY, proto=9),
        ping(handle, PingResult.REPLY, source=99),
        ping(handle, PingResult.REPLY, rtt_ns=2**63 - 1),
        ping(handle, PingResult.REPLY, rtt_ns=-(2**63)),
    )
    with RingWriter(tmp_path, "feed", "feed", rows=4) as feed:
        correlator.attach(feed.path)
        write(feed, ping(0, PingResult.SENT))
        correlator.poll(START_NS)
    assert correlator.snapshot().pings == ()
    assert correlator.totals()["malformed"] == 6
    assert correlator.totals()["unknown_kinds"] == 1


def test_targets_beyond_the_room_and_of_lost_rows_are_counted_together(rings: tuple[Correlator, RingWriter]) -> None:
    correlator, ring = rings
    handles = [target(ring, f"host{number}") for number in range(300)]
    write(ring, *(ping(handle, PingResult.SENT) for handle in handles), ping(399, PingResult.SENT))
    correlator.poll(START_NS)
    found = by_target(correlator)
    assert len(found) == 256
    assert found["", ""].results["sent"] == 300 - 255 + 1
    assert sum(one.results["sent"] for one in found.values()) == 301
    assert correlator.totals()["labels_refused"] == 300 - 255
