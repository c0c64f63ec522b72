# SPDX-License-Identifier: Apache-2.0
"""A NIC's own clock: reading it against CLOCK_MONOTONIC, how often that may be done, and which time it keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

import numpy as np

from tickpath import _clock
from tickpath.clock import Reading
from tickpath.event import RECORD

MOST = 64
"""Clocks that a record can name: indices below this."""

# No offset of TAI was ever below 10 s, and none beyond 60 is in sight.
_TAI_S = range(10, 61)
_NEAR_NS = 400_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a clock is read: `samples` reads of the device each time, and at least `every_ns` between the times."""

    samples: int
    every_ns: int


_PACE = Pace(4, 20_000_000)
# ENA blocks beyond 125 reads a second (its driver's documentation): a third of that, for others read it too.
_PACES = {"ena": Pace(3, 80_000_000)}


def pace(driver: str) -> Pace:
    """What the clock of a NIC of that driver stands."""
    return _PACES.get(driver, _PACE)


class Scale(Enum):
    """Which time a clock keeps, as far as the host's own realtime clock tells."""

    UTC = "UTC"
    TAI = "TAI"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Kept:
    """offset_ns: the clock minus what its scale's clock of this host shows; of a free one, minus realtime.

    tai_s: TAI - UTC as the clock shows it, whole seconds; None where it is not TAI.
    """

    scale: Scale
    offset_ns: int
    tai_s: int | None = None


def kept(minus_realtime_ns: int, tai_offset_s: int | None) -> Kept:
    """What a clock keeps that is so far from the realtime clock; tai_offset_s: as the kernel holds it, or None."""
    whole_s = (minus_realtime_ns + 500_000_000) // 1_000_000_000
    rest_ns = minus_realtime_ns - whole_s * 1_000_000_000
    if abs(rest_ns) < _NEAR_NS:
        if whole_s == 0:
            return Kept(Scale.UTC, rest_ns)
        if whole_s == tai_offset_s or (not tai_offset_s and whole_s in _TAI_S):
            return Kept(Scale.TAI, rest_ns, whole_s)
    return Kept(Scale.FREE, minus_realtime_ns)


def path(index: int) -> Path:
    """The clock's device file."""
    return Path(f"/dev/ptp{index}")


def readable(index: int) -> str:
    """Empty, or why its clock cannot be read here, with the remedy."""
    if index >= MOST:
        return f"PHC {index} has no number in a record: they hold {MOST}"
    if not path(index).exists():
        return f"{path(index)} is not here: in a container, add it under devices"
    if not os.access(path(index), os.R_OK):
        return f"{path(index)} cannot be read: run as root, or give this user the right to read it (udev)"
    return ""


class Phc:
    """A PTP hardware clock, open. Raises OSError: ENOENT, EACCES, ENODEV. Close it (or `with`)."""

    def __init__(self, index: int, samples: int = _PACE.samples) -> None:
        self._phc = _clock.Phc(str(path(index)), index, samples)

    def record(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """One reading as a CLOCK record for a ring, an array of one. Raises OSError EBUSY and the like."""
        out = np.zeros(1, RECORD)
        self._phc.record(out.view(np.uint8))
        return out

    def read(self) -> Reading:
        """One reading, the shortest bracket of the samples. Raises as record() does."""
        record = self.record()[0]
        reading = record["reading"]
        return Reading(int(record["time_ns"]), int(reading["before_ns"]), int(reading["after_ns"]))

    @property
    def way(self) -> str:
        """How it was read last: precise, extended (with monotonic brackets), extended, basic."""
        return self._phc.way()

    def close(self) -> None:
        """Twice is harmless."""
        self._phc.close()

    def __enter__(self) -> Phc:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
