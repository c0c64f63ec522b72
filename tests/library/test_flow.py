# SPDX-License-Identifier: Apache-2.0
"""The span map of flow.h against a dictionary of bytes, and sequence numbers unwrapped, under the sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Compile = Callable[[str], Path]
SAME_FRAME_NS = 1_000_000


@dataclass
class Byte:
    first_ns: int
    last_ns: int
    observer: int
    source: int
    copied: bool = False

    def meet(self, other: Byte) -> Byte:
        """What flow.h says of a second copy."""
        later = other.first_ns - self.first_ns
        alike = self.observer == other.observer or self.source == other.source or abs(later) > SAME_FRAME_NS
        chosen = other if (later < 0 if alike else other.source < self.source) else self
        if self.observer != other.observer:
            return Byte(**vars(chosen))
        return Byte(chosen.first_ns, max(self.last_ns, other.last_ns), chosen.observer, chosen.source, copied=True)


@pytest.fixture(scope="module")
def program(sanitized: Compile) -> Path:
    return sanitized("flow_driver.c")


def ask(program: Path, limit: int, lines: list[str]) -> list[str]:
    done = subprocess.run([program, str(limit)], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def spans(line: str) -> list[list[int]]:
    return [[int(word) for word in span.split()] for span in line.split(";") if span]


positions = st.integers(0, 60)
adds = st.builds(
    lambda start, length, first, observer: ("add", start, start + length, first, observer, 1 + observer),
    positions,
    st.integers(0, 25),
    st.integers(0, 5_000_000),
    st.integers(0, 1),
)
forgets = st.builds(lambda position: ("forget", position), positions)
operations = st.lists(st.one_of(adds, adds, adds, forgets), max_size=25)


@settings(max_examples=80, deadline=None)
@given(operations=operations)
def test_the_map_says_of_every_byte_what_a_dictionary_says(program: Path, operations: list[tuple[object, ...]]) -> None:
    answers = ask(program, 4096, [" ".join(map(str, operation)) for operation in operations])
    known: dict[int, Byte] = {}
    floor = -1
    for operation, answer in zip(operations, answers, strict=True):
        numbers = [int(str(word)) for word in operation[1:]]
        if operation[0] == "forget":
            (position,) = numbers
            # Whole spans go: what is left of one that crosses the position is still told.
            kept = {at for s in spans(answer) for at in range(s[0], s[1])}
            assert all(at in kept for at in known if at >= position)
            known = {at: byte for at, byte in known.items() if at in kept}
            floor = max(floor, position)
        else:
            start, end, first, observer, source = numbers
            for at in range(start, end):
                if at < floor:
                    continue
                new = Byte(first, first, observer, source)
                known[at] = known[at].meet(new) if at in known else new
        told = {
            at: (first, last, observer, bool(copied))
            for start, end, first, last, observer, copied in spans(answer)
            for at in range(start, end)
        }
        assert sum(end - start for start, end, *_ in spans(answer)) == len(told), "spans do not overlap"
        assert {at: (b.first_ns, b.last_ns, b.observer, b.copied) for at, b in known.items()} == told


@settings(max_examples=40, deadline=None)
@given(operations=st.lists(adds, max_size=60), limit=st.integers(1, 6))
def test_the_map_never_holds_more_than_its_limit(
    program: Path, operations: list[tuple[object, ...]], limit: int
) -> None:
    for answer in ask(program, limit, [" ".join(map(str, operation)) for operation in operations]):
        held = spans(answer)
        assert len(held) <= limit
        assert held == sorted(held)
        assert all(before[1] <= after[0] for before, after in pairwise(held))


@settings(max_examples=40, deadline=None)
@given(position=st.integers(2**33, 2**50), distance=st.integers(-(2**31) + 1, 2**31 - 1))
def test_unwrapping_finds_the_nearest_position_across_any_wrap(program: Path, position: int, distance: int) -> None:
    wanted = position + distance
    (answer,) = ask(program, 1, [f"unwrap {position} {wanted % 2**32}"])
    assert int(answer) == wanted
