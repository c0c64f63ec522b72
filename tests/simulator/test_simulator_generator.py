# SPDX-License-Identifier: Apache-2.0
"""Generated messages look like the recorded feed, and their sequence fields never skip."""

from __future__ import annotations

import itertools
import json

import pytest

from tickpath.errors import ConfigError
from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.generator import Generator
from tickpath.lab.simulator.message import Message

COUNT = 20_000


def _made(venue: Venue, seed: int = 1, count: int = COUNT) -> list[Message]:
    return list(itertools.islice(Generator(venue, seed), count))


def test_the_same_seed_makes_the_same_messages() -> None:
    assert _made(Venue.USDM, 5, 500) == _made(Venue.USDM, 5, 500)
    assert _made(Venue.USDM, 5, 500) != _made(Venue.USDM, 6, 500)


@pytest.mark.parametrize("venue", [Venue.USDM, Venue.COINM, Venue.SPOT])
def test_sequences_never_skip(venue: Venue) -> None:
    trade = depth = update = None
    for message in _made(venue, count=5000):
        event = json.loads(message.body)
        if "@trade" in message.stream:
            assert trade is None or event["t"] == trade + 1
            trade = event["t"]
            continue
        assert update is None or event["u"] > update
        update = event["u"]
        if "@depth" in message.stream:
            if venue is Venue.SPOT:
                assert depth is None or event["U"] == depth + 1
            else:
                assert depth is None or event["pu"] == depth
                assert event["U"] <= event["u"]
            depth = event["u"]
    assert trade is not None
    assert depth is not None


def test_spot_book_tickers_have_no_event_time() -> None:
    message = next(m for m in Generator(Venue.SPOT, 1) if m.stream.endswith("bookTicker"))
    assert message.times == ()
    assert "e" not in json.loads(message.body)


def test_sizes_and_bursts_are_those_of_the_recording() -> None:
    made = _made(Venue.USDM)
    sizes = sorted(len(message.body) for message in made)
    gaps = sorted(b.time_ns - a.time_ns for a, b in itertools.pairwise(made))
    assert sizes[COUNT // 2] < 200
    assert 1_500 < sizes[COUNT * 99 // 100] < 5_000
    assert 10_000 < sizes[-1] <= 40_200
    assert 1_000 < gaps[COUNT // 2] < 20_000  # within a burst
    assert 20_000_000 < gaps[COUNT * 99 // 100] < 100_000_000
    seconds = (made[-1].time_ns - made[0].time_ns) / 1e9
    assert 150 < COUNT / seconds < 450


def test_a_venue_that_cannot_be_generated_is_refused() -> None:
    with pytest.raises(ConfigError, match="--replay"):
        Generator(Venue.COINBASE, 1)
