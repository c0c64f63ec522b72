# SPDX-License-Identifier: Apache-2.0
"""What one connection has subscribed to, the JSON requests that change it, and which messages that selects.

A requested name selects recorded streams, without regard to case, by the first of these rules that finds any:
1. the same name;
2. the same symbol and kind, whatever the update speed (`btcusdt@depth` selects `btcusdt@depth@0ms`);
3. where the recording has a single symbol, the same kind: a recording of btcusdt serves every symbol asked for.
A message without a stream name (Coinbase's; a snapshot among Binance's) goes to every connection that has subscribed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tickpath.lab.simulator.address import Address, usdm_class_of

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class _RequestError(Exception):
    def __init__(self, code: int, text: str, request_id: object = None) -> None:
        super().__init__(text)
        self.reply = msgspec.json.encode({"error": {"code": code, "msg": text}, "id": request_id})


class Subscription:
    """Of one connection; `known` are the stream names that can be sent."""

    def __init__(self, address: Address, known: Iterable[str]) -> None:
        self.combined = address.combined
        self.names: list[str] = list(address.streams)
        # Coinbase's subscribe names products and channels; its messages carry no stream name to select by.
        self.everything = False
        self.changes = 0
        """Requests that were carried out: as long as it stays, so does what is selected and how it is wrapped."""
        self._class = address.usdm_class
        self._known = {name: _parts(name) for name in known}
        self._selected: frozenset[str] = frozenset()
        self._select()

    @property
    def active(self) -> bool:
        """Whether anything is subscribed."""
        return bool(self.names) or self.everything

    def selects(self, stream: str) -> bool:
        """Whether a message of this recorded stream (empty: of none) is sent."""
        return stream in self._selected or self.everything or (not stream and self.active)

    def unserved(self) -> list[str]:
        """The requested names that select nothing."""
        return [name for name in self.names if not self._find(name)]

    def request(self, text: str | bytes) -> bytes | None:
        """Carry out a JSON request; returns the reply, None where the venue gives none (Coinbase's subscribe)."""
        try:
            return self._request(text)
        except _RequestError as error:
            return error.reply

    def _request(self, text: str | bytes) -> bytes | None:
        try:
            asked = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _RequestError(3, f"Invalid JSON: {error}") from None
        self.changes += 1
        if not isinstance(asked, dict):
            raise _RequestError(2, "Invalid request: it must be a JSON object")
        if asked.get("type") in ("subscribe", "unsubscribe"):
            self.everything = asked["type"] == "subscribe"
            return None
        request_id = asked.get("id")
        if "method" not in asked:
            raise _RequestError(2, "Invalid request: missing field `method`", request_id)
        method = asked["method"]
        if method not in METHODS:
            named = ", ".join(f"`{known}`" for known in METHODS)
            raise _RequestError(2, f"Invalid request: unknown variant `{method}`, expected one of {named}", request_id)
        # Spot takes strings as well as unsigned integers; futures the latter alone.
        if (
            isinstance(request_id, bool)
            or not isinstance(request_id, int | str)
            or (isinstance(request_id, int) and request_id < 0)
        ):
            raise _RequestError(2, "Invalid request: request ID must be an unsigned integer", None)
        result = self._carry_out(method, asked.get("params"), request_id)
        return msgspec.json.encode({"result": result, "id": request_id})

    def _carry_out(self, method: str, params: object, request_id: object) -> object:
        match method, params:
            case "LIST_SUBSCRIPTIONS", _:
                return self.names
            case "GET_PROPERTY", ["combined"]:
                return self.combined
            case "SET_PROPERTY", ["combined", bool(value)]:
                self.combined = value
                return None
            case "SET_PROPERTY", ["combined", _]:
                raise _RequestError(1, "Invalid value type: expected Boolean", request_id)
            case (("GET_PROPERTY" | "SET_PROPERTY"), [str(), *_]):
                raise _RequestError(0, "Unknown property", request_id)
            case (("GET_PROPERTY" | "SET_PROPERTY"), _):
                raise _RequestError(2, "Invalid request: property name must be a string", request_id)
            case _, [*names] if names and all(isinstance(name, str) for name in names):
                self._change(method, [str(name) for name in names])
                return None
        raise _RequestError(2, "Invalid request: params must be a list of stream names", request_id)

    def _change(self, method: str, names: list[str]) -> None:
        if method == "SUBSCRIBE":
            self.names += [name for name in dict.fromkeys(names) if name not in self.names]
        else:
            self.names = [name for name in self.names if name not in names]
        self._select()

    def _select(self) -> None:
        self._selected = frozenset(stream for name in self.names for stream in self._find(name))

    def _find(self, name: str) -> set[str]:
        if self._class and usdm_class_of(name) != self._class:
            return set()
        symbol, kind, speed = _parts(name)
        same_kind = {stream for stream, parts in self._known.items() if parts[1] == kind}
        exact = {stream for stream in same_kind if self._known[stream] == (symbol, kind, speed)}
        if exact:
            return exact
        same_symbol = {stream for stream in same_kind if self._known[stream][0] == symbol}
        if same_symbol:
            return same_symbol
        return same_kind if len({parts[0] for parts in self._known.values()}) == 1 else set()


def _parts(name: str) -> tuple[str, str, str]:
    symbol, _, rest = name.lower().partition("@")
    kind, _, speed = rest.partition("@")
    return symbol, kind, speed
