# SPDX-License-Identifier: Apache-2.0
"""The join agrees with a brute-force model of it, byte by byte, however the records of the producers interleave."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from correlator.model import MS, START_NS, Features, Producers, Scenario
from tickpath.event import Source
from tickpath.exporter.correlator import JOINED, Correlator, Leg, Reason, Stamp

WIRE_LEGS = (Leg.BN_TO_NIC, Leg.NIC_TO_KERNEL, Leg.IN_HOST)


def drained(correlator: Correlator, most: int = 10_000) -> Any:
    out = np.zeros(most, dtype=JOINED)
    return out[: correlator.joined(out)]


def run(scenario: Scenario, *, steps: int, lags: dict[str, int]) -> Any:
    """Write the scenario in `steps` slices of time with a poll after each; the results."""
    correlator = Correlator(joined_capacity=10_000, read_clock=False)
    with tempfile.TemporaryDirectory() as directory:
        producers = Producers(scenario, Path(directory))
        attached = [correlator.attach(ring.path) for ring in producers.rings()]
        try:
            producers.open(lags)
            correlator.poll(START_NS)
            end_ns = max(m.published_ns for m in scenario.messages) + 100 * MS
            for step in range(1, steps):
                now_ns = START_NS + (end_ns - START_NS) * step // steps
                producers.write_until(now_ns)
                correlator.poll(now_ns)
            producers.write_until(None)
            correlator.poll(end_ns)
            correlator.poll(end_ns + 2_000 * MS)
            snapshot = correlator.snapshot()
            assert snapshot.pending == 0
            assert sum(snapshot.matched.values()) + sum(snapshot.unmatched.values()) == sum(snapshot.messages.values())
            results = drained(correlator)
            assert len(results) == sum(snapshot.messages.values())
        finally:
            for ring in attached:
                correlator.detach(ring)
            producers.close()
    return results


def stamp(result: Any, which: Stamp, name: str) -> int | None:
    return int(result[name]) if int(result["stamps"]) & which else None


def leg(result: Any, which: Leg) -> int | None:
    return int(result["leg_ns"][which]) if int(result["legs"]) & 1 << which else None


def assert_agrees(scenario: Scenario, results: Any) -> None:
    best = scenario.best()
    assert len(results) == len(scenario.messages)
    for m, got in zip(scenario.messages, results, strict=True):
        want = scenario.expected(m, best)
        said = f"message {m.ordinal} ending at {m.end}"
        assert int(got["ordinal"]) == m.ordinal
        assert int(got["method"]) == want["method"], said
        assert Reason(int(got["reason"])) is want["reason"], said
        own = stamp(got, Stamp.OWN, "own_ns")
        assert own == want["own"], said
        if want["own"] is not None:
            assert Source(int(got["source"])) is want["source"], said
        if "frame" in want:
            assert int(got["frame"]) == want["frame"], said
        assert int(got["tcp_seq"]) == (scenario.irs + m.end) % 2**32
        assert stamp(got, Stamp.IN_ORDER, "in_order_ns") == want["in_order"], said
        if "why_not_in_order" in want:
            assert Reason(int(got["missing"][Leg.HOL_WAIT])) is want["why_not_in_order"], said
        assert stamp(got, Stamp.READABLE, "readable_ns") == want["readable"], said
        assert stamp(got, Stamp.COPIED, "copied_ns") == want["copied"], said
        assert stamp(got, Stamp.ASKED, "asked_ns") == want["asked"], said
        assert_sums(got)


def assert_sums(got: Any) -> None:
    """What is there adds up, in integers."""
    legs = {which: leg(got, which) for which in Leg}
    exact = got["method"] == 1
    first = (
        legs[Leg.NIC_TO_USER]
        if legs[Leg.NIC_TO_KERNEL] is None
        else (legs[Leg.NIC_TO_KERNEL] + legs[Leg.KERNEL_TO_USER])
    )
    if exact:
        assert legs[Leg.BN_TO_NIC] + first + legs[Leg.CPU] + legs[Leg.MSK] == legs[Leg.TOTAL]
        assert first + legs[Leg.CPU] + legs[Leg.MSK] == legs[Leg.IN_HOST]
    else:
        assert all(legs[which] is None for which in WIRE_LEGS)
    if legs[Leg.STACK] is not None:
        assert legs[Leg.HOL_WAIT] + legs[Leg.STACK] == legs[Leg.NIC_TO_KERNEL]
    parts = [legs[which] for which in (Leg.APP_BUSY, Leg.WAKE, Leg.BACKLOG, Leg.DECODE)]
    if None not in parts:
        assert sum(parts) == legs[Leg.KERNEL_TO_USER]
    for which in Leg:
        if legs[which] is None and not (which is Leg.NIC_TO_USER and legs[Leg.NIC_TO_KERNEL] is not None):
            assert got["missing"][which], f"{which.name} is missing without a reason"


sequences = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 3000, 2**32 - 1))
observers = st.sampled_from(
    [(Source.SW,), (Source.SW, Source.HW), (Source.POLL, Source.SW_GRO), (Source.HW, Source.HW)]
)
features = st.builds(
    Features,
    irs=sequences,
    kernel=st.booleans(),
    holes=st.booleans(),
    sources=observers,
    lost_kernel_events=st.booleans(),
)
lags = st.fixed_dictionaries(
    {name: st.sampled_from((0, 3 * MS, 40 * MS, 300 * MS)) for name in ("feed", "wire", "kernel")}
)


# A poll between two observers' records of one frame that came behind later ones.
@example(
    seed=37165,
    features=Features(irs=0, kernel=False, sources=(Source.SW, Source.HW), lost_kernel_events=False),
    steps=7,
    lags={"feed": 0, "wire": 0, "kernel": 0},
)
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), features=features, steps=st.sampled_from((1, 2, 7, 60)), lags=lags)
def test_every_message_is_joined_as_the_model_joins_it(
    seed: int, features: Features, steps: int, lags: dict[str, int]
) -> None:
    scenario = Scenario(seed, features)
    assert_agrees(scenario, run(scenario, steps=steps, lags=lags))


@pytest.mark.parametrize("seed", range(5))
def test_without_holes_every_message_is_matched_by_offset(seed: int) -> None:
    scenario = Scenario(seed, Features(holes=False), messages=100)
    results = run(scenario, steps=10, lags={})
    assert (results["method"] == 1).all()
    assert all(int(r["stamps"]) & Stamp.IN_ORDER for r in results)
