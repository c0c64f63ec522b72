# SPDX-License-Identifier: Apache-2.0
"""What this host offers the pinger, found by opening sockets; nothing is sent."""

from __future__ import annotations

import socket

import msgspec

from tickpath.capability import Capability

_SUBJECT = "ping"
_PING_SOCKET, _RAW_SOCKET = 0, 1
_REMEDY = "sudo sysctl net.ipv4.ping_group_range='0 2147483647' (ping sockets for everyone), or CAP_NET_RAW"


def _may(kind: socket.SocketKind) -> str:
    """Empty, or why a socket of that kind cannot be had for ICMP."""
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def capabilities() -> list[Capability]:
    """How ICMP may be sent; UDP and TCP need no right."""
    found = []
    for kind, name, rank in (
        (socket.SOCK_DGRAM, "icmp ping socket", _PING_SOCKET),
        (socket.SOCK_RAW, "icmp raw socket", _RAW_SOCKET),
    ):
        refused = _may(kind)
        detail = f"not to be had: {refused}" if refused else "may be opened"
        found.append(Capability(_SUBJECT, name, rank, not refused, detail, _REMEDY if refused else None))
    found.append(
        Capability(_SUBJECT, "udp, tcp", 2, True, "need no right; udp wants `tickpath ping --serve` at the other end")
    )
    return found


def show(*, as_json: bool) -> int:
    """Print them."""
    for one in capabilities():
        if as_json:
            print(msgspec.json.encode(one).decode())
        else:
            print(f"{'yes' if one.available else 'no ':3} {one.source}: {one.detail}")
            if one.remedy:
                print(f"    {one.remedy}")
    return 0
