# SPDX-License-Identifier: Apache-2.0
"""Setting, stepping and tuning a PTP hardware clock, as whoever disciplines it does."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
# linux/timex.h
_ADJ_FREQUENCY, _ADJ_SETOFFSET, _ADJ_NANO = 0x0002, 0x0100, 0x2000
_TIMEX = struct.Struct("@I4xqqqqi4xqqqqq")
_TIMEX_BYTES = 208


def _adjust(index: int, modes: int, *, frequency: int = 0, seconds: int = 0, nanoseconds: int = 0) -> None:
    fd = os.open(f"/dev/ptp{index}", os.O_RDWR)
    try:
        raw = _TIMEX.pack(modes, 0, frequency, 0, 0, 0, 0, 0, 0, seconds, nanoseconds)
        timex = ctypes.create_string_buffer(raw, _TIMEX_BYTES)
        # Of a descriptor its dynamic clock (man 2 clock_gettime).
        if _libc.clock_adjtime((~fd << 3) | 3, timex) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def step(index: int, by_ns: int) -> None:
    """Set it ahead (or back) by that much."""
    seconds, nanoseconds = divmod(by_ns, 10**9)
    _adjust(index, _ADJ_SETOFFSET | _ADJ_NANO, seconds=seconds, nanoseconds=nanoseconds)


def tune(index: int, ppb: float) -> None:
    """Have it run faster (or slower) by that much than it would by itself."""
    _adjust(index, _ADJ_FREQUENCY, frequency=round(ppb * 65536 / 1000))
