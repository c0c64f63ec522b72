# SPDX-License-Identifier: Apache-2.0
"""The corpora that the fuzzers start from: well-formed inputs of every kind, made here rather than recorded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether

from tickpath.event import RECORD, ROW, Clock, Kind, RowFlag, Source, Tier


def _packets() -> Iterator[bytes]:
    """Ethertype (1 byte, 0: Ethernet), bytes cut off (2), the frame."""
    segment = TCP(sport=443, dport=40000, seq=7, flags="PA", options=[("Timestamp", (1, 2)), ("NOP", None)]) / b"data"
    for frame in (
        Ether() / IP() / segment,
        Ether() / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP(options=b"\x01\x01\x01\x01") / segment,
        Ether() / IPv6() / segment,
        Ether() / IPv6() / IPv6ExtHdrHopByHop() / segment,
        Ether() / IP(flags="MF") / segment,
    ):
        raw = bytes(frame)
        yield b"\0\0\0" + raw
        yield b"\0\x14\0" + raw[:60]
    yield b"\x02\0\0" + bytes(IP() / segment)
    yield b"\x03\0\0" + bytes(IPv6() / segment)


def _control() -> Iterator[bytes]:
    """Control messages: length, level 1, type, payload."""
    wide = struct.pack("=QII6q", 16 + 48, 1, 65, 1_700_000_000, 999, 0, 0, 1_700_000_037, 5)
    narrow = struct.pack("=QII6i", 16 + 24, 1, 37, 1_700_000_000, 999, 0, 0, 0, 0)
    other = struct.pack("=QIIi4x", 16 + 4, 1, 99, 3)
    yield from (wide, narrow, other + wide, narrow + other, wide + narrow)
    # Of an error queue: a stamp of sending with its number; what ICMP said, and who; a TTL; the stamping NIC.
    sent = struct.pack("=QIIIBBBxII", 16 + 16, 0, 11, 42, 4, 0, 0, 0, 7)
    refused = struct.pack("=QIIIBBBxIIHH4s8x", 16 + 32, 0, 11, 111, 2, 3, 3, 0, 0, 2, 0, bytes([10, 0, 0, 1]))
    refused6 = struct.pack("=QIIIBBBxIIHHI16sI", 16 + 44, 41, 25, 111, 3, 1, 4, 0, 0, 10, 0, 0, bytes(16), 0)
    hops = struct.pack("=QIIi4x", 16 + 4, 0, 2, 64) + struct.pack("=QIIi4x", 16 + 4, 41, 52, 64)
    nic = struct.pack("=QIIII8x", 16 + 16, 1, 58, 3, 60) + struct.pack("=QII2q", 16 + 16, 1, 64, 1_700_000_000, 5)
    yield from (wide + sent, refused + hops, refused6 + hops, nic + wide)


def _answers() -> Iterator[bytes]:
    """This end of a ping: sent (7 bytes), bound (5), RTT (5), monotonic before (6) and how long (5), host (4); whether
    times were asked for (1) and the nonce (8). Then an answer, or what follows it."""
    nonce = 5
    for asked in (0, 1):
        near = b"".join(n.to_bytes(size, "little") for n, size in [(10**15, 7), (10, 5), (9000, 5), (10**9, 6)])
        near += (10**6).to_bytes(5, "little") + (7).to_bytes(4, "little") + bytes([asked]) + struct.pack("<Q", nonce)
        for kind in (1, 2):
            head = struct.pack("<4sBBHQQ", b"tpng", 1, kind, 0x8003 if asked else 0, nonce, 3)
            yield near + head + bytes(range(24, 56))
        for bound_us, host in [(3, 1), (0xFFFFFF, 1), (3, 7), (20, 7)]:
            head = struct.pack("<4sBBHQQ", b"tpng", 1, 3, 0x8003, nonce, 3)
            yield near + head + struct.pack("<qqIIII", 10**15 + 4000, 10**9 + 5, host, 500, 400, bound_us << 8 | 2)


def _streams() -> Iterator[bytes]:
    """Bytes per write (2), then TLS records."""

    def records(*lengths: int) -> bytes:
        return b"".join(b"\x17\x03\x03" + struct.pack(">H", n) + bytes(n) for n in lengths)

    for step in (0, 4, 700, 4999):
        yield struct.pack("<H", step) + records(0, 1, 300, 900)
    yield struct.pack("<H", 4999) + records(16384 + 2048, 5)
    yield struct.pack("<H", 50) + records(40) + b"\x16\x03\x01"
    yield struct.pack("<H", 50) + records(40) + b"GET / HTTP/1.1\r\n"


def _rings() -> Iterator[bytes]:
    """How (1), changes of the file (each: place 2, length - 1, bytes) after their number, where it is cut."""
    yield bytes([1, 0])
    for how in (1, 17, 49):
        for place, value in ((24, struct.pack("<Q", 1 << 20)), (256, struct.pack("<Q", 1 << 63)), (4096, b"\1")):
            change = struct.pack("<HB", place, len(value) - 1) + value
            yield bytes([how, 1]) + change + bytes([1]) + change + struct.pack("<H", 5000)
    yield bytes([0, 0]) + struct.pack("<H", 8191)


def _segments() -> Iterator[bytes]:
    """Limit (1), first sequence number (4), then segments: how (1), distance (2), pause (2)."""
    in_order = b"".join(struct.pack("<BhH", 0x81, 128, 10) for _ in range(20))
    for first in (1000, 0xFFFFFF00):
        for limit in (2, 60):
            yield bytes([limit]) + struct.pack("<I", first) + in_order
            yield bytes([limit]) + struct.pack("<I", first) + in_order + struct.pack("<BhH", 0xFF, -600, 9) + in_order
            yield bytes([limit]) + struct.pack("<I", first) + in_order + struct.pack("<BhH", 0, -60, 9) + in_order


def _sightings() -> Iterator[bytes]:
    """Connection, TCP flags (1 each), sequence (4), length (2), pause (2)."""
    life = [(0x12, 99, 0), (0x10, 100, 300), (0x10, 400, 300), (0x11, 700, 0)]
    for count in (1, 9):
        yield b"".join(
            struct.pack("<BBIHH", connection, *seen, pause)
            for pause in (0, 0x8100, 1)
            for seen in life
            for connection in range(count)
        )


def _records() -> Iterator[bytes]:
    """Memory (1); what to do and pause (1 each), then an event after its tame (1), or a row: see fuzz_correlator.c."""
    feed, wire, kernel, tame = 0, 16, 32, 4

    def event(which: int, kind: Kind, body: str = "", **fields: object) -> bytes:
        record = np.zeros(1, RECORD)
        record["kind"] = kind
        record["clock"] = Clock.MONOTONIC
        for name, value in fields.items():
            target = record[body] if body and name in (record[body].dtype.names or ()) else record
            target[name] = value
        return bytes([which, 20, tame]) + record.tobytes()[8:]

    def row(which: int, draw: int) -> bytes:
        told = np.zeros(1, ROW)
        told["flags"] = RowFlag.HAS_IRS
        return bytes([which | 14, 1, 0]) + struct.pack("<H", draw) + told.tobytes()[:40]

    known = 1 | 4 | 1 << 3  # open, with a cookie, and a first sequence number of 2^32 - 1
    clock = event(wire, Kind.CLOCK, "reading", clock=Clock.REALTIME, before_ns=10**6, after_ns=10**6)
    out = bytes([10]) + row(feed, known) + row(wire, known) + row(kernel, known) + clock
    for number in range(8):
        begin, end = number * 100, number * 100 + 100
        place = {"from": begin, "to": end}
        out += event(wire, Kind.SEGMENT, "segment", source=Source.SW, seq=begin, length=100, frame=number)
        out += event(kernel, Kind.READABLE, "interval", cookie=1, **place)
        out += event(kernel, Kind.COPIED, "interval", cookie=1, **place)
        out += event(feed, Kind.READ, "read", **place)
        out += event(feed, Kind.MESSAGE, "message", source=Tier.A, flags=0x0F, end=end, ordinal=number)
        out += bytes([11, 200, 0, 0])
        yield out


CORPORA = {
    "correlator": _records,
    "flow": _segments,
    "packet": _packets,
    "ping": _answers,
    "ring": _rings,
    "stamps": _control,
    "stream": _streams,
    "wire": _sightings,
}
