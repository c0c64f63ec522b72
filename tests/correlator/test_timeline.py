# SPDX-License-Identifier: Apache-2.0
"""A NIC's stamps on the host's timeline, simulated: whatever drift and steps, the truth is within the bound or unsaid.

The clock here is a formula, the probe a loop that reads it and writes what came before. The guest has real ones.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tickpath.event import RECORD, Clock, Kind, Source
from tickpath.exporter.correlator._correlator import Timeline

PHC = Clock.PHC + 3
TURN_NS = 20_000_000
MS = 1_000_000


@dataclass
class Change:
    """At a moment the clock is stepped, or runs at another rate; told: as whoever sets it tells the kernel."""

    at_ns: int
    step_ns: int = 0
    ppb: int | None = None


def shown(at_ns: int, changes: list[Change]) -> tuple[int, int]:
    """What the clock shows, and its frequency in 2^-16 ppm."""
    value, since, ppb = 10**18, 0, 0
    for change in changes:
        if change.at_ns > at_ns:
            break
        value += (change.at_ns - since) + (change.at_ns - since) * ppb // 10**9 + change.step_ns
        since, ppb = change.at_ns, ppb if change.ppb is None else change.ppb
    return value + (at_ns - since) + (at_ns - since) * ppb // 10**9, ppb * 65536 // 1000


def reading(at_ns: int, before: int, after: int, changes: list[Change]) -> np.ndarray:
    out = np.zeros(1, RECORD)
    out["kind"], out["clock"] = Kind.CLOCK, PHC
    out["time_ns"], out["reading"]["frequency"] = shown(at_ns, changes)
    out["reading"]["before_ns"], out["reading"]["after_ns"] = at_ns - before, at_ns + after
    return out


def segment(at_ns: int, changes: list[Change]) -> np.ndarray:
    out = np.zeros(1, RECORD)
    out["kind"], out["clock"], out["source"] = Kind.SEGMENT, PHC, Source.HW
    out["time_ns"] = shown(at_ns, changes)[0]
    return out


def joined(records: list[np.ndarray]) -> np.ndarray:
    """One array of them. numpy's own concatenation lays fields that overlap out anew."""
    return np.concatenate([record.view("u1") for record in records]).view(RECORD)


def play(changes: list[Change], turns: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truths, times, bounds and errors of the stamps of a probe that reads the clock each turn and then writes.

    A frame may be in the block that was being filled at a reading: it is written one turn later.
    """
    chance = np.random.default_rng(seed)
    records, truths, waiting = [], [], []
    for turn in range(1, turns):
        now = turn * TURN_NS
        frames = sorted(int(now - age) for age in chance.integers(0, TURN_NS, 6))
        late = [at for at in frames if at > now - 4 * MS]
        records.append(reading(now, *map(int, chance.integers(1, 400, 2)), changes))
        truths.append(0)
        for at in waiting + [at for at in frames if at not in late]:
            records.append(segment(at, changes))
            truths.append(at)
        waiting = late
    every = joined(records)
    results = [np.zeros(len(every), np.int64) for _ in range(3)]
    Timeline().place(0, every.view("u1"), *results)
    stamps = every["kind"] == Kind.SEGMENT
    return np.array(truths)[stamps], *(result[stamps] for result in results)


STEPS = st.sampled_from([-37 * 10**9, 37 * 10**9, -5 * MS, 5 * MS, -100_000, 100_000, -5_000, 5_000])
CHANGES = st.lists(
    st.tuples(st.integers(20 * TURN_NS, 90 * TURN_NS), st.one_of(STEPS, st.none()), st.integers(-60_000, 60_000)),
    max_size=4,
).map(
    lambda drawn: [
        Change(at, 0, ppb) if step is None else Change(at, step) for at, step, ppb in sorted(drawn, key=lambda d: d[0])
    ]
)


@settings(deadline=None, max_examples=20)
@given(CHANGES, st.integers(0, 2**32))
def test_every_placed_stamp_is_within_its_bound(changes: list[Change], seed: int) -> None:
    truths, times, bounds, errors = play(changes, 120, seed)
    placed = errors == 0
    off = np.abs(times - truths)[placed]
    assert (off <= bounds[placed]).all()
    assert set(errors) <= {0, errno.EAGAIN, errno.ERANGE}
    # Each change takes the stamps of a few turns with it, and no more.
    assert np.count_nonzero(~placed) <= 6 * (8 * len(changes) + 3)
    assert bounds[placed].max() < 1000


def test_a_steady_clock_is_placed_from_the_second_reading_on() -> None:
    truths, times, bounds, errors = play([], 60, 1)
    assert (errors[6:] == 0).all()
    assert (np.abs(times - truths)[6:] <= bounds[6:]).all()


def test_stamps_near_a_step_are_said_to_be() -> None:
    _, _, _, errors = play([Change(30 * TURN_NS + MS, 5 * MS)], 60, 2)
    assert errno.ERANGE in errors
    assert (errors[-60:] == 0).all()


def test_frames_that_were_held_over_a_step_back_are_not_taken_for_later_ones() -> None:
    for seed in range(10):
        truths, times, bounds, errors = play([Change(30 * TURN_NS - MS, -5 * MS)], 40, seed)
        placed = errors == 0
        assert (np.abs(times - truths)[placed] <= bounds[placed]).all()


def test_a_stamp_that_no_reading_followed_is_not_placed() -> None:
    every = joined([reading(turn * TURN_NS, 50, 50, []) for turn in range(5)] + [segment(5 * TURN_NS, [])])
    results = [np.zeros(len(every), np.int64) for _ in range(3)]
    Timeline().place(0, every.view("u1"), *results)
    assert results[2][-1] == errno.EAGAIN
