# SPDX-License-Identifier: Apache-2.0
"""Clocks: bracketed readings, and their conversion to the one internal timeline, CLOCK_MONOTONIC nanoseconds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from time import monotonic_ns
from types import TracebackType
from typing import Any

import numpy as np

from tickpath import _clock
from tickpath.event import RECORD

__all__ = [
    "TRIES",
    "WANDER_PPB",
    "ClockStatus",
    "Converted",
    "Epoch",
    "LinearFit",
    "Reading",
    "StepEpochs",
    "StepWatch",
    "clock_records",
    "clock_status",
    "monotonic_ns",
    "read_realtime",
    "read_tai",
]

# Of eight brackets on an idle core the shortest is within a few nanoseconds of the shortest there can be.
TRIES = 8
WANDER_PPB = 100.0

_UNKNOWN_NS = (1 << 63) - 1
_AMBIGUOUS = 1
_UNCONFIRMED = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """A clock showed `time_ns` (a counter: its raw value) at some moment in [before_ns, after_ns], both monotonic."""

    time_ns: int
    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class Converted:
    """A stamp on another timeline: the true value lies in [time_ns - bound_ns, time_ns + bound_ns].

    ambiguous:   near a step, it may belong to either side; the bound covers both.
    unconfirmed: not between the first and the last reading, so extrapolated from the nearest.
    """

    time_ns: int
    bound_ns: int
    ambiguous: bool
    unconfirmed: bool

    @property
    def marked(self) -> bool:
        """Whether to keep it out of figures that must be exact."""
        return self.ambiguous or self.unconfirmed


@dataclass(frozen=True, slots=True)
class ClockStatus:
    """What adjtimex(2) says of UTC.

    max_error_ns is None while unsynchronised (or where adjtimex is forbidden); frequency is in units of 2^-16 ppm;
    tai_offset_s (TAI - UTC) is None while nobody has set it.
    """

    synchronised: bool
    max_error_ns: int | None
    frequency: int
    tai_offset_s: int | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One span between two steps: clock - monotonic lies in [lo_ns, hi_ns], known from from_ns until until_ns."""

    lo_ns: int
    hi_ns: int
    from_ns: int
    until_ns: int
    readings: int

    @property
    def offset_ns(self) -> int:
        """The middle of what the readings allow."""
        return (self.lo_ns + self.hi_ns) // 2

    @property
    def bound_ns(self) -> int:
        """How far the true offset can be from offset_ns."""
        return self.hi_ns - self.offset_ns


def read_realtime(tries: int = TRIES) -> Reading:
    """CLOCK_REALTIME between two readings of CLOCK_MONOTONIC, the shortest bracket of `tries`."""
    return Reading(*_clock.read_bracketed(time.CLOCK_REALTIME, tries))


def read_tai(tries: int = TRIES) -> Reading:
    """The same for CLOCK_TAI, which equals CLOCK_REALTIME while the kernel's TAI offset is not set."""
    return Reading(*_clock.read_bracketed(time.CLOCK_TAI, tries))


def clock_status() -> ClockStatus:
    """The kernel's own bound on UTC, and its TAI offset, now."""
    synchronised, max_error_ns, frequency, tai_offset_s = _clock.read_status()
    return ClockStatus(
        synchronised,
        None if max_error_ns == _UNKNOWN_NS else max_error_ns,
        frequency,
        tai_offset_s or None,
    )


def clock_records(watch: StepWatch | None = None, tries: int = TRIES) -> np.ndarray[Any, np.dtype[np.void]]:
    """Two CLOCK records, realtime and TAI, for a ring; flagged when `watch` saw the clock set since last asked."""
    out = np.zeros(2, RECORD)
    _clock.read_records(watch.fileno() if watch else -1, tries, out.view(np.uint8))
    return out


def _converted(time_ns: int, bound_ns: int, marks: int) -> Converted:
    return Converted(time_ns, bound_ns, bool(marks & _AMBIGUOUS), bool(marks & _UNCONFIRMED))


