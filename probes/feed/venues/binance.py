# SPDX-License-Identifier: Apache-2.0
"""Binance: USD-M futures, COIN-M futures and spot; URLs, event times, sequence rules, refusals."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from tickpath.errors import InputError
from tickpath.probes.feed.venues.venue import (
    RESOLUTION_MS,
    RESOLUTION_US,
    Address,
    Content,
    Reader,
    Subscription,
    text,
)

_STREAM = re.compile(r"^(?P<symbol>[^@]*)@(?P<event>[A-Za-z]+)(?P<level>\d*)")
# Events whose T is when the matching engine acted; elsewhere T means other things (markPrice: the next funding).
_TRANSACTION_EVENTS = frozenset({"trade", "aggTrade", "bookTicker", "depth", "rpiDepth"})
# An event time outside 2001..2262 is no time in the unit that the stream claims.
_EARLIEST_NS = 10**18
_LATEST_NS = 2**63 - 1
# Binance allows 1024 streams on a connection; a server that makes up names must not fill the memory.
_MOST_STREAMS = 4096

_CATEGORY = {"bookTicker": "public", "depth": "public", "rpiDepth": "public"}
_OTHERWISE = "market"

_REFUSALS = {
    403: "Binance's firewall refused this address, for too many connections or requests or a malformed one: wait five "
    "minutes before trying again",
    418: "Binance has banned this address for going on after 429: stop every client on it and wait",
    429: "Binance's rate limit (300 connections in five minutes from one address): slow down",
    451: "Binance does not serve the country that this address belongs to: run the probe elsewhere",
}


def _trade_gap(last: int | None, event: Any) -> tuple[int, str | None]:
    now = event[b"t"]
    return now, None if last is None or now == last + 1 else f"trade t={now} follows {last}"


def _spot_depth_gap(last: int | None, event: Any) -> tuple[int, str | None]:
    first = event[b"U"]
    return event[b"u"], None if last is None or first == last + 1 else f"depth U={first} follows u={last}"


def _futures_depth_gap(last: int | None, event: Any) -> tuple[int, str | None]:
    before = event[b"pu"]
    return event[b"u"], None if last is None or before == last else f"depth pu={before} follows u={last}"


_Rule = Callable[[int | None, Any], tuple[int, str | None]]


class _Stream:
    """What has been seen of one stream on this connection."""

    __slots__ = ("last", "rule", "topic", "transaction")

    def __init__(self, topic: str, event: str, rule: _Rule | None) -> None:
        self.topic = topic.encode()
        self.transaction = event in _TRANSACTION_EVENTS
        self.rule = rule
        self.last: int | None = None


class BinanceReader(Reader):
    """Messages of one connection, raw or combined."""

    def __init__(self, venue: str, streams: tuple[str, ...], unit_ns: int, depth_rule: _Rule) -> None:
        super().__init__(venue, RESOLUTION_US if unit_ns == 1000 else RESOLUTION_MS)
        self._venue = venue
        self._unknown = self.topic
        self._unit_ns = unit_ns
        self._depth_rule = depth_rule
        # Raw messages name no stream: two of the same symbol and event would share one sequence and look torn.
        self._ambiguous = {key for key, n in Counter(map(_key, streams)).items() if n > 1}
        self._sole = self._known(streams[0]) if len(streams) == 1 else None
        self._streams: dict[str, _Stream] = {}
        self._raw: dict[tuple[Any, Any], _Stream] = {}

    def read(self, payload: bytes) -> None:
        """Parse one message; ValueError where it is no JSON object, or a field is not of the kind it must be."""
        self.content = Content.EVENT
        self.exchange_ns = self.transaction_ns = self.gap = None
        self.topic = self._unknown
        try:
            document: Any = self.parser.parse(payload)
        except RuntimeError as error:
            raise self.unreadable(error) from None
        # Keys are bytes because simdjson would encode a str anew for each look-up.
        try:
            try:
                name = document[b"stream"]
                event = document[b"data"]
            except KeyError:
                self._read_raw(document)
                return
            stream = self._streams.get(name)
            if stream is None:
                stream = self._first_of(name)
            self._read_event(stream, event)
        except (TypeError, AttributeError):
            raise ValueError("no object, or a field that is not of its kind") from None

    def _read_raw(self, document: Any) -> None:
        kind = document.get(b"e")
        if kind is None:
            if b"id" in document and (b"result" in document or b"error" in document):
                self.content = Content.REPLY
                error = document.get(b"error")
                self.reply_error = None if error is None else text(error)
                return
            nested = document.get(b"event")
            if nested is not None and nested.get(b"e") == "serverShutdown":
                self.content = Content.SHUTDOWN
        elif kind == "serverShutdown":
            self.content = Content.SHUTDOWN
        stream = self._sole
        if stream is None:
            key = (document.get(b"s"), kind)
            stream = self._raw.get(key)
            if stream is None:
                stream = self._first_unnamed(*key)
        self._read_event(stream, document)

    def _read_event(self, stream: _Stream, event: Any) -> None:
        self.topic = stream.topic
        try:
            self.exchange_ns = self._time_ns(event[b"E"])
            if stream.transaction:
                self.transaction_ns = self._time_ns(event[b"T"])
        except KeyError:
            pass  # spot's bookTicker and partial depth carry no E, spot's diff depth no T
        if stream.rule is not None:
            last, stream.last = stream.last, None
            try:
                now, self.gap = stream.rule(last, event)
                # A proxy kept here would hold the parser.
                if now.__class__ is not int:
                    raise TypeError
                stream.last = now
            except KeyError:
                # A message without sequence numbers on a stream that has them.
                stream.last = last
                if event.get(b"e") == "serverShutdown":
                    self.content = Content.SHUTDOWN

    def _time_ns(self, at: Any) -> int:
        # Checked before it is multiplied: a string would become a million of it.
        if at.__class__ is int:
            time_ns: int = at * self._unit_ns
            if _EARLIEST_NS <= time_ns <= _LATEST_NS:
                return time_ns
        raise ValueError(f"{text(at)} is no time in the unit of this stream")

    def _known(self, name: str) -> _Stream:
        match = _STREAM.match(name)
        if match is None:
            return _Stream(f"{self._venue}/{name}", "", None)
        event = match["event"]
        rule: _Rule | None = None
        if event == "trade":
            rule = _trade_gap
        elif event == "depth" and not match["level"]:
            rule = self._depth_rule
        return _Stream(f"{self._venue}/{name}", event, rule)

    def _first_of(self, name: object) -> _Stream:
        if not isinstance(name, str):
            raise TypeError
        stream = self._known(name)
        if len(self._streams) < _MOST_STREAMS:
            self._streams[name] = stream
        return stream

    def _first_unnamed(self, symbol: object, kind: object) -> _Stream:
        if not isinstance(symbol, str | None) or not isinstance(kind, str | None):
            raise TypeError
        name = f"{(symbol or '').lower()}@{'depth' if kind == 'depthUpdate' else kind or 'unknown'}"
        stream = self._known(name)
        if _key(name) in self._ambiguous:
            stream.rule = None
        if len(self._raw) < _MOST_STREAMS:
            self._raw[symbol, kind] = stream
        return stream


def _key(stream: str) -> tuple[str, str]:
    match = _STREAM.match(stream)
    return (match["symbol"], match["event"]) if match else (stream, "")


@dataclass(frozen=True)
class _Binance:
    """What the three have in common: `/ws/<stream>[/<stream>…]` and `/stream?streams=<stream>/<stream>…`."""

    label: str
    hosts: frozenset[str]
    depth_rule: _Rule

    def resembles(self, address: Address) -> bool:
        """Whether the path has one of the two forms."""
        return bool(re.fullmatch(r"/(ws(/.*)?|stream)", address.path))

    def subscribe(self, address: Address, streams: tuple[str, ...]) -> Subscription:
        """InputError where the path is of another form or names no stream."""
        named = self._streams_of(address) + streams
        if not named:
            raise InputError(f"{address.url} names no stream: add one to the URL or with --subscribe")
        return Subscription(
            address=address,
            venue=self.label,
            streams=named,
            greetings=self._greetings(streams),
            reader=lambda: BinanceReader(self.label, named, self._unit_ns(address.query), self.depth_rule),
            refusal=_REFUSALS.get,
            warnings=tuple(filter(None, (self._misplaced(address, stream) for stream in named))),
        )

    def _prefix(self, address: Address) -> tuple[str, str]:
        return "", address.path

    def _unit_ns(self, _query: str) -> int:
        return 1_000_000

    def _misplaced(self, _address: Address, _stream: str) -> str | None:
        return None

    def _greetings(self, streams: tuple[str, ...]) -> tuple[str, ...]:
        return (json.dumps({"method": "SUBSCRIBE", "params": list(streams), "id": 1}),) if streams else ()

    def _streams_of(self, address: Address) -> tuple[str, ...]:
        prefix, path = self._prefix(address)
        if path == "/stream":
            listed = parse_qs(address.query).get("streams", [""])[0]
        elif path == "/ws" or path.startswith("/ws/"):
            listed = path.removeprefix("/ws").removeprefix("/")
        else:
            raise InputError(
                f"{address.url} has no path of {self.label}: {prefix}/ws/<stream> or "
                f"{prefix}/stream?streams=<stream>/<stream>"
            )
        # What is no market stream is a listen key, which opens an account: it goes into no record and no log.
        return tuple(s if "@" in s else "private" for s in listed.split("/") if s)


class BinanceSpot(_Binance):
    """Spot. `timeUnit=MICROSECOND` in the URL makes event times microseconds; bookTicker and depth<N> carry none."""

    def __init__(self) -> None:
        hosts = {"stream.binance.com", "data-stream.binance.vision", "stream.testnet.binance.vision"}
        super().__init__("binance-spot", frozenset(hosts), _spot_depth_gap)

    def _unit_ns(self, query: str) -> int:
        asked = {unit.upper() for unit in parse_qs(query).get("timeUnit", [])}
        return 1000 if "MICROSECOND" in asked else 1_000_000


class BinanceCoinM(_Binance):
    """COIN-M futures."""

    def __init__(self) -> None:
        super().__init__(
            "binance-coinm", frozenset({"dstream.binance.com", "dstream.binancefuture.com"}), _futures_depth_gap
        )

    def resembles(self, address: Address) -> bool:
        """As the others, and every symbol has COIN-M's underscore."""
        if not super().resembles(address):
            return False
        named = self._streams_of(address)
        return bool(named) and all("_" in stream.partition("@")[0] for stream in named)


