# SPDX-License-Identifier: Apache-2.0
"""Which interface a peer's frames come in on: asked of the kernel's routing table, nothing is sent."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from pathlib import Path

_NLMSG_ERROR, _RTM_NEWROUTE, _RTM_GETROUTE = 2, 24, 26
_RTA_DST, _RTA_OIF = 1, 4
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, ...
_ATTRIBUTE = struct.Struct("=HH")

# Documentation addresses (RFC 5737, RFC 3849): their route is the default route.
_ANYWHERE = ("192.0.2.1", "2001:db8::1")


def route_interface(address: str) -> str | None:
    """The interface of the route to an address; None where there is no route. OSError when the kernel cannot be asked.

    Frames of an answer may come in elsewhere where routing is asymmetric: then the interface must be named.
    """
    target = ipaddress.ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(target.packed), _RTA_DST) + target.packed
    body = _ROUTE.pack(family, 8 * len(target.packed), 0, 0, 0, 0, 0, 0, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + body)
        answer = kernel.recv(65536)
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        (error,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -error in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENETDOWN):
            return None  # no route, or one that says "prohibit", "unreachable", "blackhole"
        raise OSError(-error, f"route to {address}: {os.strerror(-error)}")
    at = _HEADER.size + _ROUTE.size
    while kind == _RTM_NEWROUTE and at + _ATTRIBUTE.size <= length:
        size, what = _ATTRIBUTE.unpack_from(answer, at)
        if what == _RTA_OIF:
            return socket.if_indextoname(struct.unpack_from("=I", answer, at + _ATTRIBUTE.size)[0])
        at += max(size + 3 & ~3, _ATTRIBUTE.size)
    return None


def default_interfaces() -> list[str]:
    """The interfaces of the default routes, IPv4's first; none on a host without."""
    return list(dict.fromkeys(name for address in _ANYWHERE if (name := route_interface(address))))


def network_namespace() -> int:
    """The inode of the network namespace of the calling thread; 0: not known."""
    try:
        return Path("/proc/thread-self/ns/net").stat().st_ino
    except OSError:
        return 0
