# SPDX-License-Identifier: Apache-2.0
"""Every frame of a file that net_pcap plays: parsed as scapy and tcpdump do, recorded once, counted if not."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk, pcap_file
from tickpath.event import Clock, Counter, Kind, SegmentFlag, Source

scapy = pytest.importorskip("scapy.all")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="DPDK wants root"),
    needs_dpdk,
]

PORT = 443
BULK = 100_000
_BULK_SEQ = 1 << 31
_FIRST_US = 1_700_000_000_000_000
# Named, or scapy asks the host's own network for the addresses, and waits for an answer.
_LINK = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def _crafted() -> list[Any]:
    """Frames of every kind that the parser knows, good ones and others."""
    s, frames = scapy, []

    def tcp(seq: int, payload: bytes = b"", flags: str = "PA", **more: Any) -> Any:
        return s.TCP(sport=PORT, dport=40000, seq=seq, ack=77, flags=flags, **more) / s.Raw(payload)

    v4, v6 = s.IP(src="192.0.2.1", dst="198.51.100.2"), s.IPv6(src="2001:db8::1", dst="2001:db8::2")
    ether = s.Ether(**_LINK)
    for number, ip in enumerate((v4, v6)):
        seq = 1000 + number * 100_000
        frames += [
            ether / ip / tcp(seq, flags="SA"),
            ether / ip / tcp(seq + 1, b"a" * 300),
            ether / ip / tcp(seq + 301, b"b" * 1400),
            ether / ip / tcp(seq + 1701, b"c" * 7, options=[("Timestamp", (1, 2)), ("NOP", None)]),
            ether / s.Dot1Q(vlan=5) / ip / tcp(seq + 1708, b"d" * 100),
            ether / s.Dot1AD(vlan=6) / s.Dot1Q(vlan=5) / ip / tcp(seq + 1808, b"e"),
            ether / ip / s.UDP(sport=PORT, dport=9) / b"x",
            ether / ip / s.TCP(sport=PORT + 1, dport=9, seq=1) / b"of another peer",
            ether / ip / tcp(seq + 1809, flags="FA"),
        ]
    frames += [
        ether / s.IP(src="192.0.2.1", dst="198.51.100.2", options=[s.IPOption_NOP()] * 4) / tcp(5000, b"f" * 30),
        ether / v6 / s.IPv6ExtHdrHopByHop() / s.IPv6ExtHdrDestOpt() / tcp(6000, b"g" * 60),
        ether / s.ARP(psrc="192.0.2.1", pdst="192.0.2.2"),
        s.Ether(bytes(ether / v4 / tcp(7000, b"h")) + b"\0" * 20),  # Ethernet padding is no payload
    ]
    return [s.Ether(bytes(frame)) for frame in frames]


def _spoiled() -> dict[str, list[Any]]:
    """By the counter that must take them."""
    s, draw = scapy, random.Random(6)
    ether = s.Ether(**_LINK)
    whole = bytes(ether / s.IP(src="192.0.2.1", dst="192.0.2.2") / s.TCP(sport=PORT, dport=9) / (b"z" * 64))
    fragment = ether / s.IP(src="192.0.2.1", dst="192.0.2.2", flags="MF", proto=6) / (b"z" * 64)
    lying = bytearray(whole)
    lying[16:18] = struct.pack(">H", 4000)  # longer than the frame
    short = bytearray(whole)
    short[14] = 0x44  # a header of 16 bytes
    offset = bytearray(whole)
    offset[46] = 0x10  # TCP header of 4 bytes
    return {
        "fragment": [fragment, s.Ether(bytes(ether / s.IP(frag=100, proto=6, src="192.0.2.1") / (b"z" * 64)))],
        "malformed": [s.Raw(bytes(lying)), s.Raw(bytes(short)), s.Raw(bytes(offset)), s.Raw(whole[:40])],
        "other": [s.Raw(draw.randbytes(12) + b"\x88\xb5" + draw.randbytes(draw.randrange(60))) for _ in range(200)],
    }


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _bulk(count: int) -> Iterator[bytes]:
    """The same segment of 10 bytes over and over, at sequence numbers one behind the other, checksums right."""
    ip = scapy.IP(src="203.0.113.1", dst="203.0.113.2")
    raw = bytearray(bytes(scapy.Ether(**_LINK) / ip / scapy.TCP(sport=PORT, dport=5, flags="A") / b"0123456789"))
    raw[50:52] = b"\0\0"
    pseudo = bytes(raw[26:34]) + struct.pack(">HH", 6, 30)
    for number in range(count):
        raw[38:42] = struct.pack(">I", _BULK_SEQ + 10 * number)
        raw[50:52] = b"\0\0"
        raw[50:52] = struct.pack(">H", 0xFFFF - _sum(pseudo + bytes(raw[34:])))
        yield bytes(raw)


@dataclass
class Played:
    crafted: list[Any]
    file: Path
    segments: np.ndarray
    rows: dict[int, np.void]
    counts: dict[Counter, int]
    said: str

    def of_bulk(self, bulk: bool) -> np.ndarray:
        return self.segments[(self.segments["segment"]["seq"] >= _BULK_SEQ) == bulk]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("played")
    crafted = _crafted()
    corrupt = scapy.Ether(bytes(crafted[1]))
    corrupt[scapy.TCP].chksum = (crafted[1][scapy.TCP].chksum + 1) & 0xFFFF
    others = [frame for kind in _spoiled().values() for frame in kind]
    frames = [*map(bytes, [*crafted, *others, corrupt]), *_bulk(BULK)]
    file = pcap_file(folder / "frames.pcap", ((_FIRST_US + number, frame) for number, frame in enumerate(frames)))
    flags = ("--port", str(PORT), "--capacity", str(1 << 18))  # all of it, however late it is read
    with DpdkCapture(folder / "rings", f"net_pcap0,rx_pcap={file}", *flags) as capture:
        capture.ready()
        capture.wait_for(Counter.DPDK_RECEIVED, len(frames))
        segments, rows = capture.records(Kind.SEGMENT), capture.readers[0].rows()
        said = capture.stop()
        counts = capture.readers[0].counters()
    return Played(crafted, file, segments, rows, counts, said)


def test_what_is_recorded_is_what_scapy_reads(played: Played) -> None:
    expected = []
    for frame in played.crafted:
        if scapy.TCP not in frame or frame[scapy.TCP].sport != PORT:
            continue
        tcp = frame[scapy.TCP]
        end = frame[scapy.IP].len - 4 * frame[scapy.IP].ihl if scapy.IP in frame else len(bytes(tcp))
        expected.append((tcp.seq, end - 4 * tcp.dataofs, tcp.ack, int(tcp.flags) & 0xFF))
    found = [
        tuple(int(record["segment"][name]) for name in ("seq", "length", "ack", "tcp_flags"))
        for record in played.of_bulk(False)
        if not record["flags"] & SegmentFlag.BAD_CSUM
    ]
    assert len(found) > 15
    assert found == expected


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not here")
def test_what_is_recorded_is_what_tcpdump_reads(played: Played) -> None:
    argv = ["tcpdump", "-nnSr", str(played.file)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    told: Tally[tuple[int, int]] = Tally()
    for line in lines:
        match = re.search(rf"[. ]{PORT} > (?:\S+\.)?(?:5|40000): Flags \S+ seq (\d+)(?::\d+)?,.* length (\d+)", line)
        if match:
            told[int(match[1]), int(match[2])] += 1
    found = Tally((int(one["segment"]["seq"]), int(one["segment"]["length"])) for one in played.segments)
    assert told == found


def test_in_bulk_every_frame_is_recorded_once_and_counted(played: Played) -> None:
    bulk = played.of_bulk(True)["segment"]
    assert bulk["seq"].tolist() == [_BULK_SEQ + 10 * number for number in range(BULK)]
    assert set(bulk["length"]) == {10}
    assert played.segments["segment"]["frame"].tolist() == list(range(len(played.segments)))
    counts = played.counts
    spoiled = {kind: len(frames) for kind, frames in _spoiled().items()}
    assert counts[Counter.FRAMES_FRAGMENT] == spoiled["fragment"]
    assert counts[Counter.FRAMES_MALFORMED] == spoiled["malformed"]
    unwatched = sum(scapy.TCP not in frame or frame[scapy.TCP].sport != PORT for frame in played.crafted)
    assert counts[Counter.DPDK_OTHER] == spoiled["other"] + unwatched
    assert counts[Counter.DPDK_PUBLISHED] == len(played.segments)
    gone = counts[Counter.DPDK_OTHER] + counts[Counter.FRAMES_FRAGMENT] + counts[Counter.FRAMES_MALFORMED]
    assert counts[Counter.DPDK_RECEIVED] == counts[Counter.DPDK_PUBLISHED] + gone
    assert counts[Counter.FRAMES] == counts[Counter.DPDK_RECEIVED] - counts[Counter.DPDK_OTHER]
    assert counts[Counter.DPDK_POLLS] > counts[Counter.DPDK_POLLS_IDLE] > 0
    assert counts[Counter.DPDK_BUSY_NS] > 0
    assert f"received={counts[Counter.DPDK_RECEIVED]} missed=0" in played.said


def test_a_wrong_checksum_is_told(played: Played) -> None:
    (wrong,) = played.segments[(played.segments["flags"] & SegmentFlag.BAD_CSUM) != 0]
    good = played.crafted[1][scapy.TCP]
    assert (wrong["segment"]["seq"], wrong["segment"]["length"]) == (good.seq, 300)


def test_a_file_s_stamps_are_its_microseconds_of_realtime(played: Played) -> None:
    segments = played.segments
    assert set(segments["clock"]) == {Clock.REALTIME}
    assert set(segments["source"]) == {Source.SW}
    assert set(segments["segment"]["bound_ns"]) == {1000}
    first = _FIRST_US + len(played.crafted) + sum(map(len, _spoiled().values())) + 1
    assert (played.of_bulk(True)["time_ns"] == 1000 * (first + np.arange(BULK))).all()


def test_each_connection_has_its_row(played: Played) -> None:
    ends = {(bytes(row["remote"]), int(row["remote_port"])) for row in played.rows.values() if row["remote_port"]}
    mapped = b"\0" * 10 + b"\xff\xff"
    assert {(mapped + bytes([192, 0, 2, 1]), PORT), (mapped + bytes([203, 0, 113, 1]), PORT)} <= ends
    assert (bytes.fromhex("20010db8000000000000000000000001"), PORT) in ends


def test_holes_in_a_stream_are_counted(played: Played) -> None:
    """The crafted frames leave bytes out: before the options, and before the padding."""
    assert played.counts[Counter.DPDK_HOLES] == 2
