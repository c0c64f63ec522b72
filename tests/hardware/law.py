# SPDX-License-Identifier: Apache-2.0
"""What the clock of a NIC truly showed when: a line of the monotonic clock, in pieces, and its inverse.

Exact: integers, as the guest's module (tests/vm/hwts) computes it and tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

SCALE = 65536 * 10**6


@dataclass
class Piece:
    """From the monotonic moment from_ns on the clock shows phc_ns + d + d * scaled_ppm / SCALE, d later; rounded down.

    until_ns: the next piece begins.
    """

    from_ns: int
    phc_ns: int
    scaled_ppm: int
    until_ns: int

    @cached_property
    def last_ns(self) -> int:
        """More than it ever showed."""
        return self.at(self.until_ns) + 4

    def at(self, mono_ns: int) -> int:
        """What it showed."""
        elapsed = mono_ns - self.from_ns
        size = elapsed * abs(self.scaled_ppm) // SCALE
        return self.phc_ns + elapsed + (size if self.scaled_ppm >= 0 else -size - 1)

    def when(self, phc_ns: int) -> int | None:
        """The moment at which it showed that, to 2 ns; None where this piece never did."""
        if not self.phc_ns - 2 <= phc_ns <= self.last_ns:
            return None
        elapsed = (phc_ns - self.phc_ns) * SCALE // (SCALE + self.scaled_ppm)
        mono_ns = self.from_ns + elapsed
        # Two nanoseconds are what rounding hides.
        return mono_ns if self.from_ns - 2 <= mono_ns <= self.until_ns + 2 else None


class Law:
    """All pieces of one clock."""

    def __init__(self, said: str) -> None:
        rows = [tuple(map(int, line.split())) for line in said.splitlines()]
        ends = [row[0] for row in rows[1:]] + [2**62]
        self.pieces = [Piece(*row, until) for row, until in zip(rows, ends, strict=True)]

    def at(self, mono_ns: int) -> int:
        """What the clock showed."""
        return next(piece for piece in reversed(self.pieces) if piece.from_ns <= mono_ns).at(mono_ns)

    def when(self, phc_ns: int) -> list[int]:
        """All moments at which it showed that: several where it was set back."""
        return [moment for piece in self.pieces if (moment := piece.when(phc_ns)) is not None]
