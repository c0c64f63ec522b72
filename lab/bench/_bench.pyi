# SPDX-License-Identifier: Apache-2.0
"""The bench's loops in C, for Python."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickpath.histogram import Histogram

class Passed(NamedTuple):
    """What one run of a writer process and a reader process came to.

    `wrong`: records whose words do not belong together. `elapsed_ns`: from the first record written until the last was
    read. `preempted`: involuntary switches of the two. `real_time`: SCHED_FIFO was asked for and granted to both.
    """

    written: int
    received: int
    lost: int
    wrong: int
    elapsed_ns: int
    preempted: int
    real_time: bool

def pass_records(
    file: Path | None,
    *,
    capacity: int,
    duration_ns: int,
    rate: int,
    writer_cpu: int,
    reader_cpu: int,
    restless: bool,
    real_time: bool,
) -> Passed:
    """Pass records from a new process to this one, through the ring `file`, or where it is None through the barest
    array of lines that can pass them. `rate` in records a second, 0: as fast as it goes. A CPU of -1: any.
    `restless`: the reader asks again at once when it found nothing. RingError where ring or process cannot be had.
    """

def clock_ns(count: int) -> float:
    """CPU ns of one clock_gettime(CLOCK_MONOTONIC), over `count` of them."""

def observe_ns(histogram: Histogram, values_ns: npt.NDArray[np.int64], rounds: int) -> float:
    """CPU ns of one observation, over `rounds` times all of `values_ns`."""
