# SPDX-License-Identifier: Apache-2.0
"""Market data made up with the sizes, mix and bursts of a recorded USD-M feed, and valid sequence fields; endless.

The constants were fitted to 345 s of btcusdt bookTicker, trade and depth of 2024-08-08: 272 messages a second in
bursts (a gap above 0.1 ms ends one), whose lengths follow a power law; messages inside one are microseconds apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tickpath.errors import ConfigError
from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.message import Message, find_times

START_NS = 1_700_000_000_000_000_000
# Between the event and its reception, as on a well-set clock near the exchange.
_EXCHANGE_DELAY_NS = 2_000_000

# ln of nanoseconds: mean and standard deviation.
_GAP_INSIDE = (7.16, 0.95)
_GAP_BETWEEN = (14.97, 1.40)
# P(length > n) = n^-1.56; the longest recorded burst had 123 messages.
_BURST_EXPONENT = 1.56
_BURST_MAX = 300
# What a lone message is; inside a burst trades come in runs.
_LONE_KINDS, _LONE_WEIGHTS = ("bookTicker", "depth", "trade"), (0.727, 0.220, 0.053)
_NEXT_IN_BURST = {
    "bookTicker": (("bookTicker", "trade", "depth"), (0.873, 0.12, 0.007)),
    "trade": (("trade", "bookTicker", "depth"), (0.72, 0.273, 0.007)),
    "depth": (("bookTicker", "trade", "depth"), (0.873, 0.12, 0.007)),
}
# ln of bytes: most depth updates are around 900 bytes, one of ten comes from a tail up to tens of kilobytes.
_DEPTH_COMMON, _DEPTH_TAIL, _DEPTH_TAIL_SHARE = (6.85, 0.60), (8.50, 0.60), 0.10
_DEPTH_MAX_BYTES = 40_000
_LEVELS = 4096

_SYMBOLS = {Venue.USDM: "BTCUSDT", Venue.SPOT: "BTCUSDT", Venue.COINM: "BTCUSD_PERP"}


class Generator:
    """Iterating anew gives the same messages anew. Raises ConfigError for a venue whose messages it does not know."""

    def __init__(self, venue: Venue, seed: int) -> None:
        if venue not in _SYMBOLS:
            raise ConfigError(f"nothing is generated for the venue {venue.value}: give a recording with --replay")
        self.venue = venue
        self._seed = seed
        self._symbol = _SYMBOLS[venue]
        symbol = self._symbol.lower()
        self._names = {
            "bookTicker": f"{symbol}@bookTicker",
            "trade": f"{symbol}@trade",
            "depth": f"{symbol}@depth@100ms" if venue is Venue.SPOT else f"{symbol}@depth@0ms",
        }
        self.streams = frozenset(self._names.values())

    def __iter__(self) -> Iterator[Message]:
        chance = random.Random(self._seed)
        book = _Book(self.venue, self._symbol, chance)
        time_ns = START_NS
        while True:
            length = min(_BURST_MAX, int((1.0 - chance.random()) ** (-1 / _BURST_EXPONENT)))
            kind = chance.choices(_LONE_KINDS, _LONE_WEIGHTS)[0]
            if length > 1 and kind == "depth":
                kind = "bookTicker"
            for _ in range(length):
                body = book.message(kind, time_ns - _EXCHANGE_DELAY_NS)
                yield Message(time_ns, self._names[kind], body, find_times(body))
                time_ns += int(chance.lognormvariate(*_GAP_INSIDE))
                kind = chance.choices(*_NEXT_IN_BURST[kind])[0]
            time_ns += int(chance.lognormvariate(*_GAP_BETWEEN))


class _Book:
    """The state behind the messages: a price that wanders, and the counters that must not skip."""

    def __init__(self, venue: Venue, symbol: str, chance: random.Random) -> None:
        self._venue = venue
        self._symbol = symbol
        self._chance = chance
        self._tick = 618_000
        self._update = 5_000_000_000_000
        self._depth_update = self._update
        self._trade = 5_000_000_000
        self._levels = [f'["{self._price(level)}","{self._quantity()}"]' for level in range(_LEVELS)]

    def message(self, kind: str, event_ns: int) -> bytes:
        self._tick += self._chance.choice((-1, 0, 0, 0, 1))
        make = {"bookTicker": self._book_ticker, "trade": self._trade_event, "depth": self._depth}[kind]
        event_ms = event_ns // 1_000_000
        return make(event_ms, event_ms - self._chance.choice((0, 1, 1, 2, 8))).encode()

    def _price(self, above: int) -> str:
        places = "0000000" if self._venue is Venue.SPOT else "0"
        return f"{(self._tick + above) // 10}.{(self._tick + above) % 10}{places}"

    def _quantity(self) -> str:
        lots = int(self._chance.paretovariate(0.8))
        if self._venue is Venue.COINM:
            return str(min(lots, 99_999))
        whole, part = divmod(min(lots, 99_999), 1000)
        return f"{whole}.{part:03d}{'00000' if self._venue is Venue.SPOT else ''}"

    @property
    def _who(self) -> str:
        pair = ',"ps":"BTCUSD"' if self._venue is Venue.COINM else ""
        return f'"s":"{self._symbol}"{pair}'

    def _book_ticker(self, event_ms: int, transaction_ms: int) -> str:
        self._update += self._chance.randrange(1, 400)
        best = (
            f'"u":{self._update},{self._who},"b":"{self._price(0)}","B":"{self._quantity()}",'
            f'"a":"{self._price(1)}","A":"{self._quantity()}"'
        )
        if self._venue is Venue.SPOT:  # knows no event time
            return f"{{{best}}}"
        return f'{{"e":"bookTicker",{best},"T":{transaction_ms},"E":{event_ms}}}'

    def _trade_event(self, event_ms: int, transaction_ms: int) -> str:
        self._trade += 1
        maker = self._chance.choice(("true", "false"))
        bought = f'"t":{self._trade},"p":"{self._price(0)}","q":"{self._quantity()}"'
        if self._venue is Venue.SPOT:
            return f'{{"e":"trade","E":{event_ms},{self._who},{bought},"T":{transaction_ms},"m":{maker},"M":true}}'
        return f'{{"e":"trade","E":{event_ms},"T":{transaction_ms},{self._who},{bought},"X":"MARKET","m":{maker}}}'

    def _depth(self, event_ms: int, transaction_ms: int) -> str:
        shape = _DEPTH_TAIL if self._chance.random() < _DEPTH_TAIL_SHARE else _DEPTH_COMMON
        size_bytes = min(_DEPTH_MAX_BYTES, int(self._chance.lognormvariate(*shape)))
        levels = max(2, (size_bytes - 150) // (len(self._levels[0]) + 1))
        at = self._chance.randrange(_LEVELS - levels)
        half = at + levels // 2
        previous, self._update = self._depth_update, self._update + self._chance.randrange(1, 5000)
        self._depth_update = self._update
        bids, asks = ",".join(self._levels[at:half]), ",".join(self._levels[half : at + levels])
        if self._venue is Venue.SPOT:
            head = f'"E":{event_ms},{self._who},"U":{previous + 1},"u":{self._update}'
        else:
            head = (
                f'"E":{event_ms},"T":{transaction_ms},{self._who},"U":{previous + 1},"u":{self._update},"pu":{previous}'
            )
        return f'{{"e":"depthUpdate",{head},"b":[{bids}],"a":[{asks}]}}'
