# SPDX-License-Identifier: Apache-2.0
"""What the port receives the kernel is given, bit for bit and in order, and so the other way; what not is counted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from dpdk.capturing import needs_dpdk, pcap_file, preloadable, preloaded
from dpdk.inlining import TAP, Life, tickpath
from netns import Namespace
from tickpath.event import Counter

scapy = pytest.importorskip("scapy.all")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="a namespace and a TAP are made: needs root"),
    needs_dpdk,
]

PORT = 443
_COUNT = 3000
_BURST = 32  # the capture's own, unless told otherwise
_MTU_BYTES = 1500
_ETHERNET_BYTES, _TAG_BYTES = 14, 4
_TAGS = (0x8100, 0x88A8)
_ETH_P_ALL, _SO_RCVBUFFORCE = 3, 33
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23
_VLAN_VALID, _TPID_VALID = 0x10, 0x40
_RESULT_BYTES = 1 << 16


def _whole() -> list[bytes]:
    """Good frames of every kind, ARP and neighbour discovery among them."""
    s = scapy
    ether = s.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    all_of = s.Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
    v4, v6 = s.IP(src="192.0.2.1", dst="192.0.2.2"), s.IPv6(src="2001:db8::1", dst="2001:db8::2")
    tcp = s.TCP(sport=PORT, dport=40000, seq=7, ack=9, flags="PA") / (b"t" * 700)
    frames = [
        all_of / s.ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1", pdst="192.0.2.2"),
        ether / s.ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1", hwdst="02:00:00:00:00:02", pdst="192.0.2.2"),
        ether / v6 / s.ICMPv6ND_NS(tgt="2001:db8::2") / s.ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
        ether / v6 / s.ICMPv6ND_NA(tgt="2001:db8::1") / s.ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:01"),
        *(ether / ip / tcp for ip in (v4, v6)),
        *(ether / ip / s.UDP(sport=1, dport=2) / (b"u" * 900) for ip in (v4, v6)),
        ether / s.Dot1Q(vlan=5, prio=3) / v4 / tcp,
        ether / s.Dot1AD(vlan=6) / s.Dot1Q(vlan=5) / v6 / tcp,
        ether / s.IP(src="192.0.2.1", dst="192.0.2.2", options=[s.IPOption_NOP()] * 4) / tcp,
        ether / v6 / s.IPv6ExtHdrHopByHop() / s.IPv6ExtHdrDestOpt() / tcp,
        ether / s.IP(src="192.0.2.1", dst="192.0.2.2", flags="MF", proto=6) / (b"f" * 64),
        s.Ether(src="02:00:00:00:00:01", dst="01:80:c2:00:00:00", type=0x0027) / (b"B" * 39),  # a length, not a type
    ]
    return [bytes(frame) for frame in frames]


def _broken(draw: random.Random, whole: bytes) -> bytes:
    """A good frame, harmed in one of the ways that wires and senders have."""
    frame = bytearray(whole)
    match draw.randrange(7):
        case 0:  # cut anywhere: of some not even the Ethernet header is left
            return whole[: draw.randrange(1, min(len(whole), draw.choice((20, 60, 1500))))]
        case 1:  # longer than the MTU, up to a jumbo frame
            return whole + draw.randbytes(draw.choice((1501, 2049, 4000, 9000)) - len(whole) % 1500)
        case 2:  # a length of IP, a version or length of its header, or anything else there, that is not true
            at = draw.randrange(_ETHERNET_BYTES, _ETHERNET_BYTES + 20)
            frame[at] ^= 1 << draw.randrange(8)
        case 3:  # a checksum, or what it is of
            frame[draw.randrange(_ETHERNET_BYTES + 20, len(frame))] ^= 1 << draw.randrange(8)
        case 4:  # another type
            frame[12:14] = draw.choice((0x0800, 0x86DD, 0x0806, 0x8847, 0x88CC, 0x88B5, 0x05DC)).to_bytes(2)
        case 5:
            return bytes(frame[:14]) + draw.randbytes(draw.randrange(1487))
        case _:  # padded
            return whole + bytes(draw.randrange(1, 60))
    return bytes(frame)


def _frames(seed: int) -> list[bytes]:
    draw, whole = random.Random(seed), _whole()
    return [*whole, *(_broken(draw, draw.choice(whole)) for _ in range(_COUNT))]


class _Host:
    """A namespace with the TAP, in which nobody says anything of his own, and a packet socket on it."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        ip = self.namespace.ip
        ip("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr")
        ip("link", "set", TAP, "addrgenmode", "none", "arp", "off", "mtu", str(_MTU_BYTES), "up")
        ip("link", "set", TAP, "txqueuelen", str(2 * _COUNT))
        with self.namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 28)
            self.socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self.socket.bind((TAP, _ETH_P_ALL))
        self.socket.setblocking(False)

    def received(self) -> list[bytes]:
        """Every frame that the kernel took from the TAP: the tag that it keeps beside a frame is put back."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, _ = self.socket.recvmsg(_RESULT_BYTES, 256)
                (data,) = (data for level, kind, data in ancillary if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA))
                status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", data)
                if status & _VLAN_VALID:
                    outer = protocol if status & _TPID_VALID else _TAGS[0]
                    frame = frame[:12] + struct.pack("!HH", outer, tag) + frame[12:]
                frames.append(frame)
        return frames

    def send(self, frames: list[bytes]) -> None:
        """As the kernel's own, through the TAP."""
        self.socket.setblocking(True)
        for frame in frames:
            self.socket.send(frame)

    def dropped(self) -> int:
        """Frames that found the TAP's queue full."""
        lines = self.namespace.run("cat", "/proc/net/dev").splitlines()
        (counters,) = (line.split()[1:] for line in lines if line.split()[0] == f"{TAP}:")
        return int(counters[11])

    def close(self) -> None:
        self.socket.close()
        self.namespace.close()


