# SPDX-License-Identifier: Apache-2.0
"""Sessions that tcpdump recorded off a bad wire, played to the capture: each record against scapy and tcpdump."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk, pcap_file, wait_until
from netns import Namespace, Shuttle
from tickpath.event import Clock, Counter, Kind, SegmentFlag, Source
from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.generator import Generator

scapy = pytest.importorskip("scapy.all")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and TAPs are made: needs root"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump, which records and is an oracle, is not here"),
    needs_dpdk,
]

PORT = 443
_MESSAGES = 600  # of each version
_LEAST_BYTES = 150  # of a frame with data
_SHORT_BYTES = 70  # of a snapshot that holds the headers alone
_DATA = Path(__file__).parents[3] / "shared" / "data" / "binance-coinm-20210722.ws.txt"
_LAST = b"the end of the recording"
_BITS = dict(zip("FSRP.UEW", (1 << bit for bit in range(8)), strict=True))
_SERVER, _CLIENT = ("10.79.0.1/24", "fd00:79::1/64"), ("10.79.0.2/24", "fd00:79::2/64")


@dataclass(frozen=True)
class Segment:
    """What a record and both oracles say of a frame from the feed; a sequence number of -1 is not told."""

    time_us: int
    remote: str
    local: str
    local_port: int
    seq: int
    ack: int
    flags: int
    length: int
    good: bool


def _messages() -> Iterator[bytes]:
    """As a venue sent them where the recordings are at hand, else generated."""
    if _DATA.is_file():
        for line in islice(_DATA.read_bytes().splitlines(), 1, None):
            yield line.partition(b": ")[2]
    else:
        yield from (message.body for message in Generator(Venue.COINM, 6))


class _BadWire:
    """Of the server's frames with data every ninth is lost, doubled, late by one frame, or spoiled, in turn."""

    def __init__(self) -> None:
        self._count = 0
        self._late: list[bytes] = []

    def __call__(self, side: int, frame: bytes) -> list[bytes]:
        if side != 0:
            return [frame]
        first, self._late = self._late, []
        self._count += len(frame) > _LEAST_BYTES
        turn, rest = divmod(self._count, 9)
        if rest or len(frame) <= _LEAST_BYTES:
            return [frame, *first]
        match turn % 4:
            case 0:
                return first
            case 1:
                return [frame, frame, *first]
            case 2:
                self._late = [frame]
                return first
            case _:
                return [*first, frame[:-1] + bytes([frame[-1] ^ 1])]


def _session(server: Namespace, client: Namespace, family: socket.AddressFamily, address: str) -> None:
    """Messages one by one, each pushed; all of them arrive."""
    with server.entered():
        listening = socket.create_server((address, PORT), family=family)
    with client.entered():
        ours = socket.socket(family, socket.SOCK_STREAM)
    with listening, ours:
        ours.settimeout(60)
        ours.connect((address, PORT))
        theirs, _ = listening.accept()
        sent = list(islice(_messages(), _MESSAGES))

        def send() -> None:
            with theirs:
                theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for message in sent:
                    theirs.sendall(message)

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        got = bytearray()
        while more := ours.recv(1 << 16):
            got += more
        sending.join()
        assert bytes(got) == b"".join(sent)


def _record(folder: Path) -> Path:
    """A file in nanoseconds of both sessions, as they came in and went out."""
    file, said = folder / "recorded.pcap", folder / "tcpdump.log"
    with Namespace() as server, Namespace() as client:
        taps = [server.tap("tap0"), client.tap("tap0")]
        server.address("tap0", *_SERVER)
        client.address("tap0", *_CLIENT)
        shuttle = Shuttle(*taps, _BadWire())
        # No frame waits for others in the kernel, and there is room for all.
        argv = ["tcpdump", "-i", "tap0", "--nano", "--immediate-mode", "-s", "2000", "-B", "16384"]
        argv += ["-U", "-Z", "root", "-w", str(file)]
        with said.open("w") as log:
            recording = client.popen(argv, stderr=log)
        try:
            wait_until(lambda: "listening" in said.read_text(), "tcpdump")
            _session(server, client, socket.AF_INET, _SERVER[0].partition("/")[0])
            routes = Path("/proc/thread-self/net/ipv6_route")
            for namespace, (_, ours) in ((server, _SERVER), (client, _CLIENT)):
                local = IPv6Address(ours.partition("/")[0]).packed.hex()
                with namespace.entered():
                    wait_until(lambda local=local: f"{local} 80" in routes.read_text(), "the IPv6 address in force")
            _session(server, client, socket.AF_INET6, _SERVER[1].partition("/")[0])
            with server.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(_LAST, (_CLIENT[0].partition("/")[0], 9))
            # What it has not taken out of the kernel when it is ended is lost, and not counted.
            wait_until(lambda: _LAST in file.read_bytes(), "the last frame recorded")
        finally:
            recording.send_signal(signal.SIGINT)
            recording.wait(30)
            shuttle.close()
            for tap in taps:
                os.close(tap)
    assert "\n0 packets dropped by kernel" in said.read_text()
    return file


