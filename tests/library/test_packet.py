# SPDX-License-Identifier: Apache-2.0
"""The frame parser agrees with scapy on whole frames, says what is wrong with others, and reads no byte too many."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tickpath.packet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Checksum, Packet, Reason, parse

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="192.0.2.1", dst="198.51.100.7")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")

ipv4_options = st.lists(st.sampled_from([IPOption_NOP(), IPOption_Router_Alert()]), max_size=4)
addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(str)
extensions = st.lists(
    st.sampled_from(
        [
            IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 10)]),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::9"]),
            IPv6ExtHdrFragment(offset=0, m=0, id=7),  # whole all the same (RFC 6946)
        ]
    ),
    max_size=4,
)
tcp_options = st.sampled_from(
    [[], [("Timestamp", (1, 2))], [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)], [("SAck", (1, 2, 3, 4))]]
)
segments = st.builds(
    lambda sport, dport, seq, ack, flags, window, options, payload: (
        TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, window=window, options=options) / Raw(payload)
    ),
    *[st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF)],
    *[st.integers(0, 0xFF), st.integers(0, 0xFFFF), tcp_options, st.binary(max_size=80)],
)


def _stack(*layers: ScapyPacket) -> ScapyPacket:
    frame = layers[0].copy()
    for layer in layers[1:]:
        frame = frame / layer.copy()
    return frame


frames4 = st.builds(
    lambda tags, src, dst, options, segment: _stack(ETHERNET, *tags, IP(src=src, dst=dst, options=options), segment),
    st.lists(st.builds(Dot1Q, vlan=st.integers(0, 4095), prio=st.integers(0, 7)), max_size=1),
    *[addresses4, addresses4, ipv4_options, segments],
)
frames6 = st.builds(
    lambda tags, src, dst, chain, segment: _stack(ETHERNET, *tags, IPv6(src=src, dst=dst), *chain, segment),
    st.sampled_from([[], [Dot1Q(vlan=5)], [Dot1AD(vlan=100), Dot1Q(vlan=4095)]]),
    *[addresses6, addresses6, extensions, segments],
)
frames = st.one_of(frames4, frames6).map(bytes)


def _packet(frame: bytes, **more: int) -> Packet:
    packet = parse(frame, **more)
    assert isinstance(packet, Packet), packet
    return packet


def _address(text: str) -> bytes:
    return IPv6Address(text if ":" in text else f"::ffff:{text}").packed


@given(frames, st.binary(max_size=46))
def test_a_whole_frame_is_read_as_scapy_reads_it(frame: bytes, padding: bytes) -> None:
    whole = Ether(frame)
    ip = whole[IP] if IP in whole else whole[IPv6]
    tcp = whole[TCP]
    payload = bytes(tcp.payload)
    packet = _packet(frame + padding)
    assert packet.source == _address(ip.src)
    assert packet.destination == _address(ip.dst)
    assert packet.version == ip.version
    assert (packet.source_port, packet.destination_port) == (tcp.sport, tcp.dport)
    assert (packet.seq, packet.ack, packet.window) == (tcp.seq, tcp.ack, tcp.window)
    assert packet.tcp_flags == int(tcp.flags) & 0xFF
    assert packet.payload_length == packet.payload_captured == len(payload)
    assert frame[packet.payload_offset :] == payload
    assert packet.payload_offset - packet.tcp_offset == tcp.dataofs * 4
    assert packet.ip_offset == len(frame) - len(bytes(ip))
    tags = [layer for layer in whole.iterpayloads() if isinstance(layer, Dot1Q)]
    assert packet.vlan_ids == tuple(tag.vlan for tag in tags)
    assert not (packet.cut or packet.big or packet.routed)


@given(frames)
def test_checksums_made_by_scapy_are_good(frame: bytes) -> None:
    packet = _packet(frame)
    assert packet.tcp_checksum == Checksum.GOOD
    assert packet.ip_checksum == (Checksum.GOOD if packet.version == 4 else Checksum.UNKNOWN)


@given(frames, st.data())
def test_one_changed_bit_makes_the_tcp_checksum_bad(frame: bytes, data: st.DataObject) -> None:
    packet = _packet(frame)
    at = data.draw(st.integers(packet.tcp_offset, len(frame) - 1).filter(lambda i: i != packet.tcp_offset + 12))
    damaged = bytearray(frame)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    assert _packet(damaged).tcp_checksum == Checksum.BAD


def test_one_changed_bit_makes_the_ip_checksum_bad() -> None:
    frame = bytearray(bytes(_stack(ETHERNET, V4, TCP())))
    frame[14 + 8] ^= 1  # time to live
    assert _packet(frame).ip_checksum == Checksum.BAD
    assert _packet(frame).tcp_checksum == Checksum.GOOD


@given(frames)
def test_every_truncation_says_in_which_header_the_bytes_end_or_reads_the_same_fields(frame: bytes) -> None:
    whole = _packet(frame)
    for captured in range(len(frame)):
        got = parse(frame[:captured], original_bytes=len(frame))
        if captured < 14:
            assert got is Reason.TRUNCATED_ETHERNET
        elif captured < whole.ip_offset:
            assert got is Reason.TRUNCATED_VLAN
        elif captured < whole.tcp_offset:
            assert got is Reason.TRUNCATED_IP
        elif captured < whole.tcp_offset + 20:
            assert got is Reason.TRUNCATED_TCP
        else:
            readable = max(captured - whole.payload_offset, 0)
            unknown = replace(whole, cut=True, payload_captured=readable, tcp_checksum=Checksum.UNKNOWN)
            assert got == unknown


@given(frames)
def test_a_frame_shorter_than_its_ip_header_claims_is_malformed(frame: bytes) -> None:
    fixed = _packet(frame).ip_offset + (20 if _packet(frame).version == 4 else 40)
    for length in range(fixed, len(frame)):
        assert parse(frame[:length]) is Reason.MALFORMED_IP


@given(frames)
def test_what_follows_a_known_ethertype_is_read_like_the_frame(frame: bytes) -> None:
    whole = _packet(frame)
    assert _packet(frame[14:], ethertype=int.from_bytes(frame[12:14], "big")) == replace(
        whole,
        ip_offset=whole.ip_offset - 14,
        tcp_offset=whole.tcp_offset - 14,
        payload_offset=whole.payload_offset - 14,
    )


@given(st.binary(max_size=200), st.sampled_from([None, ETHERTYPE_IPV4, ETHERTYPE_IPV6, 0x8100]))
def test_random_bytes_give_a_packet_or_a_reason(noise: bytes, ethertype: int | None) -> None:
    assert isinstance(parse(noise, ethertype=ethertype), Packet | Reason)


def _with(frame: ScapyPacket, offset: int, *values: int) -> bytes:
    changed = bytearray(bytes(frame))
    changed[offset : offset + len(values)] = bytes(values)
    return bytes(changed)


PLAIN4 = _stack(ETHERNET, V4, TCP(), Raw(b"payload"))
PLAIN6 = _stack(ETHERNET, V6, TCP(), Raw(b"payload"))
HOPS = IPv6ExtHdrHopByHop()

REFUSED = {
    "empty": (b"", Reason.TRUNCATED_ETHERNET),
    "arp": (_stack(ETHERNET, ARP()), Reason.NOT_IP),
    "a length in place of the ethertype": (_with(PLAIN4, 12, 0, 46), Reason.NOT_IP),
    "three tags": (_stack(ETHERNET, Dot1Q(), Dot1Q(), Dot1Q(), V4, TCP()), Reason.TOO_DEEP),
    "udp": (_stack(ETHERNET, V4, UDP()), Reason.NOT_TCP),
    "udp in ipv6": (_stack(ETHERNET, V6, HOPS, UDP()), Reason.NOT_TCP),
    "no next header": (_with(PLAIN6, 14 + 6, 59), Reason.NOT_TCP),
    "encrypted": (_with(PLAIN6, 14 + 6, 50), Reason.NOT_TCP),
    "first fragment": (_stack(ETHERNET, IP(flags="MF"), TCP()), Reason.FRAGMENT),
    "later fragment": (_stack(ETHERNET, IP(frag=9, proto=6), Raw(b"x" * 40)), Reason.FRAGMENT),
    "fragment of udp": (_stack(ETHERNET, IP(frag=9, proto=17), Raw(b"x" * 40)), Reason.NOT_TCP),
    "first fragment in ipv6": (_stack(ETHERNET, V6, IPv6ExtHdrFragment(m=1), TCP()), Reason.FRAGMENT),
    "later fragment in ipv6": (_stack(ETHERNET, V6, IPv6ExtHdrFragment(offset=9, nh=6), Raw(b"x")), Reason.FRAGMENT),
    "version 6 as ipv4": (_with(PLAIN4, 14, 0x65), Reason.MALFORMED_IP),
    "version 4 as ipv6": (_with(PLAIN6, 14, 0x40), Reason.MALFORMED_IP),
    "ipv4 header below 20 bytes": (_with(PLAIN4, 14, 0x44), Reason.MALFORMED_IP),
    "ipv4 total below its header": (_with(PLAIN4, 14 + 2, 0, 19), Reason.MALFORMED_IP),
    "ipv4 total beyond the frame": (_with(PLAIN4, 14 + 2, 0, 48), Reason.MALFORMED_IP),
    "ipv4 total 0 on a small frame": (_with(PLAIN4, 14 + 2, 0, 0), Reason.MALFORMED_IP),
    "ipv6 payload beyond the frame": (_with(PLAIN6, 14 + 4, 0, 28), Reason.MALFORMED_IP),
    "ipv6 payload 0 on a small frame": (_with(PLAIN6, 14 + 4, 0, 0), Reason.MALFORMED_TCP),
    "extension beyond the payload": (_with(_stack(ETHERNET, V6, HOPS, TCP()), 55, 9), Reason.MALFORMED_IP),
    "no room for an extension": (_with(_stack(ETHERNET, V6, HOPS, TCP()), 14 + 4, 0, 7), Reason.MALFORMED_IP),
    "nine extensions": (_stack(ETHERNET, V6, *[IPv6ExtHdrDestOpt()] * 9, TCP()), Reason.TOO_DEEP),
    "no room for tcp": (_with(PLAIN4, 14 + 2, 0, 39), Reason.MALFORMED_TCP),
    "tcp header below 20 bytes": (_with(PLAIN4, 34 + 12, 0x40), Reason.MALFORMED_TCP),
    "tcp header beyond the packet": (_with(PLAIN4, 34 + 12, 0x70), Reason.MALFORMED_TCP),
}


@pytest.mark.parametrize(("frame", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_frame_without_a_segment_says_why(frame: bytes | ScapyPacket, reason: Reason) -> None:
    assert parse(bytes(frame)) is reason


def test_eight_extensions_are_followed() -> None:
    assert _packet(bytes(_stack(ETHERNET, V6, *[IPv6ExtHdrDestOpt()] * 8, TCP()))).tcp_checksum == Checksum.GOOD


@pytest.mark.parametrize("tag", [0x8100, 0x88A8, 0x9100])
def test_every_tag_ethertype_is_followed(tag: int) -> None:
    frame = bytes(PLAIN4)
    assert _packet(frame[:12] + struct.pack(">HH", tag, 0xE123) + frame[12:]).vlan_ids == (0x123,)


@pytest.mark.parametrize(("frame", "offset"), [(PLAIN4, 14 + 2), (PLAIN6, 14 + 4)], ids=["ipv4", "ipv6"])
def test_a_merged_frame_too_long_for_its_ip_header_ends_where_the_frame_ends(frame: ScapyPacket, offset: int) -> None:
    headers = _with(frame, offset, 0, 0)
    original = 180_000
    packet = _packet(headers, original_bytes=original)
    assert packet.big
    assert packet.cut
    assert packet.payload_length == original - packet.payload_offset
    assert packet.payload_captured == len(b"payload")
    whole = _packet(headers + bytes(original - len(headers)))
    assert (whole.payload_captured, whole.cut) == (whole.payload_length, False)
    assert whole.tcp_checksum == Checksum.UNKNOWN


def test_a_merged_ipv6_frame_with_a_jumbo_option_ends_where_the_frame_ends() -> None:
    jumbo = struct.pack(">BBBBI", 6, 0, 0xC2, 4, 100_000)
    frame = _with(PLAIN6, 14 + 4, 0, 0, 0)
    frame = frame[:54] + jumbo + frame[54:]
    packet = _packet(frame, original_bytes=14 + 40 + 100_000)
    assert packet.payload_length == 100_000 - len(jumbo) - 20


@given(segments, st.integers(1, 20))
def test_an_authentication_header_is_passed_over(segment: ScapyPacket, words: int) -> None:
    frame = bytearray(bytes(_stack(ETHERNET, V6, segment)))
    plain = _packet(frame)
    header = struct.pack(">BBHII", 6, words + 1, 0, 1, 2) + bytes(words * 4)
    frame[14 + 4 : 14 + 7] = struct.pack(">HB", len(frame) - 54 + len(header), 51)
    frame[54:54] = header
    assert _packet(frame) == replace(
        plain, tcp_offset=plain.tcp_offset + len(header), payload_offset=plain.payload_offset + len(header)
    )


def test_a_frame_still_on_its_route_is_marked_and_its_checksum_left_open() -> None:
    packet = _packet(bytes(_stack(ETHERNET, V6, IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1), TCP())))
    assert packet.routed
    assert packet.tcp_checksum == Checksum.UNKNOWN


@pytest.mark.parametrize("original", [3, 2**32])
def test_an_original_length_that_cannot_be_is_refused(original: int) -> None:
    with pytest.raises(ValueError, match="original_bytes"):
        parse(bytes(100), original_bytes=original)


def _seeds() -> list[bytes]:
    options = IP(options=[IPOption_NOP()] * 4), TCP(options=[("NOP", 0)])
    chain = [HOPS, IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), IPv6ExtHdrFragment()]
    stacks = [
        PLAIN4,
        PLAIN6,
        _stack(ETHERNET, Dot1AD(vlan=1), Dot1Q(vlan=2), *options),
        _stack(ETHERNET, V6, *chain, TCP(), Raw(b"x" * 50)),
        _stack(ETHERNET, V6, *chain[:2], TCP()),
        *(_stack(ETHERNET, *link, TCP(flags="PA"), Raw(b"y" * 33)) for link in ([V4], [V6], [Dot1Q(vlan=3), V4])),
    ]
    noise = random.Random(7)
    return [bytes(stack) for stack in stacks] + [noise.randbytes(noise.randrange(1, 300)) for _ in range(2)]


def test_damaged_frames_are_parsed_without_reading_past_their_end(sanitized, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.write_bytes(b"".join(struct.pack(">H", len(seed)) + seed for seed in _seeds()))
    program = sanitized("packet_mutations.c")
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # looking for leaks wants ptrace, which containers forbid

    run = subprocess.run([program, seeds, "2000000"], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    alike, *lines = run.stdout.splitlines()
    assert int(alike.split()[1]) > 100_000, "too few of them still had the look of their seed"
    counts = {int(code): int(n) for code, n in (line.split() for line in lines)}
    assert set(counts) == {0, *Reason}
    assert all(counts.values()), f"the mutations did not reach every result: {counts}"

    overread = subprocess.run([program, seeds, "overread"], env=env, capture_output=True, text=True, check=False)
    assert "heap-buffer-overflow" in overread.stderr
