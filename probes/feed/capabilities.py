# SPDX-License-Identifier: Apache-2.0
"""What this host offers to the stamped socket, tried on a connection to itself; for doctor."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tickpath.capability import Capability
from tickpath.socket import StampedSocket, connect, learn_irs

# Switching stamps on takes effect a moment later (a static key of the kernel, turned by a work queue).
_PATIENCE_S = 0.5


@contextmanager
def _connection_to_itself() -> Iterator[tuple[StampedSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = StampedSocket(connect("127.0.0.1", listener.getsockname()[1], 5))
        try:
            far, _ = listener.accept()
            with far:
                yield near, far
        finally:
            near.close()


def _stamped(near: StampedSocket, far: socket.socket) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        far.sendall(b"x")
        near.recv(1)
        if near.stamps_ns[0]:
            return True
    return False


def capabilities() -> list[Capability]:
    """The provider that is registered for doctor."""
    stamped_by = "stamped by `tickpath feed`, and by any client that uses tickpath.recorder"
    found = [
        Capability(
            "bn_to_nic",
            "event time",
            0,
            True,
            "the venue's event time to the wire stamp that nic_to_user uses, where the venue sends one (spot's "
            "bookTicker and depth<N> carry none); as true as both clocks, see utc",
        ),
        Capability("cpu", "user space", 0, True, f"received to parsed: {stamped_by}"),
        Capability("msk", "user space", 0, True, f"parsed to published: {stamped_by}"),
    ]
    try:
        with _connection_to_itself() as (near, far):
            return [*found, _sock(_stamped(near, far)), _irs(near)]
    except OSError as error:
        remedy = "allow a TCP connection on 127.0.0.1"
        detail = f"no connection to itself: {error.strerror}"
        return [*found, Capability("nic_to_user", "sock", 60, False, detail, remedy)]


def _sock(stamped: bool) -> Capability:
    detail = "the socket's own receive stamps: where a message ends what was read" if stamped else "no stamp came"
    remedy = None if stamped else "a kernel with CONFIG_NETWORK_PHY_TIMESTAMPING or SO_TIMESTAMPING support"
    return Capability("nic_to_user", "sock", 60, stamped, detail, remedy)


def _irs(near: StampedSocket) -> Capability:
    try:
        learn_irs(near.sock)
    except OSError as error:
        return Capability(
            "match.offset",
            "initial sequence by TCP_REPAIR",
            1,
            False,
            f"{error.strerror}: a capture must see the connection's SYN-ACK",
            "run the feed with CAP_NET_ADMIN, or start the wire probe before it",
        )
    return Capability("match.offset", "initial sequence by TCP_REPAIR", 1, True, "known without seeing the handshake")
