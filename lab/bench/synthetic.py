# SPDX-License-Identifier: Apache-2.0
"""Rings filled with what feed, wire and kernel probes write of one message after the other, every stamp there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickpath.errors import TickpathError
from tickpath.event import RECORD, ROW, ROW_NONE, Clock, Kind, MessageFlag, Resolution, RowFlag, RowState, Source, Tier
from tickpath.ring import RingWriter

MESSAGE_BYTES = 300
RECORDS_PER_MESSAGE = 5
_GAP_NS = 100_000  # between messages: more than the longest of the latencies below, so that streams stay in order
_IRS = 1000
_ALL = MessageFlag.HAS_EXCHANGE | MessageFlag.HAS_DECODE | MessageFlag.HAS_PARSED | MessageFlag.HAS_PUBLISHED

Records = npt.NDArray[Any]


def _row(number: int, opened_ns: int) -> Any:
    row = np.zeros((), dtype=ROW)
    row["state"], row["flags"], row["irs"] = RowState.OPEN, RowFlag.HAS_IRS, _IRS
    row["opened_ns"], row["cookie"] = opened_ns, number + 1
    row["local"] = bytes(10) + b"\xff\xff\x0a\x00\x00\x01"
    row["remote"] = bytes(10) + b"\xff\xff\x0a\x00\x00\x02"
    row["local_port"], row["remote_port"] = 40_000 + number, 443
    row["venue"], row["feed"] = b"bench", f"feed-{number}".encode()
    return row


def _opened(writer: RingWriter, row: Any) -> int:
    handle = writer.open_row(row)
    if handle is None:
        raise TickpathError(f"ring {writer.name} has no row left")
    return handle


class Stream:
    """One connection: what its feed, a wire probe and a kernel probe would write. `now_ns` is where its time stands.

    The wire's stamps are on the realtime clock and the others' on the monotonic one, as in life.
    """

    def __init__(self, folder: Path, number: int = 0) -> None:
        self.now_ns = time.monotonic_ns()
        self._offset_ns = time.time_ns() - self.now_ns
        self._end = 0
        self._ordinal = 0
        self._random = np.random.default_rng(number)
        self.feed = RingWriter(folder, f"feed-{number}", "feed", rows=8)
        self.wire = RingWriter(folder, f"wire-{number}", "wire", rows=8)
        self.kernel = RingWriter(folder, f"kernel-{number}", "kernel", rows=8)
        self.rings = (self.wire, self.kernel, self.feed)
        row = _row(number, self.now_ns)
        self._cookie = number + 1
        self._handles = {ring: _opened(ring, row) for ring in self.rings}
        self._open()

    def _open(self) -> None:
        opened = np.zeros(1, dtype=RECORD)
        opened["kind"], opened["row"], opened["time_ns"] = Kind.OPENED, self._handles[self.feed], self.now_ns
        opened["clock"], opened["connection"]["cookie"] = Clock.MONOTONIC, self._cookie
        reading = np.zeros(1, dtype=RECORD)
        reading["kind"], reading["row"], reading["clock"] = Kind.CLOCK, ROW_NONE, Clock.REALTIME
        reading["time_ns"] = self.now_ns + self._offset_ns
        reading["reading"]["before_ns"] = reading["reading"]["after_ns"] = self.now_ns
        self._write(self.feed, reading)
        self._write(self.feed, opened)
        self._write(self.wire, reading)

    @staticmethod
    def _write(ring: RingWriter, records: Records) -> None:
        ring.write(records.view(np.uint8))

    def write(self, count: int) -> int:
        """Write the records of the next `count` messages; return how many."""
        spread = self._random.lognormal(0, 0.5, (4, count))
        wire_ns = self.now_ns + _GAP_NS * np.arange(1, count + 1)
        readable_ns = wire_ns + np.minimum(5_000 * spread[0], 20_000).astype(np.int64)
        copied_ns = readable_ns + np.minimum(6_000 * spread[1], 20_000).astype(np.int64)
        returned_ns = copied_ns + 500
        received_ns = returned_ns + np.minimum(4_000 * spread[2], 10_000).astype(np.int64)
        end = self._end + MESSAGE_BYTES * np.arange(1, count + 1)
        begin = end - MESSAGE_BYTES

        self._write(self.wire, self._segments(wire_ns, begin))
        kernel = self._records(self.kernel, 2 * count)
        for at, kind, times in ((0, Kind.READABLE, readable_ns), (1, Kind.COPIED, copied_ns)):
            part = kernel[at::2]
            part["kind"], part["time_ns"] = kind, times
            part["interval"]["from"], part["interval"]["to"] = begin, end
            part["interval"]["cookie"] = self._cookie
            part["interval"]["seq"] = (_IRS + 1 + end) % 2**32
        kernel["interval"]["asked_ns"][1::2] = readable_ns - 1_000
        self._write(self.kernel, kernel)
        feed = self._records(self.feed, 2 * count)
        reads, messages = feed[0::2], feed[1::2]
        reads["kind"], reads["time_ns"] = Kind.READ, returned_ns
        reads["read"]["from"], reads["read"]["to"] = begin, end
        reads["read"]["asked_ns"] = readable_ns - 1_000
        messages["kind"], messages["time_ns"] = Kind.MESSAGE, received_ns
        messages["source"], messages["flags"] = Tier.A, int(_ALL) | Resolution.MS
        body = messages["message"]
        body["exchange_ns"] = wire_ns + self._offset_ns - (2_000_000 * spread[3]).astype(np.int64)
        body["end"], body["length"] = end, MESSAGE_BYTES
        body["ordinal"] = (self._ordinal + np.arange(count)) % 2**32
        body["decode_ns"] = received_ns - returned_ns
        body["parsed_ns"], body["published_ns"] = 2_000, (3_000 * spread[1]).astype(np.uint32)
        self._write(self.feed, feed)
        self.now_ns = int(wire_ns[-1]) + _GAP_NS
        self._end = int(end[-1])
        self._ordinal += count
        return RECORDS_PER_MESSAGE * count

    def _records(self, ring: RingWriter, count: int) -> Records:
        records = np.zeros(count, dtype=RECORD)
        records["clock"], records["row"] = Clock.MONOTONIC, self._handles[ring]
        return records

    def _segments(self, wire_ns: npt.NDArray[np.int64], begin: npt.NDArray[np.int64]) -> Records:
        segments = self._records(self.wire, len(begin))
        segments["kind"], segments["clock"], segments["source"] = Kind.SEGMENT, Clock.REALTIME, Source.SW
        segments["time_ns"] = wire_ns + self._offset_ns
        body = segments["segment"]
        body["frame"], body["seen_ns"] = np.arange(len(begin)), wire_ns + 500
        body["seq"], body["length"], body["segments"] = (_IRS + 1 + begin) % 2**32, MESSAGE_BYTES, 1
        body["tcp_flags"] = 0x18
        return segments

    def close(self) -> None:
        """End the producers."""
        for ring in self.rings:
            ring.close()