class StepEpochs:
    """Realtime (or TAI) against monotonic: one constant per step epoch, the last 64 kept (epochs.h: what is sure)."""

    def __init__(self) -> None:
        self._epochs = _clock.Epochs()

    def add(self, reading: Reading, set_since_ns: int | None = None) -> bool:
        """Takes a reading in any order; True when it shows that the clock was stepped.

        set_since_ns: a watch saw the clock set after this monotonic moment, so even a step too small to see counts.
        Raises OSError: EINVAL for a bracket that ends before it starts, ESTALE for a late reading that fits nothing.
        """
        if set_since_ns is None:
            return self._epochs.add(reading.time_ns, reading.before_ns, reading.after_ns)
        return self._epochs.add_after_set(reading.time_ns, reading.before_ns, reading.after_ns, set_since_ns)

    def add_record(self, record: np.ndarray[Any, np.dtype[np.void]], since_ns: int | None) -> tuple[bool, int]:
        """Takes one CLOCK record of a ring (an array of one): whether it shows a step, and the next since_ns.

        since_ns: what the same ring's record of this clock before gave, None for the first. Raises as add() does.
        """
        return self._epochs.add_record(record.view(np.uint8), since_ns)

    def to_monotonic(self, clock_ns: int) -> Converted:
        """The moment of a stamp of this clock. Raises OSError EAGAIN before the first reading."""
        return _converted(*self._epochs.to_monotonic(clock_ns))

    def from_monotonic(self, at_ns: int) -> Converted:
        """What this clock showed at a monotonic moment. Raises OSError EAGAIN before the first reading."""
        return _converted(*self._epochs.from_monotonic(at_ns))

    @property
    def steps(self) -> int:
        """Steps seen since the first reading."""
        return self._epochs.steps()

    @property
    def unplaced(self) -> int:
        """Late readings that fitted no epoch, or two, and were not used."""
        return self._epochs.unplaced()

    @property
    def evicted(self) -> int:
        """Epochs forgotten because more than 64 had begun."""
        return self._epochs.evicted()

    @property
    def history(self) -> list[Epoch]:
        """The epochs that are kept, oldest first; the last is the current one."""
        return [Epoch(*epoch) for epoch in self._epochs.history()]


class LinearFit:
    """A PHC's, TSC's or NIC's counter against monotonic: a line with hard bounds (fit.h says what is assumed).

    wander_ppb: how far the counter's rate may move from its constant while the last 64 readings are taken.
    """

    def __init__(self, wander_ppb: float = WANDER_PPB) -> None:
        self._fit = _clock.Fit(wander_ppb)

    def add(self, reading: Reading) -> bool:
        """Takes the next reading; True when it contradicts those before it, which are then forgotten.

        Raises OSError: EINVAL for a bracket that ends before it starts, ESTALE when it is not newer than the last.
        """
        return self._fit.add(reading.time_ns, reading.before_ns, reading.after_ns)

    def convert(self, counter: int) -> Converted:
        """The monotonic moment at which the counter showed `counter`.

        Raises OSError: EAGAIN with fewer than two readings, ENODATA when it may lie before a break, ERANGE when it is
        further away than 64 bits of nanoseconds.
        """
        return _converted(*self._fit.convert(counter))

    @property
    def readings(self) -> int:
        """Readings ever taken in."""
        return self._fit.state()[1]

    @property
    def breaks(self) -> int:
        """How often a reading contradicted those before it: the counter was stepped, reset, or changed its rate."""
        return self._fit.state()[2]

    @property
    def frequency_hz(self) -> float | None:
        """Ticks per second of monotonic time; None with fewer than two readings."""
        ns_per_tick = self._fit.state()[3]
        return 1e9 / ns_per_tick if ns_per_tick else None

    @property
    def frequency_bound_ppb(self) -> float | None:
        """How far the true frequency can be from frequency_hz, the wander included."""
        state = self._fit.state()
        return 1e9 * state[4] / state[3] if state[3] else None

    @property
    def residual_ns(self) -> float:
        """Root mean square distance of the brackets' middles from the line."""
        return self._fit.state()[5]


class StepWatch:
    """Tells at once that the realtime clock was set; its descriptor can stand in a poll set. Close it (or `with`)."""

    def __init__(self) -> None:
        self._fd = _clock.watch_open()

    def fileno(self) -> int:
        """Readable when the clock was set."""
        return self._fd

    def fired(self) -> bool:
        """Whether the clock was set since the last call; never blocks."""
        return _clock.watch_fired(self._fd)

    def close(self) -> None:
        """Closes the descriptor; twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> StepWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