class _Inline(Life):
    """Of a port that receives a file's frames and writes what it sends into another."""

    def __init__(
        self, host: _Host, folder: Path, frames: list[bytes], *, endless: bool = False, **environment: str
    ) -> None:
        self._frames = frames
        self.log = folder / "capture.log"
        self._sent = folder / "sent.pcap"
        received = pcap_file(folder / "received.pcap", enumerate(frames))
        device = f"net_pcap0,rx_pcap={received},tx_pcap={self._sent},infinite_rx={int(endless)}"
        argv = tickpath("capture", "dpdk", "--mode", "inline", "--device", device, "--memory", "none")
        argv += ["--port", str(PORT), "--directory", str(folder / "rings"), "--idle-sleep-us", "100"]
        with self.log.open("wb") as log:
            self.process = host.namespace.popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stderr=log,
                env={**os.environ, "TICKPATH_LOG_FORMAT": "logfmt", **environment},
            )
        self.ring = folder / "rings" / "dpdk-net_pcap0-0.ring"

    def ready(self) -> Self:
        super().ready()
        self.counted(Counter.DPDK_RECEIVED, len(self._frames))
        return self

    def sent(self) -> list[bytes]:
        """What the port was given, once it is stopped."""
        with scapy.RawPcapReader(str(self._sent)) as reader:
            return [data for data, _ in reader]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.said


@pytest.fixture
def host() -> Iterator[_Host]:
    made = _Host()
    yield made
    made.close()


def _shown(frame: bytes) -> bool:
    """Whether the kernel shows it to packet sockets: not where a tag, or what follows it, is cut off."""
    tagged = int.from_bytes(frame[12:14]) in _TAGS
    return not tagged or len(frame) >= _ETHERNET_BYTES + _TAG_BYTES + 2


