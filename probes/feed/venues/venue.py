# SPDX-License-Identifier: Apache-2.0
"""What a venue has to answer for the feed probe: which streams a URL brings, and what one message of them says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol
from urllib.parse import urlsplit

import simdjson

from tickpath.errors import InputError

RESOLUTION_MS = 0
RESOLUTION_US = 1


@dataclass(frozen=True)
class Address:
    """A WebSocket URL in its parts; `path` and `query` as they were written."""

    url: str
    secure: bool
    host: str
    port: int
    path: str
    query: str


def split_url(url: str) -> Address:
    """Take a WebSocket URL apart; InputError where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in {"ws", "wss"}:
        raise InputError(f"{url!r} is no WebSocket URL: it begins with ws:// or wss://")
    if not parts.hostname:
        raise InputError(f"{url!r} names no host")
    if parts.username is not None:
        raise InputError(f"the URL of {parts.hostname} holds a user name, which no venue here takes")
    if any(c <= " " or c == "\x7f" for c in url):
        raise InputError(f"{url!r} holds blanks or control characters")
    secure = parts.scheme == "wss"
    return Address(url, secure, parts.hostname, port or (443 if secure else 80), parts.path, parts.query)


class Content(Enum):
    """What a data message of the WebSocket is to the venue."""

    EVENT = "event"
    REPLY = "reply"
    """The answer to a subscription: no message in the sense of tickpath."""
    SHUTDOWN = "shutdown"
    """The server announces that it will close this connection; still a message."""


class Reader:
    """Reads what the pipeline needs out of the messages of one connection; the base reads nothing but the JSON.

    After `read` the attributes describe the message, until the next call: one object, so that a message costs none.
    exchange_ns: event time since 1970, or None where the stream carries none; `resolution` is an event.Resolution.
    transaction_ns: the matching engine's time, or None. gap: None, or what shows that messages were lost.
    reply_error: the venue's refusal, where content is REPLY.
    """

    def __init__(self, topic: str, resolution: int = RESOLUTION_MS) -> None:
        self.parser = simdjson.Parser()
        self.resolution = resolution
        self.content = Content.EVENT
        self.topic = topic.encode()
        self.exchange_ns: int | None = None
        self.transaction_ns: int | None = None
        self.gap: str | None = None
        self.reply_error: str | None = None

    def read(self, payload: bytes) -> None:
        """Parse `payload`; ValueError where it is no JSON. No proxy of the document outlives this call."""
        try:
            self.parser.parse(payload)
        except RuntimeError as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: RuntimeError) -> ValueError:
        """simdjson's other way to refuse (an integer of more than 64 bits is one), with a parser that nothing holds."""
        self.parser = simdjson.Parser()
        return ValueError(str(error))


@dataclass(frozen=True)
class Subscription:
    """A URL as its venue understands it. `streams` is what it brings, with secrets (listen keys) left out."""

    address: Address
    venue: str
    streams: tuple[str, ...]
    greetings: tuple[str, ...]
    """Text messages to send after connecting."""
    reader: Callable[[], Reader]
    """A new one per connection: sequence numbers begin anew."""
    refusal: Callable[[int], str | None]
    """What an HTTP status at the handshake means at this venue, or None."""
    warnings: tuple[str, ...] = ()


class Venue(Protocol):
    """One venue. To add another, write a module with such a class and name it in `VENUES`."""

    @property
    def label(self) -> str:
        """The value of the label `venue`, at most 16 bytes."""

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that are this venue's."""

    def resembles(self, address: Address) -> bool:
        """Whether a URL on a foreign host has this venue's form."""

    def subscribe(self, address: Address, streams: tuple[str, ...]) -> Subscription:
        """InputError where the venue does not serve such a URL."""


def text(value: Any) -> str:
    """A JSON value for a log line, shortened."""
    if isinstance(value, simdjson.Object):
        compact: Any = value.mini  # bytes, though its stub says str
        shown = str(compact, errors="replace")
    else:
        shown = str(value)
    return shown if len(shown) <= 200 else shown[:199] + "~"
