# SPDX-License-Identifier: Apache-2.0
"""What a simulator is told: the venue it plays, what it sends and when, its shape on the wire, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from http import HTTPStatus
from pathlib import Path

from tickpath.errors import ConfigError

DEFAULT_PORT = 18065
# RFC 8446, 5.1: no TLS record holds more plaintext.
RECORD_MAX_BYTES = 16384
_REFUSALS = frozenset(status.value for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class Venue(Enum):
    """Whose URL forms, message fields and keep-alive are played."""

    USDM = "usdm"
    SPOT = "spot"
    COINM = "coinm"
    COINBASE = "coinbase"


class EventTimes(Enum):
    """What becomes of the exchange's times (`E`, `T`, `time`) in a message; T - E is kept by each."""

    NOW = "now"  # E = the planned moment of sending less the exchange delay: a well-set clock, a near exchange
    RECORDED = "recorded"  # moved by (planned moment of sending - recorded receive time): the recorder's skew stays
    ORIGINAL = "original"  # every byte as recorded


class AtEnd(Enum):
    """What a connection does when its last message is sent."""

    CLOSE = "close"
    HOLD = "hold"  # stays open, pings go on


class Coalesce(Enum):
    """How several messages are put together."""

    RECORD = "record"  # one TLS record and one send()
    SEND = "send"  # a TLS record each, one send()


class KeyUpdate(Enum):
    """The two forms of TLS 1.3 KeyUpdate."""

    NOT_REQUESTED = "not-requested"  # only our sending key changes
    REQUESTED = "requested"  # the client has to answer with its own


class Garbage(Enum):
    """At which layer the bytes stop to make sense."""

    JSON = "json"  # a well-formed frame whose text is no JSON
    FRAME = "frame"  # no WebSocket frame
    TLS = "tls"  # no TLS record (without TLS the same as FRAME)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How messages lie on the wire. The default: one message, one frame, one TLS record, one send()."""

    coalesce: int = 1
    """Messages put together; the last ones of a connection may be fewer."""
    coalesce_into: Coalesce = Coalesce.RECORD
    split: int = 1
    """Parts into which the bytes of a message (or of coalesced ones) are cut: a TLS record and a send() each."""
    split_pause_ns: int = 0
    """Pause between these parts, so that each travels in a segment of its own."""
    fragments: int = 1
    """WebSocket frames per message."""
    ping_between: bool = False
    """A ping after every fragment but the last."""
    key_update: KeyUpdate | None = None
    key_update_every: int = 100
    """Messages between two KeyUpdates."""
    pad_bytes: int = 0
    """TLS 1.3 records are padded to a multiple of this; 0: not at all."""

    def __post_init__(self) -> None:
        for name in ("coalesce", "split", "fragments", "key_update_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("split_pause_ns", self.split_pause_ns, 0)
        _at_least("pad_bytes", self.pad_bytes, 0)
        if self.pad_bytes > RECORD_MAX_BYTES:
            raise ConfigError(f"pad_bytes is {self.pad_bytes}: a TLS record holds at most {RECORD_MAX_BYTES}")
        if self.ping_between and self.fragments == 1:
            raise ConfigError("ping_between needs fragments of 2 or more: a ping cannot stand inside one frame")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong, on every connection alike. The default: nothing."""

    refuse_status: int | None = None
    """The handshake is answered with this HTTP status, e.g. 403, 429, 451."""
    silent: bool = False
    """Accepts connections and subscriptions and never sends a message."""
    abort_after: int | None = None
    """The connection is reset (RST) after so many messages."""
    garbage_after: int | None = None
    """After so many messages the next bytes make no sense; a JSON garbage message is followed by good ones."""
    garbage: Garbage = Garbage.FRAME
    huge_bytes: int = 0
    """The first message is a valid one of this size, put before what is replayed; 0: none."""

    def __post_init__(self) -> None:
        if self.refuse_status is not None and self.refuse_status not in _REFUSALS:
            raise ConfigError(f"refuse_status is {self.refuse_status}: no status of a refusal; try 403, 429 or 451")
        for name in ("abort_after", "garbage_after", "huge_bytes"):
            value = getattr(self, name)
            if value is not None:
                _at_least(name, value, 0)
        if self.huge_bytes:
            _at_least("huge_bytes", self.huge_bytes, 64)


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """One simulator. Every connection gets the whole sequence of its subscribed messages, from the beginning."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0: a free one, then read `Simulator.port`."""
    tls: str | None = None
    """None: ws; "1.2" or "1.3": wss with that version alone."""
    venue: Venue | None = None
    """None: what the recording shows, USD-M where nothing is replayed."""
    replay: Path | None = None
    """A recording; None: generated messages."""
    seed: int = 1
    """Of the generated messages: the same seed gives the same messages."""
    speed: Fraction | None = Fraction(1)
    """Times the recorded pace; None: as fast as the connection takes them."""
    event_times: EventTimes = EventTimes.NOW
    exchange_delay_ns: int = 2_000_000
    """Between the event and its message's sending, where event times are NOW."""
    messages: int | None = None
    """Messages after which a connection ends; None: the whole recording, or for ever."""
    duration_ns: int | None = None
    """Time after the first subscription at which everything ends."""
    connections: int | None = None
    """Connections after whose end the simulator ends."""
    at_end: AtEnd = AtEnd.CLOSE
    shared_clock: bool = False
    """One clock for all connections: a later one joins at the position that the first has reached.
    At full speed there is no clock, and every connection gets everything."""
    ping_interval_ns: int | None = None
    """None: the venue's. A connection whose pings stay unanswered for three intervals is closed."""
    linger_ns: int = 5_000_000_000
    """How long an ending connection waits for the client's Close and for its last bytes to be taken."""
    shape: Shape = field(default_factory=Shape)
    faults: Faults = field(default_factory=Faults)
    keep_log: bool = False
    """Keep the log of messages in memory too, as `Simulator.log`."""
    log: Path | None = None
    """File for the log of messages, one JSON object a line."""
    status: Path | None = None
    """File that is replaced several times a second with what was sent, and once more at the end."""
    names: tuple[str, ...] = ()
    """Host names and addresses that the server's certificate is good for, besides `host` and localhost."""
    ca: Path | None = None
    """Where the throw-away CA's certificate is written; None: a temporary file, removed at the end."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}: ports go from 0 (any free one) to 65535")
        if self.tls not in (None, "1.2", "1.3"):
            raise ConfigError(f"tls is {self.tls!r}: the versions are 1.2 and 1.3")
        if self.speed is not None and self.speed <= 0:
            raise ConfigError(f"speed is {self.speed}: it must be above 0, or max")
        if self.tls != "1.3" and (self.shape.key_update or self.shape.pad_bytes):
            raise ConfigError("key_update and pad_bytes are features of TLS 1.3: add tls 1.3")
        for name in ("messages", "duration_ns", "connections", "ping_interval_ns"):
            value = getattr(self, name)
            if value is not None:
                _at_least(name, value, 1)
        _at_least("exchange_delay_ns", self.exchange_delay_ns, 0)
        _at_least("linger_ns", self.linger_ns, 0)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}: it must be at least {least}")