class BinanceUsdM(_Binance):
    """USD-M futures: since 2026-04-23 the paths begin with /public, /market or /private, by kind of stream."""

    _NEW = re.compile(r"^/(public|market|private)(?=/|$)")
    _HOST = "fstream.binance.com"

    def __init__(self) -> None:
        super().__init__("binance-usdm", frozenset({self._HOST, "stream.binancefuture.com"}), _futures_depth_gap)

    def resembles(self, address: Address) -> bool:
        """Only the forms with a category: without one they are spot's too."""
        return bool(self._NEW.match(address.path))

    def _prefix(self, address: Address) -> tuple[str, str]:
        match = self._NEW.match(address.path)
        if match:
            return match[0], address.path[match.end() :]
        if address.host == self._HOST:
            if re.fullmatch(r"/(ws(/.*)?|stream)", address.path):
                raise InputError(f"{address.url} was retired on 2026-04-23: use {self._successors(address)}")
            return "/public|/market|/private", address.path
        return "", address.path

    def _successors(self, address: Address) -> str:
        combined = address.path == "/stream"
        listed = parse_qs(address.query).get("streams", [""])[0] if combined else address.path.removeprefix("/ws")
        by_category: dict[str, list[str]] = {}
        for stream in filter(None, listed.split("/")):
            by_category.setdefault(self._category(stream), []).append(stream)
        form = "/stream?streams=" if combined else "/ws/"
        urls = [f"wss://{self._HOST}/{category}{form}{'/'.join(s)}" for category, s in by_category.items()]
        if not urls:
            return f"wss://{self._HOST}/public{form}<stream> (bookTicker, depth) or /market{form}<stream> (all others)"
        return " and ".join(urls) + (", two feeds, for they need two connections" if len(urls) > 1 else "")

    @staticmethod
    def _category(stream: str) -> str:
        if "@" not in stream:
            return "private"
        return _CATEGORY.get(_key(stream)[1], _OTHERWISE)

    def _misplaced(self, address: Address, stream: str) -> str | None:
        match = self._NEW.match(address.path)
        if match is None or address.host != self._HOST or stream == "private" or self._category(stream) == match[1]:
            return None
        return f"{stream} is served under /{self._category(stream)}, not /{match[1]}: it may stay silent"
