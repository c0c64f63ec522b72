# SPDX-License-Identifier: Apache-2.0
"""Frames of a few connections in turns, each much like the last of its own: recorded as if every one were parsed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk, pcap_file
from tickpath.event import ROW_NONE, Counter, Kind, SegmentFlag
from tickpath.packet import Checksum, Packet, Reason, parse

scapy = pytest.importorskip("scapy.all")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="DPDK wants root"),
    needs_dpdk,
]

PORT = 443
FRAMES = 6_000


def _links() -> list[tuple[object, int]]:
    """The layers below TCP of each connection, and its local port: 20 of them, more than the loop remembers."""
    s = scapy
    ether = s.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    kinds = [
        ether / s.IP(src="192.0.2.1", dst="198.51.100.2"),
        ether / s.IPv6(src="2001:db8::1", dst="2001:db8::2"),
        ether / s.Dot1Q(vlan=5) / s.IP(src="192.0.2.1", dst="198.51.100.2"),
        ether / s.Dot1Q(vlan=5) / s.IPv6(src="2001:db8::1", dst="2001:db8::2"),
        ether / s.Dot1AD(vlan=6) / s.Dot1Q(vlan=5) / s.IP(src="192.0.2.3", dst="198.51.100.2"),
        ether / s.IP(src="192.0.2.1", dst="198.51.100.2", options=[s.IPOption_NOP()] * 4),
    ]
    return [(kinds[0], 40_000 + number) for number in range(15)] + [(kind, 40_100) for kind in kinds[1:]]


def _frames(draw: random.Random) -> list[bytes]:
    """Long runs of one connection and quick turns; lengths, options, marks of IP and damage as drawn."""
    links, frames = _links(), []
    sent = [draw.getrandbits(32) for _ in links]
    options: dict[int, list[object]] = {}
    while len(frames) < FRAMES:
        number = draw.randrange(len(links))
        for _ in range(draw.choice([1, 1, 1, 40])):
            link, port = links[number]
            below = link.copy()
            if scapy.IP in below:
                below[scapy.IP].id, below[scapy.IP].ttl = draw.getrandbits(16), draw.randrange(1, 255)
            size = draw.choice([0, 1, 2, 9, 10, 100, 1399])
            flags = "A" if draw.random() < 0.98 else draw.choice(["S", "SA", "FA", "R", "PA", "PAUE"])
            if draw.random() < 0.03:
                stamps = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
                options[number] = draw.choice([[], stamps, [("SAck", (1, 2))]])
            tcp = scapy.TCP(
                sport=PORT if draw.random() < 0.98 else PORT + 1,
                dport=port,
                seq=sent[number],
                ack=draw.getrandbits(32),
                flags=flags,
                options=options.get(number, []),
            )
            sent[number] = (sent[number] + size) % 2**32
            if "S" in flags and draw.random() < 0.5:
                sent[number] = draw.getrandbits(32)
            frame = bytearray(bytes(below / tcp / draw.randbytes(size)))
            if draw.random() < 0.05:  # anywhere: checksum, length, addresses, fragments, protocol, header's length
                frame[draw.randrange(12, min(len(frame), 90))] ^= 1 << draw.randrange(8)
            if draw.random() < 0.02:
                del frame[draw.randrange(20, len(frame)) :]
            frames.append(bytes(frame) + bytes(max(0, 60 - len(frame)) if draw.random() < 0.5 else 0))
    return frames


def _expected(frame: bytes) -> tuple[Packet, bool] | None:
    """What the parser reads, and whether the checksum is bad; None: no segment of a watched peer."""
    packet = parse(frame)
    if isinstance(packet, Reason) or packet.source_port != PORT:
        return None
    return packet, packet.tcp_checksum is Checksum.BAD


def test_each_frame_is_recorded_as_the_parser_reads_it(tmp_path: Path) -> None:
    frames = _frames(random.Random(4))
    file = pcap_file(tmp_path / "frames.pcap", ((1_700_000_000_000_000 + n, frame) for n, frame in enumerate(frames)))
    with DpdkCapture(tmp_path / "rings", f"net_pcap0,rx_pcap={file}", "--port", str(PORT)) as capture:
        capture.ready()
        capture.wait_for(Counter.DPDK_RECEIVED, len(frames))
        segments, rows = capture.records(Kind.SEGMENT), capture.readers[0].rows()
        capture.stop()
    expected = [found for frame in frames if (found := _expected(frame))]
    assert len(expected) > FRAMES * 0.9
    assert sum(bad for _, bad in expected) > 50
    assert len(segments) == len(expected)
    ends = set()
    for record, (packet, bad) in zip(segments, expected, strict=True):
        body = record["segment"]
        assert (body["seq"], body["ack"], body["length"], body["tcp_flags"]) == (
            packet.seq,
            packet.ack,
            packet.payload_length,
            packet.tcp_flags,
        )
        assert bool(record["flags"] & SegmentFlag.BAD_CSUM) == bad
        if record["row"] != ROW_NONE and (row := rows.get(int(record["row"]))) is not None:
            assert (bytes(row["remote"]), bytes(row["local"]), row["remote_port"], row["local_port"]) == (
                packet.source,
                packet.destination,
                packet.source_port,
                packet.destination_port,
            )
            ends.add((packet.source, packet.destination_port))
    assert len(ends) >= 17
