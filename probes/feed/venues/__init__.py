# SPDX-License-Identifier: Apache-2.0
"""Venues: what each one's URLs, event times, sequence numbers and refusals mean; nothing about sockets or records."""

from __future__ import annotations

from tickpath.errors import ConfigError
from tickpath.probes.feed.venues.binance import BinanceCoinM, BinanceSpot, BinanceUsdM
from tickpath.probes.feed.venues.generic import Generic
from tickpath.probes.feed.venues.venue import Subscription, Venue, split_url

VENUES: dict[str, Venue] = {venue.label: venue for venue in (BinanceUsdM(), BinanceCoinM(), BinanceSpot(), Generic())}


def subscribe(url: str, venue: str | None = None, streams: tuple[str, ...] = ()) -> Subscription:
    """What `url` (and `streams`, asked for after connecting) brings, as its venue understands it.

    The venue is the one named, else the one whose host it is, else (a test server on another host) the one whose path
    forms it has. InputError: no WebSocket URL, or one that its venue does not serve; ConfigError: no such venue.
    """
    address = split_url(url)
    if venue is not None:
        if venue not in VENUES:
            raise ConfigError(f"no venue {venue!r}; there are {', '.join(sorted(VENUES))}")
        return VENUES[venue].subscribe(address, streams)
    for candidate in VENUES.values():
        if address.host in candidate.hosts:
            return candidate.subscribe(address, streams)
    return next(v for v in VENUES.values() if v.resembles(address)).subscribe(address, streams)
