# SPDX-License-Identifier: Apache-2.0
"""Clocks against simulated truth: it is always within the claimed bound, and steps are seen and kept apart."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickpath.clock import (
    Converted,
    LinearFit,
    Reading,
    StepEpochs,
    StepWatch,
    clock_records,
    clock_status,
    monotonic_ns,
    read_realtime,
    read_tai,
)
from tickpath.event import RECORD, Clock, Kind

quick = settings(max_examples=100, deadline=None)
SECOND_NS = 1_000_000_000
BASE_NS = 1_700_000_000 * SECOND_NS


def within(converted: Converted, truth_ns: int) -> bool:
    return abs(converted.time_ns - truth_ns) <= converted.bound_ns


# Step epochs


@dataclass
class Host:
    """A simulated host: realtime = monotonic + offset; the offset changes at the given monotonic moments."""

    offset_ns: int = BASE_NS
    sets: list[tuple[int, int]] = field(default_factory=list)  # (monotonic moment, offset from then on)

    def offset_at(self, at_ns: int) -> int:
        return next((offset for when, offset in reversed(self.sets) if at_ns >= when), self.offset_ns)

    def realtime_at(self, at_ns: int) -> int:
        return at_ns + self.offset_at(at_ns)

    def read(self, at_ns: int, before_ns: int, after_ns: int) -> Reading:
        """A reading at `at_ns`, whose bracket began and ended so much earlier and later."""
        return Reading(self.realtime_at(at_ns), at_ns - before_ns, at_ns + after_ns)


# Most brackets are short and lopsided; now and then the thread lost its core inside one.
delays = st.integers(0, 200) | st.integers(0, 3_000_000)
gaps = st.integers(10_000_000, SECOND_NS)


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Host, list[Reading], list[int]]:
    """A host, its readings in order, and its steps; every step is larger than any two brackets together."""
    host, readings, steps, now_ns = Host(), [], [], 5 * SECOND_NS
    for _ in range(draw(st.integers(1, 6))):
        for _ in range(draw(st.integers(1, 5))):
            now_ns += draw(gaps)
            readings.append(host.read(now_ns, draw(delays), draw(delays)))
        now_ns += draw(st.integers(4_000_000, SECOND_NS))
        step_ns = draw(st.integers(13_000_000, 3600 * SECOND_NS)) * draw(st.sampled_from([-1, 1]))
        host.sets.append((now_ns, host.offset_at(now_ns) + step_ns))
        steps.append(now_ns)
        now_ns += 4_000_000
    now_ns += draw(gaps)
    readings.append(host.read(now_ns, draw(delays), draw(delays)))
    return host, readings, steps


def surely_between(readings: list[Reading], steps: list[int], at_ns: int) -> bool:
    """Whether the readings on both sides of a moment exist and no step lies between them."""
    before = [reading.before_ns for reading in readings if reading.after_ns <= at_ns]
    after = [reading.after_ns for reading in readings if reading.before_ns >= at_ns]
    return bool(before and after) and not any(max(before) <= step <= min(after) for step in steps)


@quick
@given(hosts(), st.data())
def test_every_stamp_is_within_its_bound_before_between_and_after_steps(
    world: tuple[Host, list[Reading], list[int]], data: st.DataObject
) -> None:
    host, readings, steps = world
    epochs = StepEpochs()
    for reading in readings:
        epochs.add(reading)
    assert epochs.steps == len(steps)
    last_ns = readings[-1].after_ns
    for _ in range(20):
        at_ns = data.draw(st.integers(readings[0].before_ns - SECOND_NS, last_ns + SECOND_NS))
        to = epochs.to_monotonic(host.realtime_at(at_ns))
        back = epochs.from_monotonic(at_ns)
        assert within(to, at_ns)
        assert within(back, host.realtime_at(at_ns))
        if surely_between(readings, steps, at_ns):
            assert not back.marked
        if at_ns > last_ns:
            assert to.unconfirmed
            assert back.unconfirmed


@quick
@given(hosts(), st.randoms(use_true_random=False))
def test_readings_that_come_late_from_another_producer_change_no_epoch(
    world: tuple[Host, list[Reading], list[int]], random: object
) -> None:
    host, readings, steps = world
    epochs = StepEpochs()
    # Two producers, drained one after the other in batches: each in order, the second behind the first.
    mine, theirs = readings[::2], readings[1::2]
    for start in range(0, len(mine), 3):
        for reading in mine[start : start + 3] + theirs[start : start + 3]:
            try:
                epochs.add(reading)
            except OSError as error:
                assert error.errno == errno.ESTALE
    assert epochs.steps <= len(steps)
    for epoch in epochs.history:
        assert epoch.lo_ns <= host.offset_at(epoch.from_ns) <= epoch.hi_ns
        assert epoch.lo_ns <= host.offset_at(epoch.until_ns) <= epoch.hi_ns


@quick
@given(st.lists(st.tuples(delays, delays), min_size=1, max_size=30), st.integers(-(10**6), 10**6))
def test_the_bound_is_never_wider_than_half_the_shortest_bracket(
    brackets: list[tuple[int, int]], drift_ns: int
) -> None:
    host, epochs = Host(offset_ns=BASE_NS + drift_ns), StepEpochs()
    for n, (before_ns, after_ns) in enumerate(brackets):
        assert not epochs.add(host.read((n + 1) * SECOND_NS, before_ns, after_ns))
    (epoch,) = epochs.history
    assert epoch.readings == len(brackets)
    assert abs(epoch.offset_ns - host.offset_ns) <= epoch.bound_ns
    assert epoch.bound_ns <= (min(map(sum, brackets)) + 1) // 2


def test_a_stamp_shown_twice_by_a_backward_step_is_ambiguous_and_its_bound_covers_both() -> None:
    host = Host(sets=[(10 * SECOND_NS, BASE_NS - SECOND_NS)])
    epochs = StepEpochs()
    for at_ns in (8 * SECOND_NS, 9_900_000_000, 10_100_000_000, 12 * SECOND_NS):
        epochs.add(host.read(at_ns, 50, 50))
    for at_ns in (9_500_000_000, 10_500_000_000):
        converted = epochs.to_monotonic(host.realtime_at(at_ns))
        assert converted.ambiguous
        assert within(converted, at_ns)
    for at_ns in (8_500_000_000, 11_500_000_000):
        converted = epochs.to_monotonic(host.realtime_at(at_ns))
        assert not converted.marked
        assert converted.bound_ns <= 50


def test_a_forward_step_longer_than_its_gap_leaves_no_doubt_inside_it() -> None:
    host = Host(sets=[(10 * SECOND_NS, BASE_NS + 3 * SECOND_NS)])
    epochs = StepEpochs()
    epochs.add(host.read(9 * SECOND_NS, 50, 50))
    assert epochs.add(host.read(11 * SECOND_NS, 50, 50))
    for at_ns in (9_999_999_999, 10_000_000_001):
        converted = epochs.to_monotonic(host.realtime_at(at_ns))
        assert not converted.ambiguous
        assert within(converted, at_ns)
        # Backwards one cannot know on which side of the step the moment lies.
        assert epochs.from_monotonic(at_ns).ambiguous


def test_a_step_too_small_to_see_begins_an_epoch_when_a_watch_reported_it() -> None:
    host = Host(sets=[(10 * SECOND_NS, BASE_NS + 60)])
    blind, told = StepEpochs(), StepEpochs()
    first, second = host.read(9 * SECOND_NS, 50, 50), host.read(11 * SECOND_NS, 50, 50)
    for epochs in (blind, told):
        epochs.add(first)
    assert not blind.add(second)
    assert told.add(second, set_since_ns=first.before_ns)
    assert within(told.to_monotonic(host.realtime_at(11 * SECOND_NS)), 11 * SECOND_NS)
    # Another producer reports the same set: it is counted once.
    assert not told.add(host.read(11_100_000_000, 50, 50), set_since_ns=9_500_000_000)
    assert told.steps == 1


def _record(reading: Reading, *, stepped: bool) -> np.ndarray[Any, np.dtype[np.void]]:
    record = np.zeros(1, RECORD)
    record["kind"], record["clock"], record["flags"] = Kind.CLOCK, Clock.REALTIME, 2 * stepped
    record["time_ns"] = reading.time_ns
    record["reading"]["before_ns"], record["reading"]["after_ns"] = reading.before_ns, reading.after_ns
    return record


def test_one_set_reported_by_the_records_of_two_rings_is_one_step() -> None:
    host = Host(sets=[(10 * SECOND_NS, BASE_NS + 60)])
    epochs = StepEpochs()
    steps: list[bool] = []
    # The first record of a ring may report a set that is long known: it begins nothing.
    since: list[int | None] = [None, None]
    for ring, at_ns, stepped in [
        (0, 8 * SECOND_NS, True),
        (1, 8_500_000_000, True),
        (0, 9 * SECOND_NS, False),
        (0, 10_200_000_000, True),
        (1, 10_300_000_000, True),
        (0, 11 * SECOND_NS, False),
    ]:
        step, since[ring] = epochs.add_record(_record(host.read(at_ns, 50, 50), stepped=stepped), since[ring])
        steps.append(step)
    assert steps == [False, False, False, True, False, False]
    assert [epoch.offset_ns for epoch in epochs.history] == [BASE_NS, BASE_NS + 60]


def test_a_late_reading_narrows_the_gap_of_a_step() -> None:
    host = Host(sets=[(10 * SECOND_NS, BASE_NS - SECOND_NS)])
    epochs = StepEpochs()
    epochs.add(host.read(5 * SECOND_NS, 50, 50))
    epochs.add(host.read(15 * SECOND_NS, 50, 50))
    assert epochs.from_monotonic(9 * SECOND_NS).ambiguous
    assert not epochs.add(host.read(9_500_000_000, 50, 50))
    assert not epochs.from_monotonic(9 * SECOND_NS).marked
    assert epochs.steps == 1


def test_history_is_bounded_and_says_what_it_forgot() -> None:
    host, epochs = Host(), StepEpochs()
    for n in range(1, 101):
        host.sets.append((n * SECOND_NS, BASE_NS + n * SECOND_NS))
        epochs.add(host.read(n * SECOND_NS + 1000, 50, 50))
    assert (epochs.steps, epochs.evicted, len(epochs.history)) == (99, 36, 64)
    forgotten = epochs.to_monotonic(host.realtime_at(10 * SECOND_NS + 1000))
    assert forgotten.unconfirmed
    kept = epochs.to_monotonic(host.realtime_at(90 * SECOND_NS + 1000))
    assert not kept.marked
    assert within(kept, 90 * SECOND_NS + 1000)


@pytest.mark.parametrize("reading", [Reading(0, 2, 1), Reading(1 << 61, 0, 1), Reading(0, -(1 << 61), 0)])
def test_a_reading_that_cannot_be_is_refused(reading: Reading) -> None:
    for taker in (StepEpochs(), LinearFit()):
        with pytest.raises(OSError) as error:
            taker.add(reading)
        assert error.value.errno == errno.EINVAL


@quick
@given(st.lists(st.tuples(*[st.integers(-(1 << 63), (1 << 63) - 1)] * 4), min_size=1, max_size=20))
def test_readings_and_stamps_that_make_no_sense_give_an_error_or_a_sane_bound(
    wild: list[tuple[int, int, int, int]],
) -> None:
    epochs, fit = StepEpochs(), LinearFit()
    for time_ns, before_ns, after_ns, stamp_ns in wild:
        for taker in (epochs, fit):
            try:
                taker.add(Reading(time_ns, before_ns, after_ns))
            except OSError as error:
                assert error.errno in (errno.EINVAL, errno.ESTALE)
        for convert in (epochs.to_monotonic, epochs.from_monotonic, fit.convert):
            try:
                assert convert(stamp_ns).bound_ns >= 0
            except OSError as error:
                assert error.errno in (errno.EAGAIN, errno.ERANGE, errno.ENODATA)


def test_nothing_is_converted_before_the_first_reading_nor_out_of_range() -> None:
    epochs = StepEpochs()
    for convert in (epochs.to_monotonic, epochs.from_monotonic):
        with pytest.raises(OSError) as error:
            convert(0)
        assert error.value.errno == errno.EAGAIN
    epochs.add(Reading(BASE_NS, 0, 100))
    for convert in (epochs.to_monotonic, epochs.from_monotonic):
        for wild in (1 << 62, -(1 << 62)):
            with pytest.raises(OSError) as error:
                convert(wild)
            assert error.value.errno == errno.ERANGE


# Lines


@dataclass
class Counter:
    """A simulated counter: truncated ticks at a rate that wanders around its constant, piece by piece."""

    hz: float
    offsets_ppb: list[float]
    piece_ns: int = 200_000_000
    start: int = 1 << 40

    def ticks_at(self, at_ns: int) -> int:
        phase, left_ns = 0.0, at_ns
        for ppb in self.offsets_ppb:
            span_ns = min(left_ns, self.piece_ns)
            phase += span_ns * self.hz / 1e9 * (1 + ppb * 1e-9)
            left_ns -= span_ns
        return self.start + int(phase + left_ns * self.hz / 1e9)

    def read(self, at_ns: int, before_ns: int, after_ns: int) -> Reading:
        return Reading(self.ticks_at(at_ns), at_ns - before_ns, at_ns + after_ns)


hertz = st.sampled_from([1e9, 1e9 * (1 + 37e-6), 2.1e9, 25e6, 125e6, 999_999_123.0])


@quick
@given(
    hertz,
    st.lists(st.floats(-100, 100), max_size=60),
    st.lists(st.tuples(delays, delays, st.integers(1_000_000, 400_000_000)), min_size=3, max_size=90),
    st.data(),
)
def test_a_wandering_counter_is_within_its_bound_and_never_breaks(
    hz: float, offsets_ppb: list[float], brackets: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    counter, fit, moments = Counter(hz, offsets_ppb), LinearFit(wander_ppb=100), [SECOND_NS]
    for before_ns, after_ns, gap_ns in brackets:
        moments.append(moments[-1] + before_ns + after_ns + gap_ns)
        assert not fit.add(counter.read(moments[-1], before_ns, after_ns))
    assert fit.breaks == 0
    frequency, bound_ppb = fit.frequency_hz, fit.frequency_bound_ppb
    assert frequency is not None
    assert bound_ppb is not None
    assert abs(frequency - hz) / hz * 1e9 <= bound_ppb
    kept = moments[1:][-64:]
    for _ in range(20):
        at_ns = data.draw(st.integers(kept[0], kept[-1] + SECOND_NS))
        converted = fit.convert(counter.ticks_at(at_ns))
        assert within(converted, at_ns)
        assert converted.unconfirmed == (counter.ticks_at(at_ns) > counter.ticks_at(kept[-1]))


def test_the_bound_between_short_brackets_is_near_theirs() -> None:
    counter, fit = Counter(2.1e9, []), LinearFit()
    for n in range(1, 65):
        fit.add(counter.read(n * 250_000_000, 20, 20))
    converted = fit.convert(counter.ticks_at(8_100_000_000))
    assert within(converted, 8_100_000_000)
    assert converted.bound_ns < 60
    assert fit.residual_ns < 40


@quick
@given(st.sampled_from([-1, 1]), st.integers(10_000_000, 10**12), st.integers(3, 70))
@example(sign=-1, step=SECOND_NS, readings=3)  # back to the very value of the last reading
def test_a_stepped_counter_breaks_the_line_and_is_fitted_anew(sign: int, step: int, readings: int) -> None:
    counter, fit = Counter(1e9, []), LinearFit()
    for n in range(1, readings + 1):
        fit.add(counter.read(n * SECOND_NS, 100, 100))
    counter.start += sign * step
    broke = [fit.add(counter.read((readings + n) * SECOND_NS, 100, 100)) for n in range(1, 4)]
    assert broke == [True, False, False]
    assert fit.breaks == 1
    at_ns = (readings + 2) * SECOND_NS + 500_000_000
    assert within(fit.convert(counter.ticks_at(at_ns)), at_ns)
    with pytest.raises(OSError) as error:
        fit.convert(counter.ticks_at((readings + 1) * SECOND_NS) - 1)
    assert error.value.errno == errno.ENODATA


def test_a_line_follows_a_rate_that_drifts_for_ever() -> None:
    # 1 ppb a second over ten minutes: far more than the wander in all, far less inside the window.
    counter, fit = Counter(1e9, [2.0 * n for n in range(300)], piece_ns=2 * SECOND_NS), LinearFit(wander_ppb=100)
    for n in range(1, 2400):
        at_ns = n * 250_000_000
        fit.add(counter.read(at_ns, 100, 30))
        if n > 2:
            assert within(fit.convert(counter.ticks_at(at_ns - 120_000_000)), at_ns - 120_000_000)
    assert fit.breaks == 0
    assert fit.readings == 2399


def test_a_line_needs_two_readings_and_newer_ones() -> None:
    fit = LinearFit()
    fit.add(Reading(1000, 0, 10))
    assert fit.frequency_hz is None
    with pytest.raises(OSError) as error:
        fit.convert(1000)
    assert error.value.errno == errno.EAGAIN
    with pytest.raises(OSError) as error:
        fit.add(Reading(1000, 0, 10))
    assert error.value.errno == errno.ESTALE
    fit.add(Reading(2000, 1000, 1010))
    with pytest.raises(OSError) as error:
        fit.convert((1 << 63) - 1)
    assert error.value.errno == errno.ERANGE


# This host: relations only


def test_the_hosts_own_readings_agree_with_each_other() -> None:
    epochs = StepEpochs()
    for _ in range(50):
        reading = read_realtime()
        assert reading.before_ns <= reading.after_ns
        epochs.add(reading)
    before_ns = monotonic_ns()
    stamp_ns = time.time_ns()
    after_ns = monotonic_ns()
    converted = epochs.to_monotonic(stamp_ns)
    assert before_ns <= converted.time_ns + converted.bound_ns
    assert converted.time_ns - converted.bound_ns <= after_ns
    assert converted.unconfirmed


def test_tai_is_ahead_of_realtime_by_what_the_kernel_says() -> None:
    offset_s = clock_status().tai_offset_s or 0
    realtime, tai = StepEpochs(), StepEpochs()
    for _ in range(20):
        realtime.add(read_realtime())
        tai.add(read_tai())
    ahead_ns = tai.history[-1].offset_ns - realtime.history[-1].offset_ns
    assert abs(ahead_ns - offset_s * SECOND_NS) <= tai.history[-1].bound_ns + realtime.history[-1].bound_ns


def test_the_status_has_a_bound_only_while_synchronised() -> None:
    status = clock_status()
    assert status.synchronised == (status.max_error_ns is not None)


def test_clock_records_hold_the_readings_and_the_status() -> None:
    with StepWatch() as watch:
        before_ns = monotonic_ns()
        records = clock_records(watch)
        after_ns = monotonic_ns()
    assert records.dtype == RECORD
    assert [Kind(kind) for kind in records["kind"]] == [Kind.CLOCK, Kind.CLOCK]
    assert [Clock(clock) for clock in records["clock"]] == [Clock.REALTIME, Clock.TAI]
    status = clock_status()
    for record in records:
        reading = record["reading"]
        assert before_ns <= reading["before_ns"] <= reading["after_ns"] <= after_ns
        assert reading["tai_offset_s"] == (status.tai_offset_s or 0)
        assert bool(record["flags"] & 1) == status.synchronised


def test_a_watch_stays_quiet_while_nobody_sets_the_clock() -> None:
    with StepWatch() as watch:
        assert select.select([watch], [], [], 0) == ([], [], [])
        assert not watch.fired()


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("_before", ctypes.c_long * 8),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
        ("_after", ctypes.c_char * 128),
    )


def _step_realtime(ns: int) -> None:
    timex = _Timex(modes=0x0100 | 0x2000, seconds=ns // SECOND_NS, nanoseconds=ns % SECOND_NS)  # SETOFFSET | NANO
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.root
@pytest.mark.sets_clock
def test_a_watch_tells_at_once_that_the_clock_was_set() -> None:
    if os.geteuid() != 0:
        pytest.skip("setting the clock needs root")
    if clock_status().synchronised:
        pytest.skip("setting the clock, even by one nanosecond, would make the kernel forget that it is synchronised")
    with StepWatch() as watch:
        for ns in (1, -1):
            try:
                _step_realtime(ns)
            except PermissionError:
                pytest.skip("this root may not set the clock (no CAP_SYS_TIME)")
            assert select.select([watch], [], [], 60)[0] == [watch]
            assert all(record["flags"] & 2 for record in clock_records(watch))
            assert not watch.fired()
