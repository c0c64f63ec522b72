# SPDX-License-Identifier: Apache-2.0
"""The feed: connects, takes one message after the other through parsing and publishing, and connects again."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import websocket

from tickpath.errors import InputError
from tickpath.event import Counter
from tickpath.probes.feed.connection import ConnectError, Connection, ConnectSettings, open_connection
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.session import ConnectionEnded, Session, Stop
from tickpath.probes.feed.venues.venue import Subscription
from tickpath.recorder import Recorder

_log = structlog.get_logger()


@dataclass(frozen=True)
class FeedSettings:
    """What the operator says of the feed itself."""

    name: str
    reconnect: bool = True
    idle_timeout_s: float = 240.0
    backoff_first_s: float = 0.5
    backoff_longest_s: float = 30.0
    connect: ConnectSettings = field(default_factory=ConnectSettings)


class StopRequestedError(BaseException):
    """Leaves what the feed waits for while it connects; no error handler on the way may hold it up."""


class Backoff:
    """Exponential delays, each drawn from the upper half of its step so that a fleet does not come back at once."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._step_s = first_s

    def next_s(self) -> float:
        """The delay before the next attempt."""
        delay_s = random.uniform(self._step_s / 2, self._step_s)
        self._step_s = min(self._step_s * 2, self._longest_s)
        return delay_s

    def reset(self) -> None:
        """The feed works again."""
        self._step_s = self._first_s


class Feed:
    """One URL, one connection at a time. `run` returns after `stop` (or without reconnecting, after the first end)."""

    def __init__(
        self,
        subscription: Subscription,
        settings: FeedSettings,
        recorder: Recorder,
        publisher: Publisher | None,
        *,
        context: ssl.SSLContext,
        every_second: Callable[[], None],
    ) -> None:
        self._subscription = subscription
        self._settings = settings
        self._recorder = recorder
        self._publisher = publisher
        self._context = context
        self._every_second = every_second
        self._stop = Stop()
        self._connecting: int | None = None
        self._connection: Connection | None = None

    def stop(self) -> None:
        """End after the message in hand; for a signal handler, or another thread.

        In the feed's own thread, while it connects, this raises through what it interrupts.
        """
        self._stop.requested = True
        if self._connecting == threading.get_ident():
            raise StopRequestedError
        if self._connection is not None:
            self._connection.sock.interrupt()

    def run(self) -> None:
        """Feed until stopped; ConnectError where a first connection cannot be had and another try would not help."""
        backoff = Backoff(self._settings.backoff_first_s, self._settings.backoff_longest_s)
        connections = 0
        while not self._stop.requested:
            delay_s = 0.0
            try:
                self._connection = self._connect(connections)
            except StopRequestedError:
                _log.info("stopped", detail="while connecting")
                return
            except ConnectError as error:
                self._recorder.count(Counter.CONNECT_FAILED)
                if not self._settings.reconnect or (error.lasting and connections == 0):
                    raise
                delay_s = max(backoff.next_s(), error.retry_after_s or 0)
                _log.warning("connect_failed", reason=str(error), retry_in_s=round(delay_s, 2))
            else:
                connections += 1
                if self._serve(self._connection):
                    backoff.reset()
                if not self._settings.reconnect:
                    return
                delay_s = backoff.next_s()
                if not self._stop.requested:
                    _log.info("reconnecting", retry_in_s=round(delay_s, 2))
            self._pause(delay_s)

    def _connect(self, reconnects: int) -> Connection:
        self._connecting = threading.get_ident()
        try:
            return open_connection(
                self._subscription,
                self._context,
                self._recorder,
                feed=self._settings.name,
                reconnects=reconnects,
                settings=self._settings.connect,
            )
        finally:
            self._connecting = None

    def _pause(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while not self._stop.requested and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))
            self._every_second()

    def _serve(self, connection: Connection) -> bool:
        """One connection to its end; whether it brought a message."""
        address = self._subscription.address
        _log.info(
            "connected",
            feed=self._settings.name,
            venue=self._subscription.venue,
            remote=f"{address.host}:{address.port}",
            tls=connection.sock.tls_version or "no",
            streams=len(self._subscription.streams),
        )
        reason = "stopped"
        session = Session(
            connection,
            self._subscription.reader(),
            self._recorder,
            self._publisher,
            idle_timeout_s=self._settings.idle_timeout_s,
            every_second=self._every_second,
        )
        try:
            session.run(self._stop)
        except InterruptedError:
            pass
        except (websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            reason = f"connection lost: {error}"
        except (websocket.WebSocketProtocolException, websocket.WebSocketPayloadException, InputError) as error:
            self._recorder.count(Counter.PROTOCOL_ERRORS)
            reason = f"protocol error: {error}"
        except OSError as error:
            # ssl.SSLError is one: what it says is about what the peer sent.
            if isinstance(error, ssl.SSLError):
                self._recorder.count(Counter.PROTOCOL_ERRORS)
            reason = f"connection lost: {error}"
        except ConnectionEnded as ended:
            reason = str(ended)
        finally:
            self._connection = None
            # The goodbye may wait for its answer, which a stop's interrupt would forbid.
            connection.sock.resume()
            connection.websocket.close(timeout=1)
            connection.sock.close()
        _log.info("disconnected", reason=reason, messages=connection.recorder.messages)
        return connection.recorder.messages > 0
