# SPDX-License-Identifier: Apache-2.0
"""Types of the native module; every function raises OSError with the errno that the C function returned."""

import numpy as np
from numpy.typing import NDArray

def read_bracketed(clock_id: int, tries: int) -> tuple[int, int, int]:
    """(time_ns, before_ns, after_ns) of the reading with the shortest bracket."""

def read_status() -> tuple[bool, int, int, int]:
    """(synchronised, max_error_ns, frequency in 2^-16 ppm, tai_offset_s) as adjtimex says; never fails."""

def read_records(watch_fd: int, tries: int, out: NDArray[np.uint8]) -> None:
    """Two 64-byte CLOCK records, realtime and TAI, into a writable buffer of 128 bytes."""

def watch_open() -> int:
    """A timerfd that is readable once the realtime clock was set; the caller closes it."""

def watch_fired(fd: int) -> bool:
    """Whether the clock was set since the last call."""

class Epochs:
    """struct tp_epochs; conversions give (time_ns, bound_ns, marks)."""

    def add(self, time_ns: int, before_ns: int, after_ns: int) -> bool: ...
    def add_after_set(self, time_ns: int, before_ns: int, after_ns: int, since_ns: int) -> bool: ...
    def add_record(self, record: NDArray[np.uint8], since_ns: int | None) -> tuple[bool, int]: ...
    def to_monotonic(self, clock_ns: int) -> tuple[int, int, int]: ...
    def from_monotonic(self, monotonic_ns: int) -> tuple[int, int, int]: ...
    def steps(self) -> int: ...
    def unplaced(self) -> int: ...
    def evicted(self) -> int: ...
    def history(self) -> list[tuple[int, int, int, int, int]]:
        """(lo_ns, hi_ns, from_ns, until_ns, readings) per epoch, oldest first."""

class Fit:
    """struct tp_fit."""

    def __init__(self, wander_ppb: float) -> None: ...
    def add(self, counter: int, before_ns: int, after_ns: int) -> bool: ...
    def convert(self, counter: int) -> tuple[int, int, int]: ...
    def state(self) -> tuple[int, int, int, float, float, float]:
        """(kept, readings, breaks, ns per tick, its half-range, residual_ns)."""

PHC_WAYS: tuple[str, ...]
PHC_MAX_SAMPLES: int
PHC_ANSWER_BYTES: tuple[int, ...]
"""Size of the kernel's answer by way, in the order of PHC_WAYS."""

class Phc:
    """struct tp_phc."""

    def __init__(self, path: str, index: int, samples: int) -> None: ...
    def record(self, out: NDArray[np.uint8]) -> None:
        """One 64-byte CLOCK record into a writable buffer."""
    def way(self) -> str: ...
    def close(self) -> None: ...

def phc_answer(
    way: int, answer: bytes | bytearray, samples: int, offset: tuple[int, int] | None
) -> tuple[int, int, int]: ...
def phc_offset(before: tuple[int, int, int], after: tuple[int, int, int]) -> tuple[int, int]: ...
