# SPDX-License-Identifier: Apache-2.0
"""Recorded market data, read into messages: two line forms, plain or gzip; a malformed line is a counted skip.

`local_receive_time_ns json`: integer nanoseconds, a space, the message as received.
`seconds.fraction: json`: the first line names the URL; lines that begin with `wss://` tell what the recorder did
(`<->` opened, `<-` sent) and are no messages.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from tickpath.errors import InputError
from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.message import Message, find_times

log = structlog.get_logger(__name__)

_NANOSECONDS = re.compile(rb"(\d{1,18}|[1-8]\d{18}) (?=\{)")
_SECONDS = re.compile(rb"(\d{1,9}|[1-8]\d{9})(?:\.(\d{1,9})\d*)?: (?=\{)")
_NOT_A_MESSAGE = re.compile(rb"wss?://(\S+) <-")
_HOSTS = {
    "fstream.binance.com": Venue.USDM,
    "stream.binance.com": Venue.SPOT,
    "dstream.binance.com": Venue.COINM,
    "ws-feed.pro.coinbase.com": Venue.COINBASE,
    "ws-feed.exchange.coinbase.com": Venue.COINBASE,
}
# The lines a warning is given for one by one; the total is told in any case.
_NAMED_SKIPS = 5
_LINE_MAX_BYTES = 64 << 20


class _Wrapped(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Told(msgspec.Struct):
    """The fields by which a message without a stream name, and its venue, are recognised."""

    event: str | None = msgspec.field(name="e", default=None)
    symbol: str | None = msgspec.field(name="s", default=None)
    pair: str | None = msgspec.field(name="ps", default=None)
    previous_update: int | None = msgspec.field(name="pu", default=None)
    update: int | None = msgspec.field(name="u", default=None)
    ignored: bool | None = msgspec.field(name="M", default=None)
    kind: str | None = msgspec.field(name="type", default=None)


_wrapped = msgspec.json.Decoder(_Wrapped)
_told = msgspec.json.Decoder(_Told)


@dataclass(frozen=True)
class Recording:
    """`messages` in the order recorded; `skipped` malformed lines; `venue` None where the messages do not show it."""

    path: Path
    messages: tuple[Message, ...]
    skipped: int
    venue: Venue | None

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Raises InputError when the file cannot be read to its end or holds no message."""
        messages: list[Message] = []
        skipped = 0
        venue: Venue | None = None
        for number, line in enumerate(_lines(path), start=1):
            if head := _NOT_A_MESSAGE.match(line):
                venue = venue or _HOSTS.get(_host(head[1]))
                continue
            if not line.strip():
                continue
            message = parse_line(line)
            if message is None:
                skipped += 1
                if skipped <= _NAMED_SKIPS:
                    log.warning(f"malformed recording line skipped: {path}:{number}")
                continue
            messages.append(message)
        if skipped:
            log.warning(f"malformed recording lines skipped: {path}", skipped=skipped, messages=len(messages))
        if not messages:
            raise InputError(f"{path} holds no recorded message; lines read `local_receive_time_ns json`")
        return cls(path, tuple(messages), skipped, venue or _venue_of(messages))


def parse_line(line: bytes) -> Message | None:
    """One recorded message; None where the line is not one."""
    line = line.rstrip(b"\r\n")
    if match := _NANOSECONDS.match(line):
        time_ns = int(match[1])
    elif match := _SECONDS.match(line):
        # Digits, not a float: 1626916403.8469708 has more of them than a double keeps.
        time_ns = int(match[1]) * 1_000_000_000 + int((match[2] or b"0").ljust(9, b"0"))
    else:
        return None
    payload = line[match.end() :]
    try:
        if not payload.isascii():
            payload.decode()
        wrapped = _wrapped.decode(payload)
        body = bytes(wrapped.data)
        if wrapped.stream is not None and body:
            stream = wrapped.stream
        else:
            stream, body = _stream_of(payload), payload
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Message(time_ns, stream, body, find_times(body))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            while line := file.readline(_LINE_MAX_BYTES):
                yield line
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read the recording {path}: {reason}") from error


def _host(address: bytes) -> str:
    return re.split(rb"[:/?]", address, maxsplit=1)[0].decode(errors="replace").lower()


def _look(body: bytes) -> _Told | None:
    try:
        return _told.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _stream_of(body: bytes) -> str:
    """The stream name of a message recorded from a raw stream; empty where its fields do not tell."""
    told = _look(body)
    if told is None or told.symbol is None:
        return ""
    kind = {"depthUpdate": "depth", "24hrTicker": "ticker", "markPriceUpdate": "markPrice"}.get(
        told.event or "", told.event
    )
    if kind is None and told.update is not None:
        kind = "bookTicker"
    return f"{told.symbol.lower()}@{kind}" if kind else ""


def _venue_of(messages: list[Message]) -> Venue | None:
    """By the first field that only one venue has: `ps` COIN-M, `pu` futures, spot trades' `M`, Coinbase's `type`."""
    for message in messages[:1000]:
        told = _look(message.body)
        if told is None:
            continue
        if told.pair is not None:
            return Venue.COINM
        if told.previous_update is not None:
            return Venue.USDM
        if told.kind is not None and told.event is None:
            return Venue.COINBASE
        if told.event == "bookTicker":
            return Venue.USDM
        if told.ignored is not None or (told.event is None and told.update is not None and told.symbol is not None):
            return Venue.SPOT
    return None
