# SPDX-License-Identifier: Apache-2.0
"""What all connections of a simulator share: the messages, the pace, the log, the sign to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic_ns

from tickpath.lab.simulator.config import SimulatorConfig, Venue
from tickpath.lab.simulator.message import Message
from tickpath.lab.simulator.truth import TruthLog

# Spot pings every 20 s, futures every 3 min; Coinbase leaves it to the client.
PING_INTERVAL_NS = {
    Venue.SPOT: 20_000_000_000,
    Venue.USDM: 180_000_000_000,
    Venue.COINM: 180_000_000_000,
    Venue.COINBASE: 180_000_000_000,
}


class Pace:
    """When a message is planned: the recording's gaps over the speed, from an origin on the monotonic clock."""

    def __init__(self, speed: Fraction | None, first_ns: int) -> None:
        self._speed = speed
        self._first_ns = first_ns
        self._origin_ns: int | None = None
        self._lock = threading.Lock()

    def start(self) -> int:
        """Set the origin to now unless it is set; returns now."""
        with self._lock:
            now_ns = monotonic_ns()
            if self._origin_ns is None:
                self._origin_ns = now_ns
            return now_ns

    def planned_ns(self, recorded_ns: int) -> int | None:
        """Monotonic; None: at once, whenever that is."""
        if self._speed is None or self._origin_ns is None:
            return None
        gap_ns = (recorded_ns - self._first_ns) * self._speed.denominator // self._speed.numerator
        return self._origin_ns + gap_ns


@dataclass
class Playback:
    """`messages` makes the whole sequence anew; `streams` are the names in it; `stop_fd` turns readable on the stop."""

    config: SimulatorConfig
    venue: Venue
    streams: frozenset[str]
    first_ns: int
    messages: Callable[[], Iterator[Message]]
    truth: TruthLog
    stop_fd: int
    subscribed: threading.Event = field(default_factory=threading.Event)
    """Set at the first subscription of all."""

    def __post_init__(self) -> None:
        self._shared = Pace(self.config.speed, self.first_ns) if self.config.shared_clock else None

    def pace(self) -> Pace:
        """The pace of a new connection: its own, or everybody's."""
        return self._shared or Pace(self.config.speed, self.first_ns)

    @property
    def ping_interval_ns(self) -> int:
        return self.config.ping_interval_ns or PING_INTERVAL_NS[self.venue]
