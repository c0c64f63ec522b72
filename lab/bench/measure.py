# SPDX-License-Identifier: Apache-2.0
"""Repetition and its statistics: alternating pairs, medians, and how far to trust them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import comb


@dataclass(frozen=True)
class Interval:
    """A median and where it lies with a confidence of 95 % (of fewer than six values: their range)."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(self.median * factor, self.low * factor, self.high * factor)


def interval_of(values: Sequence[float]) -> Interval:
    """By order statistics: nothing is assumed of how the values are spread (binomial, p = 1/2)."""
    ordered = sorted(values)
    count = len(ordered)
    outside = 0
    left_out = 0
    for index in range((count - 1) // 2):
        outside += comb(count, index)
        if 2 * outside > 0.05 * 2**count:
            break
        left_out = index
    return Interval(statistics.median(ordered), ordered[left_out], ordered[count - 1 - left_out])


@dataclass(frozen=True)
class Effort:
    """How long to repeat: at least `least` times, until the interval is within `width` of the median, `budget_s` or
    `most` is used up."""

    least: int
    most: int
    budget_s: float
    width: float = 0.01

    def enough(self, values: Sequence[float], began_s: float) -> bool:
        """Whether these repetitions will do."""
        if len(values) < self.least:
            return False
        if len(values) >= self.most or time.monotonic() - began_s > self.budget_s:
            return True
        found = interval_of(values)
        return len(values) >= 6 and found.high - found.low <= 2 * self.width * abs(found.median)


@dataclass
class Pairs:
    """Two things measured in turn."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> Interval:
        """Of ours to theirs, pair by pair: what drifts with the host drops out."""
        return interval_of(self.ratios)


def alternate(
    ours: Callable[[], float],
    theirs: Callable[[], float],
    effort: Effort,
    before: Callable[[], object] = lambda: None,
) -> Pairs:
    """Measure both in turn, the order of a pair changing from one to the next; `before` prepares a pair."""
    pairs = Pairs()
    began_s = time.monotonic()
    while not effort.enough(pairs.ratios, began_s):
        before()
        if len(pairs.ours) % 2:
            pairs.theirs.append(theirs())
            pairs.ours.append(ours())
        else:
            pairs.ours.append(ours())
            pairs.theirs.append(theirs())
    return pairs


def repeat(measure: Callable[[], float], effort: Effort) -> list[float]:
    """Measure one thing again and again."""
    values: list[float] = []
    began_s = time.monotonic()
    while not effort.enough(values, began_s):
        values.append(measure())
    return values
