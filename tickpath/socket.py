# SPDX-License-Identifier: Apache-2.0
"""A TCP socket under a WebSocket client that knows, for every byte it hands out, where in the stream it stood."""

from __future__ import annotations

import contextlib
import socket

from tickpath._socket import StampedSocket, enable_stamps, learn_irs

__all__ = ["StampedSocket", "connect", "enable_stamps", "learn_irs"]


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection made for market data: no Nagle delay, keep-alive, receive stamps from its first byte on.

    Every address of `host` is tried in turn, each for at most `timeout_s`; OSError is the last one's.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with contextlib.suppress(OSError):  # a kernel without time stamping still carries the feed
                enable_stamps(sock)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError(f"{host} has no address")
