# SPDX-License-Identifier: Apache-2.0
"""The faults of one connection that lie between its messages, carried out where their turn comes."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from time import monotonic_ns, time_ns

from tickpath.lab.simulator.batch import Batch
from tickpath.lab.simulator.config import Faults, Garbage
from tickpath.lab.simulator.wire import EndedError, Wire

# As a frame: reserved bits and a reserved opcode. As a TLS record: a whole one of an unknown type.
_NEITHER_FRAME_NOR_RECORD = b"\xff\xff\xff\x00\x0b" + b"\xff" * 11
_NO_JSON = b'{"e":"trade","E":'


class Misbehaviour:
    """Asked before every message; `linger_ns` bounds the wait for what went before to arrive."""

    def __init__(self, faults: Faults, sock: socket.socket, wire: Wire, linger_ns: int) -> None:
        self._faults = faults
        self._sock = sock
        self._wire = wire
        self._linger_ns = linger_ns
        self._garbage_sent = False

    def first(self, batch: Batch) -> None:
        """What precedes the first message."""
        if self._faults.huge_bytes:
            batch.add(_huge(self._faults.huge_bytes), monotonic_ns())

    def next(self, batch: Batch) -> None:
        """Raises EndedError when nothing can follow."""
        sent = self._wire.summary.messages + len(batch)
        if self._faults.garbage_after == sent and not self._garbage_sent:
            self._garbage_sent = True
            self._send_garbage(batch)
        if self._faults.abort_after is not None and sent >= self._faults.abort_after:
            batch.send()
            self._drain()
            # A close with zero linger time sends RST instead of FIN (socket(7), SO_LINGER).
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise EndedError("the connection was reset, as the simulator was told")

    def _send_garbage(self, batch: Batch) -> None:
        batch.send()
        if self._faults.garbage is Garbage.JSON:
            batch.add(_NO_JSON, monotonic_ns())
            return
        garbage = _NEITHER_FRAME_NOR_RECORD
        self._wire.push(garbage if self._faults.garbage is Garbage.TLS else self._wire.transport.seal(garbage))
        self._wire.flush()
        self._drain()
        raise EndedError("garbage was sent, as the simulator was told")

    def _drain(self) -> None:
        """Wait until the client's kernel has acknowledged all bytes."""
        by_ns = monotonic_ns() + self._linger_ns
        while monotonic_ns() < by_ns:
            unacknowledged = struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0]
            if unacknowledged == 0:
                return
            time.sleep(0.001)


def _huge(size_bytes: int) -> bytes:
    head, tail = b'{"e":"trade","E":%d,"x":"' % (time_ns() // 1_000_000), b'"}'
    return head + b"x" * (size_bytes - len(head) - len(tail)) + tail
