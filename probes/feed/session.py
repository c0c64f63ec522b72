# SPDX-License-Identifier: Apache-2.0
"""One connection's messages, one after the other: received, parsed, published, recorded."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns

import structlog
import websocket

from tickpath.event import Counter, Tier
from tickpath.probes.feed.connection import Connection
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.venues.venue import Content, Reader
from tickpath.recorder import Recorder

_log = structlog.get_logger()

_TEXT = websocket.ABNF.OPCODE_TEXT
_BINARY = websocket.ABNF.OPCODE_BINARY
_CLOSE = websocket.ABNF.OPCODE_CLOSE
_TIER = int(Tier.A)
# How often a silent connection is looked at: the longest that a stop may wait in the worst case.
TICK_S = 1.0
_TICK_NS = 1_000_000_000


class ConnectionEnded(Exception):  # noqa: N818 - no error: the reason why a connection is given up
    """This connection is over, for the reason given."""


class Stop:
    """Whether the feed was told to stop; set by a signal handler."""

    def __init__(self) -> None:
        self.requested = False


class Complaints:
    """Warnings, one a second of each kind, so that a venue that misbehaves fills no disk; the rest are counted."""

    def __init__(self) -> None:
        self._last_ns: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, event: str, **details: object) -> None:
        """Log a warning, or count it for the next one."""
        now_ns = monotonic_ns()
        if now_ns - self._last_ns.get(event, -_TICK_NS) < _TICK_NS:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._last_ns[event] = now_ns
        _log.warning(event, **details, left_out=self._left_out.pop(event, 0))


class Session:
    """The life of one connection, between its handshake and its end."""

    def __init__(
        self,
        connection: Connection,
        reader: Reader,
        recorder: Recorder,
        publisher: Publisher | None,
        *,
        idle_timeout_s: float,
        every_second: Callable[[], None],
    ) -> None:
        self._sock = connection.sock
        self._record = connection.recorder
        self._receive = connection.websocket.recv_data_frame
        self._reader = reader
        self._count = recorder.count
        self._publisher = publisher
        self._idle_timeout_s = idle_timeout_s
        self._every_second = every_second
        self._complaints = Complaints()
        self._ordinal = 0

    def run(self, stop: Stop) -> None:
        """Until `stop`; ConnectionEnded, or what websocket-client and the socket raise, where it ends before."""
        receive = self._receive
        take = self._take
        self._sock.settimeout(TICK_S)
        began_ns = next_tick_ns = monotonic_ns()
        while not stop.requested:
            asked_ns = monotonic_ns()
            if asked_ns >= next_tick_ns:
                next_tick_ns = asked_ns + _TICK_NS
                self._every_second()
            try:
                opcode, frame = receive(True)
            except websocket.WebSocketTimeoutException:
                silent_ns = monotonic_ns() - max(self._sock.returned_ns, began_ns)
                if silent_ns > self._idle_timeout_s * 1e9:
                    raise ConnectionEnded(f"nothing came for {self._idle_timeout_s:g} s") from None
                continue
            received_ns = monotonic_ns()
            if opcode in (_TEXT, _BINARY):
                take(frame.data, asked_ns, received_ns)
                continue
            self._count(Counter.CONTROL_FRAMES)
            if opcode == _CLOSE:
                raise ConnectionEnded(_close_reason(frame.data))

    def _take(self, payload: bytes, asked_ns: int, received_ns: int) -> None:
        reader = self._reader
        sock = self._sock
        record = self._record
        parsed_ns: int | None
        try:
            reader.read(payload)
            parsed_ns = monotonic_ns()
        except ValueError as error:
            parsed_ns = None
            self._parse_failed(error, len(payload))
        if reader.content is not Content.EVENT and self._is_reply():
            return
        if reader.gap is not None:
            self._count(Counter.FEED_GAPS)
            self._complaints.warn("feed_gap", detail=reader.gap, topic=reader.topic.decode())
        returned_ns = sock.returned_ns
        draft = record.draft(
            sock.end,
            self._ordinal,
            len(payload),
            reader.exchange_ns,
            reader.resolution,
            reader.transaction_ns,
            # Bytes that lay there already were not decoded before the loop came to ask for them.
            asked_ns if asked_ns > returned_ns else returned_ns,
            received_ns,
            parsed_ns,
            _TIER,
        )
        self._ordinal += 1
        if self._publisher is None:
            record.publish(None)
        elif self._publisher.send(reader.topic, payload, draft):
            record.publish(monotonic_ns())
        else:
            record.publish(None)
            self._count(Counter.PUBLISH_DROPPED)
            self._complaints.warn("publish_dropped", detail="a subscriber lags by the high-water mark")

    def _parse_failed(self, error: ValueError, length: int) -> None:
        self._count(Counter.PARSE_FAILED)
        self._complaints.warn("parse_failed", reason=str(error), ordinal=self._ordinal, length=length)

    def _is_reply(self) -> bool:
        """Whether this was the answer to a subscription, which is no message; a shutdown notice is one."""
        if self._reader.content is Content.REPLY:
            self._count(Counter.REPLIES)
            if self._reader.reply_error is not None:
                self._complaints.warn("subscription_refused", reason=self._reader.reply_error)
            return True
        _log.warning("server_shutdown", detail="the venue announces the end of this connection")
        return False


def _close_reason(data: bytes) -> str:
    if len(data) < 2:
        return "the server closed"
    said = data[2:].decode(errors="replace")
    return f"the server closed: {int.from_bytes(data[:2], 'big')} {said}".rstrip()
