# SPDX-License-Identifier: Apache-2.0
"""NICs' clocks: what the kernel's answers come to, by every way of asking; which time a clock keeps.

No machine of the tests has such a clock: the guest has (tests/vm), which reads one whose law is known.
"""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpath import _clock, phc
from tickpath.phc import Scale, kept, pace

PRECISE, MONOTONIC, EXTENDED, BASIC = range(4)
SECOND_NS = 1_000_000_000
TIMES = st.integers(0, 2**60)
OFFSETS = st.integers(-(10**18), 10**18)
WIDTHS = st.integers(0, 10**7)


def time_of(ns: int) -> bytes:
    return struct.pack("=qII", ns // SECOND_NS, ns % SECOND_NS, 0)


def answer(way: int, samples: list[tuple[int, int, int]]) -> bytes:
    """The kernel's bytes for brackets (before, clock, after), of which a basic one's end is the next one's start."""
    head = struct.pack("=I12x", len(samples))
    if way == PRECISE:
        ((before, clock, _),) = samples
        body, head = time_of(clock) + time_of(before), b""
    elif way == BASIC:
        body = b"".join(time_of(before) + time_of(clock) for before, clock, _ in samples) + time_of(samples[-1][2])
    else:
        body = b"".join(time_of(moment) for sample in samples for moment in sample)
    return (head + body).ljust(_clock.PHC_ANSWER_BYTES[way], b"\0")


@given(
    st.sampled_from([MONOTONIC, EXTENDED, BASIC]),
    TIMES,
    st.lists(st.tuples(WIDTHS, WIDTHS), min_size=1, max_size=25),
    TIMES,
    st.tuples(OFFSETS, st.integers(0, 1000)),
)
def test_the_shortest_bracket_holds_the_moment(
    way: int, began: int, gaps: list[tuple[int, int]], ahead: int, offset: tuple[int, int]
) -> None:
    samples, at = [], began
    for before, after in gaps:
        samples.append((at, at + before + ahead % 10**15, at + before + after))
        at += before + after
    between = None if way == MONOTONIC else (offset[0], offset[0] + offset[1])
    found, first, last = _clock.phc_answer(way, answer(way, samples), len(samples), between)
    truths = {clock: clock - ahead % 10**15 - offset[0] * (way != MONOTONIC) for _, clock, _ in samples}
    assert first <= truths[found] <= last
    assert last - first == min(map(sum, gaps)) + 1 + (offset[1] if between else 0)


@given(TIMES, TIMES, OFFSETS, st.integers(0, 1000))
def test_a_latched_pair_is_one_moment(clock: int, host: int, offset: int, open_ns: int) -> None:
    got = _clock.phc_answer(PRECISE, answer(PRECISE, [(host, clock, 0)]), 1, (offset, offset + open_ns))
    assert got[0] == clock
    assert got[1] <= host - offset - open_ns <= host - offset <= got[2]
    assert got[2] - got[1] == open_ns + 2


@given(st.integers(0, 3), st.data(), st.integers(0, 40))
def test_no_bytes_give_anything_but_a_time_or_an_error(way: int, data: st.DataObject, samples: int) -> None:
    size = _clock.PHC_ANSWER_BYTES[way]
    raw = data.draw(st.binary(max_size=size)).ljust(size, b"\0")
    try:
        found, first, last = _clock.phc_answer(way, raw, samples, (0, 10))
    except OSError as error:
        assert error.errno == errno.EPROTO
    else:
        assert 0 <= found < 2**61
        assert first <= last


@given(TIMES, st.integers(-(10**9), 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_step_between_two_readings_of_the_host_is_seen(at: int, step: int, one: int, other: int) -> None:
    before, after = (at, 0, one), (at + step + 10**6, 10**6, 10**6 + other)
    if step > other + 2 or step < -one - 2:
        with pytest.raises(BlockingIOError):
            _clock.phc_offset(before, after)
    elif step == 0:
        lo, hi = _clock.phc_offset(before, after)
        assert lo <= at - min(one, other) <= at <= hi


@pytest.mark.parametrize(
    ("minus_realtime_ns", "tai_offset_s", "scale", "offset_ns"),
    [
        (1500, None, Scale.UTC, 1500),
        (-1500, 37, Scale.UTC, -1500),
        (37 * SECOND_NS + 250, 37, Scale.TAI, 250),
        (37 * SECOND_NS - 250, None, Scale.TAI, -250),
        (36 * SECOND_NS, 37, Scale.FREE, 36 * SECOND_NS),
        (-37 * SECOND_NS, None, Scale.FREE, -37 * SECOND_NS),
        (37 * SECOND_NS + SECOND_NS // 2, None, Scale.FREE, 37 * SECOND_NS + SECOND_NS // 2),
        (-1_700_000_000 * SECOND_NS, 37, Scale.FREE, -1_700_000_000 * SECOND_NS),
    ],
)
def test_utc_and_tai_are_told_apart(
    minus_realtime_ns: int, tai_offset_s: int | None, scale: Scale, offset_ns: int
) -> None:
    found = kept(minus_realtime_ns, tai_offset_s)
    assert (found.scale, found.offset_ns) == (scale, offset_ns)
    assert found.tai_s == (37 if scale is Scale.TAI else None)


def test_a_limited_device_is_read_well_below_its_limit() -> None:
    ena = pace("ena")
    assert ena.samples * SECOND_NS / ena.every_ns < 125 / 2
    assert pace("ice").every_ns >= 5 * 4_000_000, "longer than a block of captured frames is filled"


def test_a_clock_that_is_not_there_says_so() -> None:
    assert "add it under devices" in phc.readable(63)
    assert "64" in phc.readable(64)
    with pytest.raises(FileNotFoundError):
        phc.Phc(63)
