# SPDX-License-Identifier: Apache-2.0
"""What frames become: records, rows and counts, for frames that scapy made and a TAP delivered."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, IPOption, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from netns import Namespace
from tickpath.event import ROW_NONE, Clock, Counter, Kind, RowFlag, RowState, SegmentFlag, Source
from tickpath.selector import Selector, packed
from wire.capturing import Capturing, realtime_offset_ns, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and captures frames: root only"),
]

PEER, HOST = "10.0.0.1", "10.0.0.2"
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def tcp(flags: str = "PA", seq: int = 1000, payload: bytes = b"", port: int = 443, local: int = 40000) -> Packet:
    return TCP(sport=port, dport=local, flags=flags, seq=seq, ack=77) / payload


def ipv4(segment: Packet, source: str = PEER) -> Packet:
    return LINK / IP(src=source, dst=HOST) / segment


class Tap:
    """A TAP that frames are put into, captured."""

    def __init__(self, namespace: Namespace, fd: int, make: Callable[..., Capturing]) -> None:
        self.namespace, self.fd, self.capture = namespace, fd, make

    def deliver(self, *frames: Packet | bytes) -> None:
        for frame in frames:
            os.write(self.fd, bytes(frame))


@pytest.fixture(params=[False])
def tap(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tap]:
    with Namespace() as namespace:
        namespace.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        fd = namespace.tap("tap0", tun=request.param)
        namespace.ip("link", "set", "tap0", "up")

        def make(*selectors: Selector, **options: int) -> Capturing:
            return Capturing(tmp_path, "tap0", selectors or [Selector(443)], namespace, **options)

        try:
            yield Tap(namespace, fd, make)
        finally:
            os.close(fd)


def test_a_segment_is_what_the_frame_says(tap: Tap) -> None:
    with tap.capture().start() as capture:
        before_ns = time.time_ns()
        tap.deliver(ipv4(tcp("S", 999)), ipv4(tcp("PA", 1000, b"x" * 300)))
        segments = capture.reader.wait(Kind.SEGMENT, 2)
        after_ns = time.time_ns()
    first, second = segments
    assert (first["source"], first["clock"]) == (Source.SW, Clock.REALTIME)
    assert before_ns <= first["time_ns"] <= second["time_ns"] <= after_ns
    assert first["segment"]["seq"] == 999
    body = second["segment"]
    assert (body["frame"], body["seq"], body["ack"], body["length"], body["segments"]) == (1, 1000, 77, 300, 1)
    assert body["tcp_flags"] == 0x18
    assert body["ifindex"] == int(tap.namespace.ip("-o", "link", "show", "tap0").split(":")[0])
    offset_ns = realtime_offset_ns()
    assert second["time_ns"] - offset_ns < body["seen_ns"] + 1_000_000


def test_the_syn_ack_opens_a_row_with_the_irs(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("SA", 0xFFFFFFF0)), ipv4(tcp("PA", 0xFFFFFFF1, b"x" * 100)))
        segments = capture.reader.wait(Kind.SEGMENT, 2)
        (opened,) = capture.reader.of(Kind.OPENED)
        row = capture.reader.ring.row(int(opened["row"]))
        assert row is not None
        assert row["irs"] == 0xFFFFFFF0
        assert row["flags"] & RowFlag.HAS_IRS
        assert (row["remote_port"], row["local_port"]) == (443, 40000)
        assert (row["remote"].tobytes(), row["local"].tobytes()) == (packed(PEER), packed(HOST))
        assert row["netns"] == tap.namespace.inode
        assert row["opened_ns"] == opened["time_ns"]
        assert set(segments["row"]) == {opened["row"]}


def test_a_connection_joined_midway_has_no_irs(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("PA", 5000, b"x")))
        (segment,) = capture.reader.wait(Kind.SEGMENT, 1)
        row = capture.reader.ring.row(int(segment["row"]))
        assert row is not None
        assert not row["flags"] & RowFlag.HAS_IRS


def test_the_same_tuple_connecting_again_is_another_connection(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("SA", 100)), ipv4(tcp("PA", 101, b"x" * 40)))
        tap.deliver(ipv4(tcp("SA", 100)))  # sent again: the same connection
        tap.deliver(ipv4(tcp("SA", 9000)), ipv4(tcp("PA", 9001, b"y")))
        segments = capture.reader.wait(Kind.SEGMENT, 5)
        first, second = capture.reader.of(Kind.OPENED)["row"]
        assert list(segments["row"]) == [first] * 3 + [second] * 2
        assert first != second
        (closed,) = capture.reader.of(Kind.CLOSED)
        assert (closed["row"], closed["connection"]["bytes"]) == (first, 40)
        states = {handle: (row["state"], row["irs"]) for handle, row in capture.reader.ring.rows().items()}
        assert states[first] == (RowState.CLOSED, 100)
        assert states[second] == (RowState.OPEN, 9000)


def test_fin_closes_the_row_after_what_is_sent_again(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("SA", 0)), ipv4(tcp("FPA", 1, b"last")), ipv4(tcp("FPA", 1, b"last")))
        segments = capture.reader.wait(Kind.SEGMENT, 3)
        assert len(set(segments["row"])) == 1
        (closed,) = capture.reader.wait(Kind.CLOSED, 1)
        row = capture.reader.ring.rows()[int(closed["row"])]
        assert row["state"] == RowState.CLOSED
        assert row["closed_ns"] == closed["time_ns"] >= row["opened_ns"]
        assert closed["connection"]["bytes"] == 4


def test_a_forged_reset_does_not_end_a_connection_that_goes_on(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("SA", 0)), ipv4(tcp("PA", 1, b"x")), ipv4(tcp("RA", 77)), ipv4(tcp("PA", 2, b"y")))
        tap.deliver(ipv4(tcp("SA", 0, local=2)), ipv4(tcp("RA", 1, local=2)))
        capture.reader.wait(Kind.CLOSED, 1)  # the other one's: by then the first would have been closed too
        tap.deliver(ipv4(tcp("PA", 3, b"z")))
        segments = capture.reader.wait(Kind.SEGMENT, 7)
        assert len(capture.reader.of(Kind.CLOSED)) == 1
        assert segments["row"][-1] == segments["row"][0]


def test_what_opens_no_connection_is_recorded_without_a_row(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("RA", 0)), ipv4(tcp("A", 5)))
        segments = capture.reader.wait(Kind.SEGMENT, 2)
        assert list(segments["row"]) == [ROW_NONE, ROW_NONE]
        assert len(capture.reader.of(Kind.OPENED)) == 0


def test_connections_beyond_the_rows_are_counted_and_taken_when_one_comes_free(tap: Tap) -> None:
    with tap.capture(rows=1).start() as capture:
        tap.deliver(ipv4(tcp("SA", 1, local=1)), ipv4(tcp("SA", 1, local=2)), ipv4(tcp("PA", 2, b"x", local=2)))
        segments = capture.reader.wait(Kind.SEGMENT, 3)
        assert list(segments["row"] == ROW_NONE) == [False, True, True]
        assert capture.reader.count(Counter.ROWS_EXHAUSTED) == 1
        tap.deliver(ipv4(tcp("RA", 2, local=1)))
        capture.reader.wait(Kind.CLOSED, 1)
        tap.deliver(ipv4(tcp("PA", 3, b"x", local=2)))
        last = capture.reader.wait(Kind.SEGMENT, 5)[-1]
        row = capture.reader.ring.row(int(last["row"]))
        assert row is not None
        assert (row["local_port"], row["irs"]) == (2, 1)


def test_connections_keep_their_rows_while_others_close(tap: Tap) -> None:
    # As many as a small table takes, so that most share a chain of slots with others that go.
    chance = random.Random(1)
    ports = list(range(1, 33))
    with tap.capture(rows=32).start() as capture:
        for port in ports:
            tap.deliver(ipv4(tcp("SA", port, local=port)))
        opened = dict(zip(ports, capture.reader.wait(Kind.SEGMENT, 32)["row"], strict=True))
        gone = set(chance.sample(ports, 20))
        for port in gone:
            tap.deliver(ipv4(tcp("RA", port + 1, local=port)))
        closed = capture.reader.wait(Kind.CLOSED, 20)
        assert set(closed["row"]) == {opened[port] for port in gone}
        left = [port for port in ports if port not in gone]
        for port in left:
            tap.deliver(ipv4(tcp("PA", port + 1, b"x", local=port)))
        assert list(capture.reader.wait(Kind.SEGMENT, 52 + len(left))["row"][52:]) == [opened[port] for port in left]


def test_vlan_tags_options_and_extension_headers_change_nothing(tap: Tap) -> None:
    segment = tcp("PA", 1000, b"x" * 300)
    plain = IP(src=PEER, dst=HOST, options=[IPOption(b"\x01")] * 8) / segment
    six = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrDestOpt() / segment
    other = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrDestOpt() / tcp(port=80, payload=b"x")
    with tap.capture().start() as capture:
        tap.deliver(LINK / plain, LINK / Dot1Q(vlan=5) / plain, LINK / Dot1AD(vlan=6) / Dot1Q(vlan=5) / plain)
        tap.deliver(LINK / other, LINK / six, LINK / Dot1Q(vlan=5) / six)
        segments = capture.reader.wait(Kind.SEGMENT, 5)
        assert set(segments["segment"]["length"]) == {300}
        assert list(segments["segment"]["frame"]) == [0, 1, 2, 3, 4]
        assert len(set(segments["row"])) == 2
        assert capture.reader.count(Counter.FRAMES) == 5


def test_only_the_selected_peers_are_recorded(tap: Tap) -> None:
    with tap.capture(Selector(443, packed(PEER)), Selector(9443)).start() as capture:
        for source in (PEER, "10.0.0.9"):
            for port in (443, 9443, 80):
                tap.deliver(ipv4(tcp(port=port, payload=b"x"), source))
        segments = capture.reader.wait(Kind.SEGMENT, 3)
        rows = [capture.reader.ring.row(int(handle)) for handle in segments["row"]]
        seen = [(row["remote"].tobytes(), row["remote_port"]) for row in rows if row is not None]
        assert seen == [(packed(PEER), 443), (packed(PEER), 9443), (packed("10.0.0.9"), 9443)]


def test_fragments_and_broken_frames_are_counted(tap: Tap) -> None:
    pieces = fragment(IP(src=PEER, dst=HOST) / tcp(payload=b"x" * 3000), 1000)
    short = bytearray(bytes(ipv4(tcp(payload=b"x"))))
    short[14 + 20 + 12] = 0x10  # a TCP header of 4 bytes
    with tap.capture().start() as capture:
        tap.deliver(*(LINK / piece for piece in pieces), bytes(short), ipv4(tcp(payload=b"good")))
        (segment,) = capture.reader.wait(Kind.SEGMENT, 1)
        assert len(pieces) > 2
        assert capture.reader.count(Counter.FRAMES_FRAGMENT) == len(pieces)
        assert capture.reader.count(Counter.FRAMES_MALFORMED) == 1
        assert segment["segment"]["frame"] == len(pieces) + 1
        wait_until(lambda: capture.reader.count(Counter.FRAMES) == len(pieces) + 2)


@pytest.mark.parametrize("payload_bytes", [0, 1400])
def test_a_wrong_checksum_is_flagged_and_moves_no_connection(tap: Tap, payload_bytes: int) -> None:
    bad = TCP(sport=443, dport=40000, flags="SA", seq=9, chksum=0x1234) / bytes(payload_bytes)
    with tap.capture().start() as capture:
        tap.deliver(ipv4(tcp("SA", 1)), ipv4(bad), ipv4(tcp("PA", 2, b"x")))
        segments = capture.reader.wait(Kind.SEGMENT, 3)
        assert [bool(flags & SegmentFlag.BAD_CSUM) for flags in segments["flags"]] == [False, True, False]
        assert len(set(segments["row"])) == 1
        assert len(capture.reader.of(Kind.OPENED)) == 1


@pytest.mark.parametrize("tap", [True], indirect=True)
def test_an_interface_without_ethernet_headers_serves_too(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(IP(src=PEER, dst=HOST) / tcp(payload=b"x" * 10))
        tap.deliver(IPv6(src="2001:db8::1", dst="2001:db8::2") / tcp(payload=b"x" * 10))
        segments = capture.reader.wait(Kind.SEGMENT, 2)
        assert list(segments["segment"]["length"]) == [10, 10]


def test_drops_are_counted_when_nobody_empties_the_ring(tap: Tap) -> None:
    sent = 500
    page = os.sysconf("SC_PAGESIZE")
    with tap.capture(buffer_bytes=2 * page, block_bytes=page) as capture:
        for number in range(sent):
            tap.deliver(ipv4(tcp(seq=number, payload=b"x")))
        capture.start()
        wait_until(
            lambda: capture.reader.count(Counter.FRAMES) + capture.reader.count(Counter.FRAMES_DROPPED) == sent,
            what="an account of every frame",
        )
        assert capture.reader.count(Counter.FRAMES_DROPPED) > sent // 2
        frames = capture.reader.of(Kind.SEGMENT)["segment"]["frame"]
        assert list(frames) == list(range(len(frames)))


def test_clocks_are_read_for_the_stamps(tap: Tap) -> None:
    with tap.capture().start() as capture:
        readings = capture.reader.wait(Kind.CLOCK, 4)
        real = readings[readings["clock"] == Clock.REALTIME]
        offset_ns = realtime_offset_ns()
        for reading in real:
            body = reading["reading"]
            assert body["before_ns"] <= body["after_ns"]
            assert abs(reading["time_ns"] - offset_ns - body["before_ns"]) < 1_000_000_000


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is the oracle")
def test_stamps_are_those_of_tcpdump_to_the_nanosecond(tap: Tap, tmp_path: Path) -> None:
    argv = ["tcpdump", "-i", "tap0", "-nn", "-tt", "--nano", "-U", "-l", "-Q", "in", "tcp"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        oracle = tap.namespace.popen(argv, stdout=out, stderr=err)
    try:
        wait_until(lambda: "listening" in (tmp_path / "err").read_text(), what="tcpdump")
        with tap.capture().start() as capture:
            # Stamping is switched on by a work item: until it ran, each socket reads a clock of its own.
            def stamped() -> bool:
                before = capture.reader.count(Counter.FRAMES), capture.reader.count(Counter.FRAMES_UNSTAMPED)
                tap.deliver(ipv4(tcp(payload=b"warm")))
                wait_until(lambda: capture.reader.count(Counter.FRAMES) > before[0])
                return capture.reader.count(Counter.FRAMES_UNSTAMPED) == before[1]

            wait_until(stamped)
            warm = len(capture.reader.of(Kind.SEGMENT))
            for number in range(50):
                tap.deliver(ipv4(tcp(seq=number, payload=b"x" * (number + 1))))
            segments = capture.reader.wait(Kind.SEGMENT, warm + 50)[warm:]
            wait_until(lambda: "length 50" in (tmp_path / "out").read_text(), what="tcpdump's last line")
    finally:
        oracle.terminate()
        oracle.wait()
    lines = [line for line in (tmp_path / "out").read_text().splitlines() if "length" in line][-50:]
    told = [int(line.split()[0].replace(".", "")) for line in lines]
    assert list(segments["time_ns"]) == told


def test_the_capture_stops_with_what_the_kernel_still_held(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.deliver(*(ipv4(tcp(seq=number, payload=b"x")) for number in range(100)))
        capture.stop()
        assert capture.ended == 0
        assert len(capture.reader.of(Kind.SEGMENT)) == 100


def test_an_interface_that_goes_ends_the_capture_with_its_reason(tap: Tap) -> None:
    with tap.capture().start() as capture:
        tap.namespace.ip("link", "set", "tap0", "down")
        wait_until(lambda: capture.ended is not None)
        assert capture.ended == errno.ENETDOWN
