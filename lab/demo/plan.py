# SPDX-License-Identifier: Apache-2.0
"""Which feeds the demo runs: one for each URL that a client of the venue would need for the streams that are played."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tickpath.lab.simulator.address import usdm_class_of
from tickpath.lab.simulator.config import Venue


@dataclass(frozen=True)
class PlannedFeed:
    """`name` names feed and ring, `target` is the URL's path and query."""

    name: str
    target: str


def planned_feeds(venue: Venue, streams: Iterable[str]) -> list[PlannedFeed]:
    """The feeds for these stream names. USD-M futures serve depth and trades of one symbol on different paths."""
    names = sorted(set(streams))
    if venue is Venue.COINBASE:
        return [PlannedFeed("coinbase", "/")]
    if venue is not Venue.USDM:
        return [PlannedFeed(venue.value, f"/stream?streams={'/'.join(names)}")]
    by_class: dict[str, list[str]] = {}
    for name in names:
        by_class.setdefault(usdm_class_of(name), []).append(name)
    return [
        PlannedFeed(f"{venue.value}-{usdm_class}", f"/{usdm_class}/stream?streams={'/'.join(members)}")
        for usdm_class, members in sorted(by_class.items())
    ]
