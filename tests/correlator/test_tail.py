# SPDX-License-Identifier: Apache-2.0
"""What a tail keeps is true, of the tail, spread over it and fresh, and seldom enough to cost nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import compiled

Kept = tuple[int, list[tuple[int, int, int]]]


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int]], Kept]:
    folder = tmp_path_factory.mktemp("tail")
    sanitized = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = compiled(folder / "tail", [Path(__file__).parent / "tail_driver.c"], *sanitized)

    def run(values: list[int]) -> Kept:
        done = subprocess.run([program], input=np.array(values, dtype="<i8").tobytes(), capture_output=True, check=True)
        first, *lines = done.stdout.decode().splitlines()
        return int(first), [(int(cell), int(value), int(n)) for cell, value, n in map(str.split, lines)]

    return run


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5), max_size=300))
def test_whatever_is_kept_was_observed(keep: Callable[[list[int]], Kept], values: list[int]) -> None:
    _, kept = keep(values)
    assert all(values[ordinal] == value for _, value, ordinal in kept)
    assert len({ordinal for _, _, ordinal in kept}) == len(kept)


def lognormal(count: int, seed: int = 1) -> list[int]:
    return [int(v) for v in np.random.default_rng(seed).lognormal(np.log(20_000), 1.0, count)]


def test_what_is_kept_is_of_the_tail_spread_over_it_and_fresh(keep: Callable[[list[int]], Kept]) -> None:
    values = lognormal(50_000)
    stores, kept = keep(values)
    p85, p99, p999 = np.quantile(values, [0.85, 0.99, 0.999])
    shown = sorted(value for _, value, _ in kept)
    assert len(shown) == 4
    assert shown[0] > p85
    assert shown[0] < p99 < shown[2]
    assert shown[3] > p999
    assert stores < 0.11 * len(values)
    assert min(ordinal for cell, _, ordinal in kept if cell == 0) > 45_000


def test_times_that_are_all_alike_are_kept_once_and_not_again_and_again(keep: Callable[[list[int]], Kept]) -> None:
    stores, kept = keep([500] * 5000)
    assert stores <= 16
    assert [value for _, value, _ in kept] == [500]


def test_a_zero_that_is_nearly_always_there_gives_way_to_what_is_not(keep: Callable[[list[int]], Kept]) -> None:
    values = [0] * 5000
    values[1500::500] = [70_000] * len(values[1500::500])
    _, kept = keep(values)
    assert 70_000 in [value for _, value, _ in kept]


def test_the_tail_of_times_that_are_all_negative_is_their_least_negative_end(keep: Callable[[list[int]], Kept]) -> None:
    values = [-1_270_000_000 + value for value in lognormal(20_000)]
    values += [-1_000_000_000, -500_000_000]
    _, kept = keep(values)
    assert max(value for _, value, _ in kept) == -500_000_000


def test_a_regression_is_shown_by_what_came_after_it(keep: Callable[[list[int]], Kept]) -> None:
    values = lognormal(30_000) + [10 * value for value in lognormal(3000, seed=2)]
    _, kept = keep(values)
    assert sum(ordinal >= 30_000 for _, _, ordinal in kept) >= 3
