# SPDX-License-Identifier: Apache-2.0
"""Types of the native module; the public names are in tickpath.exporter.correlator."""

from pathlib import Path
from typing import Any, TypedDict, final

import numpy as np
import numpy.typing as npt

from tickpath.histogram import Histogram

LEGS: dict[str, int]
METHODS: dict[str, int]
REASONS: dict[str, int]
PING_WAYS: dict[str, int]
STAMPS: dict[str, int]
JOINED_BYTES: int
JOINED: dict[str, tuple[int, str]]

class LabelView(TypedDict):
    venue: str
    feed: str
    messages: int
    matched: dict[tuple[int, int, int], int]
    unmatched: dict[int, int]
    missing: dict[tuple[int, int], int]
    negative: dict[int, int]
    hol_blocked: int
    retransmitted: int
    reordered: int
    merged: int
    ordinal_gaps: int

class RingView(TypedDict):
    ring: int
    alive: bool
    stopped: bool
    lost: int
    skipped: int
    cursor: int
    name: str
    kind: str
    counters: dict[int, int]

class ClockView(TypedDict):
    clock: int
    device: int
    steps: int
    offset_ns: int
    bound_ns: int
    max_error_ns: int

class PingView(TypedDict):
    target: str
    proto: int
    results: list[int]
    no_stamp: int
    disbelieved: int
    unsplit: list[int]
    split_bound_ns: int

@final
class CorrelatorCore:
    def __init__(
        self,
        *,
        window_ns: int,
        match: int,
        max_connections: int,
        max_segments: int,
        max_pending: int,
        max_labels: int,
        max_series: int,
        joined_capacity: int,
        memory_bytes: int,
        read_clock: bool,
    ) -> None: ...
    @property
    def paths(self) -> dict[int, Path]: ...
    def attach(self, path: Path, from_start: bool) -> int: ...
    def detach(self, ring: int) -> None: ...
    def alive(self, ring: int) -> bool: ...
    def inode(self, ring: int) -> int: ...
    def poll(self, now_ns: int) -> int: ...
    def start(self, busy_ns: int, idle_ns: int, behind_records: int) -> None: ...
    def stop(self) -> None: ...
    def polls(self) -> tuple[int, Histogram] | None: ...
    def flush(self, now_ns: int) -> None: ...
    def joined(self, out: Any) -> int: ...
    def view(
        self,
    ) -> tuple[
        list[LabelView],
        list[tuple[int, int, int, Histogram, list[tuple[int, int, int, int]]]],
        list[RingView],
        list[ClockView],
        dict[str, int],
        tuple[list[int], list[Histogram]],
        tuple[list[PingView], list[tuple[int, int, int, Histogram]]],
        dict[int, int],
    ]: ...

class Timeline:
    """The correlator's clocks alone: what a stamp comes to after the readings before it."""

    def place(
        self,
        ring: int,
        records: npt.NDArray[np.uint8],
        times_ns: npt.NDArray[np.int64],
        bounds_ns: npt.NDArray[np.int64],
        errors: npt.NDArray[np.int64],
    ) -> None:
        """Take the records of a ring (as bytes) in their order: CLOCK readings, and SEGMENTs, each by those before it.

        Of a segment: its time and bound, and 0, or EAGAIN (no readings of that clock), or ERANGE (near a step of it).
        """
