# SPDX-License-Identifier: Apache-2.0
"""What the correlator makes of pings: counts by target, protocol and result, RTTs by what took them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from correlator.model import START_NS, record, write
from tickpath.event import ROW, Kind, PingFlag, PingProto, PingResult, PingSource
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
