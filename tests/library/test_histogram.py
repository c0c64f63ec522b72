# SPDX-License-Identifier: Apache-2.0
"""Every bucket bound is exact, and what a histogram says of its observations is true of them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpath.histogram import MAX_INDEX, MIN_INDEX, SCHEMA, Histogram, bucket_index, upper_bound_ns

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# Latencies of all sizes, not only the huge ones that a uniform draw gives.
any_ns = st.one_of(
    st.integers(INT64_MIN, INT64_MAX),
    st.integers(0, 62).flatmap(lambda bits: st.integers(-(2 << bits) + 1, (2 << bits) - 1)),
    st.sampled_from([0, 1, -1, INT64_MIN, INT64_MAX]),
)
some_ns = st.lists(any_ns, max_size=60)


def _within(magnitude_ns: int, index: int) -> bool:
    """Whether magnitude <= 2^(index/16) * 10^9, in whole numbers: both sides to the 16th power."""
    return magnitude_ns**16 << max(-index, 0) <= 10**144 << max(index, 0)


def _filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


def _bucket(value_ns: int) -> tuple[int, int]:
    """The (sign, index) of the bucket that a value is in; (0, 0) is the zero bucket."""
    return (0, 0) if value_ns == 0 else (1 if value_ns > 0 else -1, bucket_index(abs(value_ns)))


def _all_buckets(histogram: Histogram) -> dict[tuple[int, int], int]:
    negative, zero, positive = histogram.buckets()
    counts = {(-1, i): n for i, n in negative} | {(1, i): n for i, n in positive}
    return counts | ({(0, 0): zero} if zero else {})


def test_every_bound_is_the_integer_part_of_the_real_one() -> None:
    with localcontext() as context:
        context.prec = 80
        for index in range(MIN_INDEX - 1, MAX_INDEX + 1):
            real = (Decimal(2) ** (Decimal(index) / 2**SCHEMA)) * 10**9
            nearest = real.to_integral_value()
            bound = upper_bound_ns(index)
            if index % 16 == 0 and index >= -9 * 16:
                assert bound == nearest  # a whole number, which Decimal may miss by its last digit
            else:
                assert bound == int(real)
            assert _within(bound, index)
            assert not _within(bound + 1, index)


def test_every_bound_and_its_neighbours_fall_into_the_bucket_that_exact_arithmetic_says() -> None:
    for index in range(MIN_INDEX, MAX_INDEX + 1):
        for value in range(max(upper_bound_ns(index) - 2, 1), min(upper_bound_ns(index) + 3, 2**63 + 1)):
            chosen = bucket_index(value)
            assert _within(value, chosen)
            assert not _within(value, chosen - 1)


def test_the_first_and_last_index_hold_the_smallest_and_largest_magnitudes() -> None:
    assert bucket_index(1) == MIN_INDEX
    assert bucket_index(2**63) == MAX_INDEX
    assert upper_bound_ns(MIN_INDEX - 1) == 0
    assert upper_bound_ns(MAX_INDEX - 1) < INT64_MAX < upper_bound_ns(MAX_INDEX)


@pytest.mark.parametrize("index", [MIN_INDEX - 2, MAX_INDEX + 1])
def test_an_index_outside_the_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="bucket index"):
        upper_bound_ns(index)


@pytest.mark.parametrize("magnitude", [0, 2**63 + 1])
def test_a_magnitude_without_a_bucket_is_refused(magnitude: int) -> None:
    with pytest.raises(ValueError, match="magnitude"):
        bucket_index(magnitude)


@given(st.integers(1, 2**63))
def test_any_magnitude_falls_into_the_bucket_that_exact_arithmetic_says(magnitude: int) -> None:
    chosen = bucket_index(magnitude)
    assert _within(magnitude, chosen)
    assert not _within(magnitude, chosen - 1)


@given(some_ns)
def test_count_sum_and_extremes_are_exact(values: list[int]) -> None:
    histogram = _filled(values)
    assert histogram.count == len(values)
    assert histogram.sum_ns == sum(values)
    assert histogram.negative_sum_ns == sum(value for value in values if value < 0)
    assert histogram.min_ns == min(values, default=None)
    assert histogram.max_ns == max(values, default=None)


@given(some_ns)
def test_each_value_is_counted_in_its_own_bucket_by_sign(values: list[int]) -> None:
    expected: dict[tuple[int, int], int] = {}
    for value in values:
        expected[_bucket(value)] = expected.get(_bucket(value), 0) + 1
    histogram = _filled(values)
    assert _all_buckets(histogram) == expected
    for entries in (histogram.buckets().negative, histogram.buckets().positive):
        assert entries == sorted(entries)


@given(some_ns.filter(bool), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.99, 0.999, 1.0])))
def test_a_quantile_shares_its_bucket_with_the_true_one(values: list[int], q: float) -> None:
    rank = max(math.ceil(q * len(values)), 1)
    truth = sorted(values)[rank - 1]
    estimate = _filled(values).quantile_ns(q)
    assert estimate is not None
    assert _bucket(estimate) == _bucket(truth)
    assert min(values) <= estimate <= max(values)
    if rank in (1, len(values)):
        assert estimate == truth


@given(some_ns.filter(bool), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_do_not_cross(values: list[int], one: float, other: float) -> None:
    histogram = _filled(values)
    low, high = histogram.quantile_ns(min(one, other)), histogram.quantile_ns(max(one, other))
    assert low is not None
    assert high is not None
    assert low <= high


@given(some_ns, some_ns)
def test_merging_is_observing_both(left: list[int], right: list[int]) -> None:
    merged = _filled(left)
    merged.merge(_filled(right))
    assert merged == _filled(left + right)


@given(some_ns)
def test_an_array_is_observed_like_its_elements(values: list[int]) -> None:
    histogram = Histogram()
    histogram.observe_many(np.array(values, dtype=np.int64))
    assert histogram == _filled(values)


def test_a_strided_array_is_observed_element_by_element() -> None:
    histogram = Histogram()
    histogram.observe_many(np.arange(10, dtype=np.int64)[::3])
    assert histogram == _filled([0, 3, 6, 9])


def test_a_histogram_merged_with_itself_doubles() -> None:
    histogram = _filled([-5, 0, 7])
    histogram.merge(histogram)
    assert histogram == _filled([-5, 0, 7] * 2)


def test_a_copy_does_not_follow_the_original() -> None:
    original = _filled([1, 2, 3])
    copy = original.copy()
    original.observe(4)
    assert copy == _filled([1, 2, 3])
    assert original != copy


def test_the_sum_goes_beyond_64_bits_in_both_directions() -> None:
    lowest, highest = _filled([INT64_MIN] * 5), _filled([INT64_MAX] * 5)
    assert lowest.sum_ns == 5 * INT64_MIN
    assert (lowest.negative_sum_ns, highest.negative_sum_ns) == (5 * INT64_MIN, 0)
    assert highest.sum_ns == 5 * INT64_MAX
    lowest.merge(highest)
    assert lowest.sum_ns == -5


def test_an_empty_histogram_has_no_extremes_and_no_quantile() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.sum_ns) == (0, 0)
    assert (histogram.min_ns, histogram.max_ns, histogram.quantile_ns(0.5)) == (None, None, None)
    assert _all_buckets(histogram) == {}
    other = _filled([3])
    other.merge(histogram)
    assert other == _filled([3])


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, math.inf])
def test_a_quantile_outside_0_and_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        _filled([1]).quantile_ns(q)


@pytest.mark.parametrize("value", [INT64_MIN - 1, INT64_MAX + 1])
def test_a_value_beyond_int64_is_refused_and_not_counted(value: int) -> None:
    histogram = Histogram()
    with pytest.raises(OverflowError):
        histogram.observe(value)
    assert histogram.count == 0
