# SPDX-License-Identifier: Apache-2.0
"""A TCP connection simulated from the wire to the application, and the join by brute force: one dictionary per byte."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tickpath.event import (
    RECORD,
    ROW,
    Clock,
    Kind,
    MessageFlag,
    RowFlag,
    RowState,
    SegmentFlag,
    Source,
    Tier,
)
from tickpath.exporter.correlator import Reason
from tickpath.ring import RingWriter

START_NS = 10**15
OFFSET_NS = 17 * 10**17  # realtime - monotonic
SAME_FRAME_NS = 1_000_000
US = 1000
MS = 1_000_000


def row(
    *,
    local: tuple[str, int] = ("10.0.0.1", 40000),
    remote: tuple[str, int] = ("10.0.0.2", 443),
    irs: int | None = None,
    cookie: int = 0,
    opened_ns: int = START_NS,
    feed: str = "btcusdt",
) -> Any:
    made = np.zeros((), dtype=ROW)
    for name, (address, port) in (("local", local), ("remote", remote)):
        made[name] = bytes(10) + b"\xff\xff" + bytes(int(part) for part in address.split("."))
        made[f"{name}_port"] = port
    made["cookie"] = cookie
    made["opened_ns"] = opened_ns
    made["state"] = RowState.OPEN
    made["venue"] = b"test"
    made["feed"] = feed.encode()
    if irs is not None:
        made["irs"] = irs
        made["flags"] = RowFlag.HAS_IRS
    return made


def record(kind: Kind, row_handle: int, time_ns: int, body: str = "", **fields: int) -> Any:
    made = np.zeros((), dtype=RECORD)
    made["kind"] = kind
    made["row"] = row_handle
    made["time_ns"] = time_ns
    made["clock"] = Clock.MONOTONIC
    for name, value in fields.items():
        if name in ("clock", "source", "flags"):
            made[name] = value
        else:
            made[body][name] = value
    return made


def clock_record(at_ns: int = START_NS, offset_ns: int = OFFSET_NS) -> Any:
    return record(
        Kind.CLOCK,
        0xFFFFFFFF,
        at_ns + offset_ns,
        "reading",
        clock=Clock.REALTIME,
        before_ns=at_ns,
        after_ns=at_ns,
        max_error_ns=1000,
    )


def write(writer: RingWriter, *records: Any) -> None:
    writer.write(b"".join(one.tobytes() for one in records))


@dataclass
class Copy:
    """One copy of a segment at the NIC."""

    time_ns: int
    start: int
    end: int
    seen_by: set[int] = field(default_factory=set)
    bad_checksum: bool = False


@dataclass
class Read:
    start: int
    end: int
    asked_ns: int
    returned_ns: int


@dataclass
class Message:
    end: int
    ordinal: int
    decode_began_ns: int
    received_ns: int
    parsed_ns: int
    published_ns: int
    exchange_ns: int


@dataclass
class Interval:
    start: int
    end: int
    time_ns: int
    asked_ns: int = 0
    lost: bool = False


@dataclass
class Features:
    kernel: bool = True
    holes: bool = True
    losses: bool = True
    overlaps: bool = True
    sources: tuple[Source, ...] = (Source.SW,)
    irs: int = 0
    bad_checksums: bool = True
    lost_kernel_events: bool = False


class Scenario:
    """What happened, and in what order each producer wrote it down."""

    def __init__(self, seed: int, features: Features, messages: int = 25) -> None:
        self.random = random.Random(seed)
        self.features = features
        self.irs = features.irs
        self._tick = 0
        self.ends = self._message_ends(messages)
        self.copies = self._transmit(self.ends[-1])
        self.readable: list[Interval] = []
        self.copied: list[Interval] = []
        self.reads: list[Read] = []
        self.messages: list[Message] = []
        self._receive()

    def unique(self, time_ns: int) -> int:
        """No two moments are the same, so that 'first' always means one."""
        self._tick += 1
        return time_ns * 1000 + self._tick

    def _message_ends(self, count: int) -> list[int]:
        ends, at = [], self.random.randrange(0, 300)
        for _ in range(count):
            if not ends or self.random.random() > 0.2:
                at += self.random.randrange(1, 200)
            ends.append(at)  # else several share one TLS record
        return ends

    def _transmit(self, total: int) -> list[Copy]:
        r, f = self.random, self.features
        copies: list[Copy] = []
        at, time = 0, START_NS // 1000
        everyone = set(range(len(f.sources)))

        def arrive(time: int, start: int, end: int, lost_share: float) -> None:
            seen = {i for i in everyone if not (f.holes and r.random() < lost_share)}
            copies.append(Copy(self.unique(time), start, end, seen))

        while at < total:
            end = min(total, at + r.randrange(1, 400))
            time += r.choice((3, 20, 150, 400))
            kind = r.random()
            if f.losses and kind < 0.1:
                arrive(time + r.randrange(2_000, 20_000), at, end, 0.2)  # lost, sent again
            elif f.losses and kind < 0.2:
                arrive(time + r.randrange(50, 400), at, end, 0.1)  # overtaken
            elif f.losses and kind < 0.3:
                arrive(time, at, end, 0.3)
                arrive(time + r.randrange(2_000, 20_000), at, end, 0.1)  # sent twice
            else:
                arrive(time, at, end, 0.1)
            if f.overlaps and r.random() < 0.15 and at > 0:
                start = r.randrange(max(0, at - 300), at)
                arrive(time + r.randrange(2_000, 9_000), start, r.randrange(start + 1, end + 1), 0.1)
            if f.bad_checksums and r.random() < 0.05:
                copies.append(Copy(self.unique(time - 2), at, end, set(everyone), bad_checksum=True))
            at = end
        return sorted(copies, key=lambda c: c.time_ns)

    def _receive(self) -> None:
        """The kernel takes the copies in order of arrival; the application reads, decodes and publishes."""
        r = self.random
        have: set[int] = set()
        nxt = 0
        softirq = 0
        for c in self.copies:
            if c.bad_checksum:
                continue
            have.update(range(c.start, c.end))
            before = nxt
            while nxt in have:
                nxt += 1
            if nxt > before:
                lost = self.features.lost_kernel_events and r.random() < 0.2
                softirq = max(softirq, c.time_ns // 1000) + r.randrange(1, 8)
                self.readable.append(Interval(before, nxt, self.unique(softirq), lost=lost))
        done, app = 0, START_NS // 1000
        todo = list(enumerate(self.ends))
        while done < self.ends[-1]:
            asked = self.unique(app)
            ready = [i for i in self.readable if i.end > done]
            wake = max(asked, ready[0].time_ns)
            there = max(i.end for i in self.readable if i.time_ns <= wake)
            to = min(there, done + 600)
            copied = self.unique(wake // 1000 + r.randrange(1, 5))
            returned = self.unique(copied // 1000 + 1)
            lost = self.features.lost_kernel_events and r.random() < 0.2
            self.copied.append(Interval(done, to, copied, asked, lost=lost))
            self.reads.append(Read(done, to, asked, returned))
            app = returned // 1000 + 1
            while todo and todo[0][1] <= to:
                ordinal, end = todo.pop(0)
                began = self.unique(app)
                received = self.unique(app + r.randrange(1, 10))
                parsed = self.unique(received // 1000 + r.randrange(1, 10))
                published = self.unique(parsed // 1000 + r.randrange(1, 20))
                exchange = OFFSET_NS + received - r.randrange(-2 * MS, 50 * MS)
                self.messages.append(Message(end, ordinal, began, received, parsed, published, exchange // MS * MS))
                app = published // 1000 + 1
            done = to

    # ---- the join by brute force ----

    def best(self) -> dict[int, tuple[int, Source, int]]:
        """byte -> (first arrival, source, index of the copy), as far as it was captured."""
        best: dict[int, tuple[int, Source, int]] = {}
        for observer, source in enumerate(self.features.sources):
            mine: dict[int, tuple[int, Source, int]] = {}
            for index, c in enumerate(self.copies):
                if observer in c.seen_by and not c.bad_checksum:
                    for byte in range(c.start, c.end):
                        mine.setdefault(byte, (self.stamp(c, observer), source, index))
            for byte, view in mine.items():
                other = best.setdefault(byte, view)
                if abs(view[0] - other[0]) > SAME_FRAME_NS or view[1] == other[1]:
                    best[byte] = min(view, other)
                else:
                    best[byte] = min(view, other, key=lambda v: v[1])
        return best

    def stamp(self, c: Copy, observer: int) -> int:
        return c.time_ns + 700 * observer

    def delivered_by(self, byte: int, with_kernel: bool) -> int:
        """The earliest moment known by which the byte had surely come."""
        times = [r.returned_ns for r in self.reads if r.end > byte] + [r.asked_ns for r in self.reads if r.start > byte]
        times += [m.received_ns for m in self.messages if m.end > byte]
        if with_kernel:
            times += [i.time_ns for i in self.readable if i.end > byte and not i.lost]
        return min(times)

    def delivered(self, best: dict[int, tuple[int, Source, int]]) -> dict[int, tuple[int, Source, int]]:
        """Without the copies from after the byte was delivered: they are not the one that was delivered."""
        return {
            b: view for b, view in best.items() if view[0] <= self.delivered_by(b, self.features.kernel) + SAME_FRAME_NS
        }

    def expected(self, m: Message, best: dict[int, tuple[int, Source, int]]) -> dict[str, Any]:
        answer: dict[str, Any] = {"own": None, "in_order": None, "reason": Reason.NONE, "method": 1}
        for name, intervals in (("readable", self.readable), ("copied", self.copied)):
            holds = [i for i in intervals if i.start < m.end <= i.end and not i.lost]
            answer[name] = holds[0].time_ns if holds and self.features.kernel else None
        read = next(r for r in self.reads if r.start < m.end <= r.end)
        answer["asked"] = read.asked_ns
        best = self.delivered(best)
        own = best.get(m.end - 1)
        if own is None:
            answer["reason"] = Reason.WIRE_GAP
            # Where the byte is known, a segment that does not hold it is a wrong one: no lesser method.
            answer["method"] = 0
            return answer
        answer["own"], answer["source"], answer["frame"] = own
        latest = max(best[b] for b in range(m.end) if b in best)
        unknown = [self.delivered_by(b, self.features.kernel) for b in range(m.end) if b not in best]
        if unknown and max(unknown) > latest[0]:
            answer["why_not_in_order"] = Reason.WIRE_GAP
        elif latest[0] > own[0] and latest[1] != own[1]:
            answer["why_not_in_order"] = Reason.MIXED_SOURCES
        else:
            answer["in_order"] = latest[0]
        return answer


class Producers:
    """A scenario's rings: records are written in each producer's own order, up to a moment."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        f = scenario.features
        self.feed = RingWriter(directory, "feed-test", "feed", capacity=4096, rows=8)
        self.wires = [RingWriter(directory, f"wire-{i}", "wire", capacity=4096, rows=8) for i in range(len(f.sources))]
        self.kernel = RingWriter(directory, "kernel", "kernel", capacity=4096, rows=8) if f.kernel else None
        self.queues: list[tuple[RingWriter, list[tuple[int, Any]]]] = []

    def rings(self) -> list[RingWriter]:
        return [*self.wires, *([self.kernel] if self.kernel else []), self.feed]

    def open(self, lag_ns: dict[str, int] | None = None) -> None:
        """Rows, clock readings and handshakes; then everything else waits to be written by `write_until`."""
        s = self.scenario
        lags = lag_ns or {}
        handle = self.feed.open_row(row(cookie=77))
        assert handle is not None
        write(self.feed, clock_record(), record(Kind.OPENED, handle, START_NS, "connection", cookie=77))
        self.queues.append((self.feed, self._feed_records(handle, lags.get("feed", 0))))
        for observer, wire in enumerate(self.wires):
            handle = wire.open_row(row())
            assert handle is not None
            write(wire, self._segment(handle, observer, START_NS - 1, seq=s.irs, tcp_flags=0x12))
            self.queues.append((wire, self._wire_records(handle, observer, lags.get("wire", 0))))
        if self.kernel:
            handle = self.kernel.open_row(row(cookie=77))
            assert handle is not None
            self.queues.append((self.kernel, self._kernel_records(handle, lags.get("kernel", 0))))

    def _segment(self, handle: int, observer: int, time_ns: int, **fields: int) -> Any:
        return record(
            Kind.SEGMENT,
            handle,
            time_ns + OFFSET_NS,
            "segment",
            clock=Clock.REALTIME,
            source=self.scenario.features.sources[observer],
            seen_ns=time_ns + 500,
            **fields,
        )

    def _wire_records(self, handle: int, observer: int, lag: int) -> list[tuple[int, Any]]:
        s = self.scenario
        made = []
        for index, c in enumerate(s.copies):
            if observer not in c.seen_by:
                continue
            stamp = s.stamp(c, observer)
            fields = {
                "seq": (s.irs + 1 + c.start) % 2**32,
                "length": c.end - c.start,
                "frame": index,
                "flags": SegmentFlag.BAD_CSUM if c.bad_checksum else 0,
            }
            made.append((stamp + lag, self._segment(handle, observer, stamp, **fields)))
        return sorted(made, key=lambda item: item[0])

    def _kernel_records(self, handle: int, lag: int) -> list[tuple[int, Any]]:
        made = []
        for kind, intervals in ((Kind.READABLE, self.scenario.readable), (Kind.COPIED, self.scenario.copied)):
            for i in intervals:
                if i.lost:
                    continue
                fields = {"from": i.start, "to": i.end, "cookie": 77, "seq": (self.scenario.irs + 1 + i.end) % 2**32}
                if kind is Kind.COPIED:
                    fields["asked_ns"] = i.asked_ns
                made.append((i.time_ns + lag, record(kind, handle, i.time_ns, "interval", **fields)))
        return sorted(made, key=lambda item: item[0])

    def _feed_records(self, handle: int, lag: int) -> list[tuple[int, Any]]:
        made = []
        for r in self.scenario.reads:
            fields = {"from": r.start, "to": r.end, "asked_ns": r.asked_ns}
            made.append((r.returned_ns + lag, record(Kind.READ, handle, r.returned_ns, "read", **fields)))
        flags = MessageFlag.HAS_EXCHANGE | MessageFlag.HAS_DECODE | MessageFlag.HAS_PARSED | MessageFlag.HAS_PUBLISHED
        for m in self.scenario.messages:
            made.append(
                (
                    m.published_ns + lag,
                    record(
                        Kind.MESSAGE,
                        handle,
                        m.received_ns,
                        "message",
                        source=Tier.A,
                        flags=flags,
                        exchange_ns=m.exchange_ns,
                        end=m.end,
                        ordinal=m.ordinal,
                        length=10,
                        decode_ns=m.received_ns - m.decode_began_ns,
                        parsed_ns=m.parsed_ns - m.received_ns,
                        published_ns=m.published_ns - m.parsed_ns,
                    ),
                )
            )
        return sorted(made, key=lambda item: item[0])

    def write_until(self, now_ns: int | None) -> None:
        """Write what its producer had written down by `now_ns`; all of it when None."""
        for writer, queue in self.queues:
            due = [item for at, item in queue if now_ns is None or at <= now_ns]
            if due:
                write(writer, *due)
                del queue[: len(due)]

    def close(self) -> None:
        for ring in self.rings():
            ring.close()
