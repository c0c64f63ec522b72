# SPDX-License-Identifier: Apache-2.0
"""The shuttle's log as numpy sees it: one record per frame written, dropped or undeliverable, in that order."""

from __future__ import annotations

import mmap
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from tickpath.lab.shuttle import _record
from tickpath.lab.shuttle._record import frame_hash

__all__ = ["RECORD", "Direction", "Fate", "Log", "frame_hash", "has", "read_log"]

Log = npt.NDArray[Any]

RECORD = np.dtype(
    {
        "names": list(_record.RECORD),
        "formats": [text for _, text in _record.RECORD.values()],
        "offsets": [offset for offset, _ in _record.RECORD.values()],
        "itemsize": _record.RECORD_BYTES,
    }
)
"""A record; record.h says what each field means. Times are nanoseconds, addresses 16 raw bytes (IPv4 mapped).

The `before_` and `after_` times, on CLOCK_MONOTONIC and CLOCK_REALTIME, enclose the write to the far device.
"""


class Direction(IntEnum):
    """Which way a frame went."""

    TO_CLIENT = _record.DIRECTION["TO_CLIENT"]
    TO_SERVER = _record.DIRECTION["TO_SERVER"]


class Fate(IntFlag):
    """What became of a frame; several may hold, exactly one of FORWARDED, DROPPED, REFUSED and UNSENT does."""

    FORWARDED = _record.FATE["FORWARDED"]
    DROPPED = _record.FATE["DROPPED"]
    CORRUPTED = _record.FATE["CORRUPTED"]
    COPY = _record.FATE["COPY"]
    DELAYED = _record.FATE["DELAYED"]
    HELD = _record.FATE["HELD"]
    SWAPPED = _record.FATE["SWAPPED"]
    REFUSED = _record.FATE["REFUSED"]
    UNSENT = _record.FATE["UNSENT"]


def has(log: Log, fate: Fate) -> npt.NDArray[np.bool_]:
    """For each record whether all of `fate` holds."""
    return np.asarray(log["fate"] & int(fate) == int(fate))


def read_log(fd: int) -> Log:
    """The records that are complete by now, read-only, in the shuttle's own memory: they never change any more."""
    with mmap.mmap(fd, _record.HEADER_BYTES, access=mmap.ACCESS_READ) as header:
        count = int.from_bytes(header[:8], "little")
    if count == 0:
        return np.zeros(0, RECORD)
    memory = mmap.mmap(fd, _record.HEADER_BYTES + count * _record.RECORD_BYTES, access=mmap.ACCESS_READ)
    return np.frombuffer(memory, RECORD, count, offset=_record.HEADER_BYTES)