@dataclass
class Played:
    file: Path
    frames: list[bytes]
    segments: np.ndarray
    found: list[Segment]
    counts: dict[Counter, int]


def _frames(file: Path) -> list[tuple[int, bytes]]:
    """Nanoseconds since 1970, and bytes."""
    with scapy.RawPcapReader(str(file)) as reader:
        return [(meta.sec * 1_000_000_000 + meta.usec, data) for data, meta in reader]


def _played(
    folder: Path, file: Path, frames: int, *flags: str
) -> tuple[np.ndarray, dict[int, np.void], dict[Counter, int]]:
    with DpdkCapture(folder / "rings", f"net_pcap0,rx_pcap={file}", "--port", str(PORT), *flags) as capture:
        capture.ready()
        capture.wait_for(Counter.DPDK_RECEIVED, frames)
        segments, rows = capture.records(Kind.SEGMENT), capture.readers[0].rows()
        capture.stop()
        return segments, rows, capture.readers[0].counters()


def _text(address: np.void) -> str:
    ip = IPv6Address(bytes(address))
    return str(ip.ipv4_mapped or ip)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("recorded")
    file = _record(folder)
    frames = [data for _, data in _frames(file)]
    segments, rows, counts = _played(folder, file, len(frames))
    found = [
        Segment(
            int(one["time_ns"]) // 1000,
            _text(rows[int(one["row"])]["remote"]),
            _text(rows[int(one["row"])]["local"]),
            int(rows[int(one["row"])]["local_port"]),
            int(one["segment"]["seq"]),
            int(one["segment"]["ack"]),
            int(one["segment"]["tcp_flags"]),
            int(one["segment"]["length"]),
            not one["flags"] & SegmentFlag.BAD_CSUM,
        )
        for one in segments
    ]
    return Played(file, frames, segments, found, counts)


def _of_feed(file: Path) -> Iterator[tuple[int, bytes]]:
    for time_ns, data in _frames(file):
        frame = scapy.Ether(data)
        if scapy.TCP in frame and frame[scapy.TCP].sport == PORT:
            yield time_ns, data