@pytest.mark.parametrize("seed", [1, 2])
def test_broken_frames_reach_the_kernel_as_they_came_or_are_counted(host: _Host, tmp_path: Path, seed: int) -> None:
    frames = _frames(seed)
    beyond = bytes(60_000)  # of more buffers than are handed on in one piece
    capture = _Inline(host, tmp_path, [*frames, beyond]).ready()
    try:
        taken = [frame for frame in frames if len(frame) >= _ETHERNET_BYTES]
        assert host.received() == [frame for frame in taken if _shown(frame)]
        counts = capture.counters()
        assert counts[Counter.DPDK_RECEIVED] == len(frames) + 1
        assert counts[Counter.DPDK_TO_KERNEL] == len(taken)
        assert counts[Counter.DPDK_TO_KERNEL_DROPPED] == len(frames) + 1 - len(taken) > 20
        causes = (Counter.DPDK_PUBLISHED, Counter.DPDK_OTHER, Counter.FRAMES_MALFORMED, Counter.FRAMES_FRAGMENT)
        assert all(counts[cause] for cause in causes)
        assert sum(counts[cause] for cause in causes) == counts[Counter.DPDK_RECEIVED]
    finally:
        capture.stop()


def test_broken_frames_of_the_kernel_s_reach_the_port_as_they_are(host: _Host, tmp_path: Path) -> None:
    capture = _Inline(host, tmp_path, []).ready()
    # The kernel takes no longer ones off a packet socket: the MTU, and a tag where there is one.
    most = {True: _MTU_BYTES + _ETHERNET_BYTES + _TAG_BYTES, False: _MTU_BYTES + _ETHERNET_BYTES}
    frames = [frame for frame in _frames(3) if len(frame) >= _ETHERNET_BYTES]
    frames = [frame for frame in frames if len(frame) <= most[frame[12:14] == b"\x81\x00"]]
    try:
        host.send(frames)
        capture.counted(Counter.DPDK_FROM_KERNEL, len(frames))
        counts = capture.counters()
        assert counts[Counter.DPDK_FROM_KERNEL] == len(frames) > _COUNT // 2
        assert counts[Counter.DPDK_FROM_KERNEL_DROPPED] == counts[Counter.DPDK_RECEIVED] == 0
    finally:
        capture.stop()
    assert capture.sent() == frames


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes a port narrow."""
    return preloadable(tmp_path_factory.mktemp("narrow"), "fake_narrow")


def test_a_port_without_room_is_waited_for_then_the_tap_is_full_and_the_kernel_counts_what_it_drops(
    host: _Host, tmp_path: Path, narrow: Path
) -> None:
    full = tmp_path / "full"
    full.touch()
    frames = [bytes(12) + b"\x88\xb5" + number.to_bytes(4) for number in range(1000)]
    host.namespace.ip("link", "set", TAP, "txqueuelen", "100")
    capture = _Inline(host, tmp_path, [], FAKE_FULL_FILE=str(full), **preloaded(narrow)).ready()
    try:
        host.send(frames)
        capture.counted(Counter.DPDK_HELD, 1)
        dropped = host.dropped()
        assert len(frames) - 100 - _BURST <= dropped < len(frames)
        assert capture.counters()[Counter.DPDK_FROM_KERNEL] == 0
        full.unlink()
        kept = len(frames) - dropped
        capture.counted(Counter.DPDK_FROM_KERNEL, kept)
        counts = capture.counters()
        assert (counts[Counter.DPDK_FROM_KERNEL], counts[Counter.DPDK_FROM_KERNEL_DROPPED]) == (kept, 0)
        assert host.dropped() == dropped
    finally:
        capture.stop()
    sent = capture.sent()
    assert len(sent) == kept
    assert sent == sorted(set(sent) & set(frames))  # each as it was, once, in order


def test_a_tap_that_vanishes_from_under_traffic_ends_the_capture_in_one_line_and_every_frame_is_accounted(
    host: _Host, tmp_path: Path
) -> None:
    capture = _Inline(host, tmp_path, _whole(), endless=True).ready()
    capture.counted(Counter.DPDK_TO_KERNEL, 10_000)
    host.namespace.ip("link", "delete", TAP)
    assert capture.process.wait(30) == 1
    (line,) = [line for line in capture.said.splitlines() if "level=info" not in line]
    assert f"TAP {TAP} was removed under the capture" in line
    counts = capture.counters()
    assert counts[Counter.DPDK_TO_KERNEL_DROPPED] > 0
    assert counts[Counter.DPDK_TO_KERNEL] + counts[Counter.DPDK_TO_KERNEL_DROPPED] == counts[Counter.DPDK_RECEIVED]
