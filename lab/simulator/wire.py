# SPDX-License-Identifier: Apache-2.0
"""The outgoing half of one TCP connection: sealed bytes in order, counted as send() takes them."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from tickpath.lab.simulator.transport import Transport
from tickpath.lab.simulator.truth import ConnectionSummary


class EndedError(Exception):
    """The connection is over; its text says why."""


class Wire:
    """`blocked` is called when the socket takes no more; it returns when trying again makes sense, or raises."""

    def __init__(
        self, sock: socket.socket, transport: Transport, summary: ConnectionSummary, blocked: Callable[[], None]
    ) -> None:
        self.transport = transport
        self.summary = summary
        self._sock = sock
        self._blocked = blocked
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0

    @property
    def offset(self) -> int:
        """Bytes that send() has taken: the stream offset of the next one."""
        return self.summary.bytes

    @property
    def position(self) -> int:
        """The stream offset of the next byte that is pushed."""
        return self.summary.bytes + self._queued_bytes

    def push(self, sealed: bytes) -> None:
        """Queue bytes that the transport made; they leave in the order of sealing."""
        self._queue.append(sealed)
        self._queued_bytes += len(sealed)

    def answer(self) -> None:
        """Queue what the transport itself has to send."""
        if sealed := self.transport.answer():
            self.push(sealed)

    def flush(self) -> None:
        """Send all that is queued."""
        while self._queue:
            data = self._queue[0]
            try:
                taken = self._sock.send(data)
            except BlockingIOError:
                self._blocked()
                continue
            self.summary.bytes += taken
            self._queued_bytes -= taken
            if taken == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = data[taken:]
