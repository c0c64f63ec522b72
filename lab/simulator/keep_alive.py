# SPDX-License-Identifier: Apache-2.0
"""The server's pings on one connection: when, with which payload, and whether they were answered."""

from __future__ import annotations

from collections import deque
from time import monotonic_ns, time_ns

from tickpath.lab.simulator import frames
from tickpath.lab.simulator.truth import ConnectionSummary

# Spot disconnects after a minute with a ping every 20 s, futures after ten with one every three.
_MISSED_PINGS = 3


class KeepAlive:
    """All times are monotonic; a connection starts with a whole interval before its first ping."""

    def __init__(self, interval_ns: int, summary: ConnectionSummary) -> None:
        self._interval_ns = interval_ns
        self._summary = summary
        self._unanswered: deque[tuple[bytes, int]] = deque()
        self._number = 0
        self.next_ns = monotonic_ns() + interval_ns
        """When the next ping is due."""

    def ping(self) -> bytes:
        """A ping frame, now: due or not."""
        # The venue's payload is the time in milliseconds; ours never repeats.
        self._number = max(self._number + 1, time_ns() // 1_000_000)
        payload = b"%d" % self._number
        self._unanswered.append((payload, monotonic_ns()))
        self._summary.pings += 1
        return frames.ping(payload)

    def due(self, now_ns: int) -> bytes | None:
        """The ping whose time has come, if it has."""
        if now_ns < self.next_ns:
            return None
        self.next_ns = now_ns + self._interval_ns
        return self.ping()

    def given_up(self, now_ns: int) -> bool:
        """Whether the client has left a ping unanswered for too long."""
        return bool(self._unanswered) and now_ns - self._unanswered[0][1] >= _MISSED_PINGS * self._interval_ns

    def take_pong(self, payload: bytes) -> None:
        """A pong answers its ping and those before it (RFC 6455, 5.5.3); others are counted apart."""
        position = next((at for at, ping in enumerate(self._unanswered) if ping[0] == payload), None)
        if position is None:
            self._summary.unknown_pongs += 1
            return
        self._summary.pongs += 1
        for _ in range(position + 1):
            self._unanswered.popleft()
