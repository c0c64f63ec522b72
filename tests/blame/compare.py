# SPDX-License-Identifier: Apache-2.0
"""What a stall moved: each part's median with and without it, and the interval of their ratio by paired blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blame.sender import stalled
from tickpath.exporter.correlator import Leg

PARTS = (
    Leg.BN_TO_NIC,
    Leg.HOL_WAIT,
    Leg.STACK,
    Leg.APP_BUSY,
    Leg.WAKE,
    Leg.BACKLOG,
    Leg.DECODE,
    Leg.CPU,
    Leg.MSK,
)
"""The five hops, the two in the middle by their parts: they add up to the total."""
_BLOCKS = 40
_DRAWS = 2000
_SHARE = 0.05
_LEAK = 0.05


@dataclass(frozen=True)
class Moved:
    """One part. `low` and `high` bound the ratio on/off with 99 %."""

    part: Leg
    off_ns: float
    on_ns: float
    low: float
    high: float

    def has(self, stall_ns: int) -> bool:
        """Whether the part has the stall, all of it; a switch of tasks may make it longer, never shorter."""
        return self.on_ns - self.off_ns >= 0.8 * stall_ns

    def stays(self, stall_ns: int) -> bool:
        """Nothing contradicts that the medians are within 5 % of each other, or one took 5 % of the stall at most.

        The latter for parts of a few microseconds: what ran before them is that much colder in the caches.
        """
        if abs(self.on_ns - self.off_ns) <= _LEAK * stall_ns:
            return True
        return self.low <= 1 + _SHARE and self.high >= 1 - _SHARE


def _ratio(off: Any, on: Any) -> tuple[float, float]:
    """By the medians of blocks of neighbours, which the host's other work befalls alike."""
    blocks = [
        (float(np.median(a)), float(np.median(b)))
        for a, b in zip(np.array_split(off, _BLOCKS), np.array_split(on, _BLOCKS), strict=True)
    ]
    ratios = np.array([max(b, 1.0) / max(a, 1.0) for a, b in blocks])
    drawn = np.random.default_rng(1).choice(ratios, (_DRAWS, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (0.5, 99.5))
    return float(low), float(high)


def compare(joined: Any) -> list[Moved]:
    """Of the results of one connection: those of which `stalled` says so were stalled."""
    whole = [(joined["legs"] >> int(part)) & 1 for part in PARTS]
    there = np.logical_and.reduce([legs.astype(bool) for legs in whole])
    joined = joined[there]
    at = np.array([stalled(number) for number in joined["ordinal"].tolist()], bool)
    normal, slow = joined[~at], joined[at]
    # Pairs of neighbours that are both there; the first ones wait for what the handshake left behind.
    _, first, second = np.intersect1d(normal["ordinal"] // 2, slow["ordinal"] // 2, return_indices=True)
    off, on = normal[first[10:]]["leg_ns"], slow[second[10:]]["leg_ns"]
    return [
        Moved(part, float(np.median(off[:, part])), float(np.median(on[:, part])), *_ratio(off[:, part], on[:, part]))
        for part in PARTS
    ]
