# SPDX-License-Identifier: Apache-2.0
"""Types of the native module; tickpath.exporter.exposition.protobuf is its only user."""

from collections.abc import Iterable, Sequence
from typing import final

from tickpath.histogram import Histogram

COUNTER: int
GAUGE: int
UNTYPED: int

_Labels = Iterable[tuple[str, str]]

@final
class Writer:
    """Families one after the other. `created_ns` is since 1970; below 0: left out. Labels are UTF-8 text."""

    def __init__(self, thresholds: Sequence[tuple[int, float]] = ()) -> None:
        """`thresholds`: the classic buckets of every histogram, ascending: index of the native bucket, bound in s."""

    def numbers(
        self, name: str, meaning: str, kind: int, unit: str, created_ns: int, values: Iterable[tuple[_Labels, float]]
    ) -> None:
        """A family of counters, gauges or untyped values."""

    def histograms(
        self,
        name: str,
        meaning: str,
        unit: str,
        created_ns: int,
        values: Iterable[tuple[_Labels, Histogram, Iterable[tuple[_Labels, int, int]]]],
    ) -> None:
        """A family of histograms in seconds; exemplars are labels, value in ns, time in ns since 1970."""

    def bytes(self) -> bytes:
        """Return what was written. Raises MemoryError when there was no room for some of it."""
