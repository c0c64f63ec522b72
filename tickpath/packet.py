# SPDX-License-Identifier: Apache-2.0
"""From a captured frame to its TCP segment, or to the reason why there is none."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tickpath import _packet

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD


class Reason(enum.IntEnum):
    """Why a frame gave no TCP segment.

    TRUNCATED: the bytes end inside that header. MALFORMED: a length or version in that header contradicts itself or the
    frame. TOO_DEEP: more VLAN tags or IPv6 extension headers than are followed.
    """

    TRUNCATED_ETHERNET = _packet.TRUNCATED_ETHERNET
    TRUNCATED_VLAN = _packet.TRUNCATED_VLAN
    TRUNCATED_IP = _packet.TRUNCATED_IP
    TRUNCATED_TCP = _packet.TRUNCATED_TCP
    NOT_IP = _packet.NOT_IP
    NOT_TCP = _packet.NOT_TCP
    FRAGMENT = _packet.FRAGMENT
    MALFORMED_IP = _packet.MALFORMED_IP
    MALFORMED_TCP = _packet.MALFORMED_TCP
    TOO_DEEP = _packet.TOO_DEEP


class Checksum(enum.IntEnum):
    """What verifying a checksum said; UNKNOWN where not all bytes were captured, or there is none."""

    UNKNOWN = _packet.CHECKSUM_UNKNOWN
    GOOD = _packet.CHECKSUM_GOOD
    BAD = _packet.CHECKSUM_BAD


@dataclass(frozen=True, slots=True)
class Packet:
    """One TCP segment. Offsets are from the first byte that was parsed."""

    source: bytes  # 16 bytes, network order; IPv4 as ::ffff:a.b.c.d
    destination: bytes
    source_port: int
    destination_port: int
    seq: int  # raw
    ack: int
    window: int  # as on the wire, not scaled
    tcp_flags: int
    version: int  # 4 or 6
    ip_offset: int
    tcp_offset: int
    payload_offset: int  # beyond the captured bytes when they end inside the TCP options
    payload_length: int  # on the wire, by the IP header
    payload_captured: int  # how many of them were captured
    vlan_ids: tuple[int, ...]  # outermost first
    cut: bool  # the capture ends before the segment does
    big: bool  # payload_length is by the frame: merged or uncut by the host, too long for the IP header
    routed: bool  # an IPv6 routing header still names stops: destination is the next one, not the last
    ip_checksum: Checksum
    tcp_checksum: Checksum


def parse(
    frame: bytes | bytearray | memoryview, *, ethertype: int | None = None, original_bytes: int | None = None
) -> Packet | Reason:
    """Parse an Ethernet frame, or what follows a known `ethertype`.

    `original_bytes` is the frame's length before the capture cut it; without it, nothing was cut. The checksums mean
    nothing on frames that this host sent with offload, or merged.
    Raises ValueError when `original_bytes` is below what was captured or beyond 32 bits.
    """
    fields = _packet.parse(frame, ethertype, len(frame) if original_bytes is None else original_bytes)
    if isinstance(fields, int):
        return Reason(fields)
    return Packet(*fields[:-2], *map(Checksum, fields[-2:]))
