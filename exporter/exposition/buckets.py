# SPDX-License-Identifier: Apache-2.0
"""Classic histogram buckets: few thresholds at which the counts are exact."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from tickpath.histogram import SCHEMA, Histogram, bucket_index

# Every second power of two seconds from 2^-20 (0.95 us) to 2^4 (16 s). Powers of two are bounds of the schema-4
# buckets, and of every coarser native schema, so that a count at such a threshold is a sum of whole buckets; a round
# 1 us or 5 ms lies inside a bucket, and its count would be a guess by up to one bucket.
_EXPONENTS = range(-20, 5, 2)
_INDICES = tuple(exponent << SCHEMA for exponent in _EXPONENTS)

FEW: tuple[tuple[int, float], ...] = tuple((exponent << SCHEMA, 2.0**exponent) for exponent in _EXPONENTS[1::2])
"""Index of the native bucket and bound in seconds of those that stand beside native ones: every second, +Inf not."""

BOUNDS: tuple[str, ...] = (*(repr(2.0**exponent) for exponent in _EXPONENTS), "+Inf")
"""The `le` of every classic bucket, in seconds, ascending."""


@dataclass(slots=True)
class Classic:
    """One side of a signed histogram, in the classic form.

    `cumulative[i]` counts the values of at most BOUNDS[i], `sum_ns` is their exact sum.
    """

    cumulative: list[int]
    sum_ns: int

    @property
    def count(self) -> int:
        """All values of this side."""
        return self.cumulative[-1]


def bound_of(magnitude_ns: int) -> str:
    """The `le` of the first classic bucket that holds a magnitude."""
    at = 0 if magnitude_ns == 0 else bisect_left(_INDICES, bucket_index(magnitude_ns))
    return BOUNDS[at]


def _cumulative(smallest: int, buckets: list[tuple[int, int]]) -> list[int]:
    """`smallest`: how many are below every bucket; `buckets`: (index, count), ascending."""
    counts = []
    total = smallest
    at = 0
    for index in _INDICES:
        while at < len(buckets) and buckets[at][0] <= index:
            total += buckets[at][1]
            at += 1
        counts.append(total)
    counts.append(total + sum(count for _, count in buckets[at:]))
    return counts


def split(histogram: Histogram) -> tuple[Classic, Classic]:
    """The values from 0 up, and the magnitudes of the negative ones."""
    negative, zero, positive = histogram.buckets()
    below_ns = histogram.negative_sum_ns
    return (
        Classic(_cumulative(zero, positive), histogram.sum_ns - below_ns),
        Classic(_cumulative(0, negative), -below_ns),
    )