def _by_scapy(file: Path) -> Iterator[Segment]:
    for time_ns, data in _of_feed(file):
        frame = scapy.Ether(data)
        ip = frame[scapy.IP] if scapy.IP in frame else frame[scapy.IPv6]
        tcp = frame[scapy.TCP]
        bytes_of = ip.len - 4 * ip.ihl if scapy.IP in frame else ip.plen
        whole = scapy.raw(tcp)
        good = scapy.in4_chksum(6, ip, whole) == 0 if scapy.IP in frame else scapy.in6_chksum(6, ip, whole) == 0
        length = bytes_of - 4 * tcp.dataofs
        yield Segment(time_ns // 1000, ip.src, ip.dst, tcp.dport, tcp.seq, tcp.ack, int(tcp.flags) & 0xFF, length, good)


_ENDS = re.compile(r"(\S+)\.(\d+) > (\S+)\.(\d+): Flags \[(\S+)\], cksum 0x\w+ \((correct|incorrect)[^)]*\), (.*)")


def _by_tcpdump(file: Path) -> Iterator[Segment]:
    argv = ["tcpdump", "-nnSttvr", str(file), "src", "port", str(PORT)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for line in said.replace("\n    ", " ").splitlines():
        match = _ENDS.search(line)
        assert match, line
        remote, _, local, port, flags, verdict, rest = match.groups()
        seq, ack = re.search(r"seq (\d+)", rest), re.search(r"ack (\d+)", rest)
        length = re.search(r"length (\d+)$", rest)
        assert length, line
        yield Segment(
            int(line.split()[0].replace(".", "")),
            str(ip_address(remote)),
            str(ip_address(local)),
            int(port),
            int(seq[1]) if seq else -1,
            int(ack[1]) if ack else 0,
            sum(_BITS[flag] for flag in flags),
            int(length[1]),
            verdict == "correct",
        )


def _holes(segments: list[Segment]) -> int:
    """Frames with data that TCP may take and that begin beyond all before them."""
    reached: dict[str, int] = {}
    holes = 0
    for one in segments:
        if one.flags & _BITS["S"]:
            reached[one.remote] = one.seq + 1
        elif one.good and one.length:
            begins = (one.seq - reached[one.remote] + (1 << 31)) % (1 << 32) - (1 << 31)
            holes += begins > 0
            reached[one.remote] += max(0, begins + one.length)
    return holes


def test_each_field_of_a_recorded_frame_is_what_scapy_reads(played: Played) -> None:
    assert played.found == list(_by_scapy(played.file))


def test_each_field_of_a_recorded_frame_is_what_tcpdump_reads(played: Played) -> None:
    told = list(_by_tcpdump(played.file))
    # Of a segment that takes no place in the stream tcpdump does not say where.
    takes_place = _BITS["S"] | _BITS["F"] | _BITS["R"]
    found = [one if one.length or one.flags & takes_place else replace(one, seq=-1) for one in played.found]
    assert found == told


def test_the_wire_was_as_bad_as_it_was_meant_to_be(played: Played) -> None:
    """Else the others would be about less than they say."""
    data = [one for one in played.found if one.length]
    assert {one.remote for one in data} == {end.partition("/")[0] for end in _SERVER}
    assert any(not one.good for one in data)
    assert len({(one.remote, one.seq) for one in data}) < len(data)
    assert _holes(played.found) > 0


def test_a_frame_that_begins_behind_bytes_that_nobody_saw_is_a_hole(played: Played) -> None:
    assert played.counts[Counter.DPDK_HOLES] == _holes(played.found)


def test_every_recorded_frame_is_published_or_counted_by_its_cause(played: Played) -> None:
    counts = played.counts
    assert counts[Counter.DPDK_RECEIVED] == len(played.frames)
    assert counts[Counter.DPDK_PUBLISHED] == len(played.found)
    assert counts[Counter.DPDK_OTHER] == len(played.frames) - len(played.found)
    assert counts[Counter.FRAMES_MALFORMED] == counts[Counter.FRAMES_FRAGMENT] == counts[Counter.DPDK_UNSTAMPED] == 0


def test_a_stamp_in_nanoseconds_is_cut_to_its_microsecond_and_the_bound_says_so(played: Played) -> None:
    true_ns = np.array([time_ns for time_ns, _ in _of_feed(played.file)])
    stamped_ns = played.segments["time_ns"]
    assert (true_ns % 1000 != 0).any()
    assert ((true_ns - stamped_ns >= 0) & (true_ns - stamped_ns < played.segments["segment"]["bound_ns"])).all()


def test_a_file_s_stamps_are_left_when_the_poll_s_are_asked_for(played: Played, tmp_path: Path) -> None:
    segments, _, _ = _played(tmp_path, played.file, len(played.frames), "--stamps", "poll")
    assert len(segments) == len(played.found)
    assert set(segments["clock"]) == {Clock.TSC}
    assert set(segments["source"]) == {Source.POLL}


def test_a_frame_of_which_the_recording_holds_less_than_it_says_is_malformed_and_never_guessed(
    played: Played, tmp_path: Path
) -> None:
    """net_pcap says nothing of the bytes that a short snapshot left out: the frame contradicts itself."""
    short = [data[:_SHORT_BYTES] for data in played.frames]
    file = pcap_file(tmp_path / "short.pcap", enumerate(short))
    segments, _, counts = _played(tmp_path, file, len(short))
    feed = [data for _, data in _of_feed(played.file)]
    whole = [one for one, data in zip(played.found, feed, strict=True) if len(data) <= _SHORT_BYTES]
    assert [(one["seq"], one["length"]) for one in segments["segment"]] == [(one.seq, one.length) for one in whole]
    assert counts[Counter.FRAMES_MALFORMED] == sum(len(data) > _SHORT_BYTES for data in played.frames)  # all are of IP
    assert len(whole) < len(feed) // 2
    causes = (Counter.DPDK_PUBLISHED, Counter.DPDK_OTHER, Counter.FRAMES_MALFORMED, Counter.FRAMES_FRAGMENT)
    assert counts[Counter.DPDK_RECEIVED] == sum(counts[cause] for cause in causes) == len(short)
