# SPDX-License-Identifier: Apache-2.0
"""Every message of every scenario is joined with the frame that brought it, or says truly why not."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernel.tracing import CAN_TRACE
from tickpath.exporter.correlator import Leg, Reason, Stamp
from tickpath.lab.shuttle import RECORD, Faults, When
from truth.model import streams
from truth.play import Evidence, play
from truth.scenario import SCENARIOS, Scenario
from truth.verdict import judge

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the truth wire makes network namespaces: needs root"),
]
_kernel = pytest.mark.skipif(not CAN_TRACE, reason="the kernel probe cannot run here")


def test_there_are_ten_thousand_messages_at_least() -> None:
    assert sum(scenario.messages for scenario in SCENARIOS) >= 10_000


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_message_is_joined_with_the_frame_that_brought_it(scenario: Scenario, tmp_path: Path) -> None:
    if not CAN_TRACE:
        # What the kernel probe has to do with it cannot be shown here.
        if scenario.late_probe and scenario.kernel:
            pytest.skip("the kernel probe cannot run here")
        scenario = dataclasses.replace(scenario, must=scenario.must - {"kernel", "lost"})
    for seed in range(1, 6):
        verdict = judge(scenario, play(scenario, tmp_path / str(seed), seed))
        assert verdict.wrong == 0, "\n".join(verdict.complaints)
        if not verdict.untested:
            break
    assert verdict.untested == []
    assert verdict.messages > 0
    assert verdict.offset + verdict.explained == verdict.messages
    if not scenario.excuses:
        assert verdict.offset == verdict.messages
    if scenario.kernel and CAN_TRACE and not verdict.lost:
        assert verdict.readable == verdict.copied == verdict.messages
        assert verdict.kernel + verdict.mixed == verdict.messages or scenario.excuses


# --- the verdict itself: it has to see each kind of error ---


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Evidence]:
    lossy = Faults(drop=When(probability=0.03), duplicate=When(probability=0.1))
    scenario = Scenario(name="lossy", to_client=lossy, messages=200)
    return scenario, play(scenario, tmp_path_factory.mktemp("lossy"))


def _waiting(joined: Any) -> int:
    return int(np.flatnonzero(joined["blocked"])[0])


def _later(joined: Any, name: str) -> None:
    joined[name][7] += 1_000_000


def _neighbour(joined: Any) -> None:
    for name in ("frame", "own_ns", "offset_ns"):
        joined[name][20] = joined[name][10]


def _no_wait(joined: Any) -> None:
    at = _waiting(joined)
    joined["in_order_ns"][at] = joined["own_ns"][at]
    joined["leg_ns"][at, Leg.HOL_WAIT] = 0
    joined["blocked"][at] = 0


def _wire_late(joined: Any) -> None:
    """By less than the frame's write took: the wire's own check cannot see it."""
    joined["in_order_ns"][4] = joined["readable_ns"][4] + 1


def _asked_late(joined: Any) -> None:
    joined["asked_ns"][4] = joined["copied_ns"][4] + 1


def _without(stamp: Stamp) -> Callable[[Any], None]:
    def spoil(joined: Any) -> None:
        joined["stamps"][5] &= ~np.uint32(int(stamp))
        joined["missing"][5] = Reason.READABLE_GAP if stamp is Stamp.READABLE else Reason.COPIED_GAP

    return spoil


def _part(joined: Any) -> None:
    joined["leg_ns"][5, Leg.WAKE] += 1


def _no_in_order(joined: Any) -> None:
    joined["stamps"][5] &= ~np.uint32(int(Stamp.IN_ORDER))


def _set(name: str, value: int) -> Callable[[Any], None]:
    def spoil(joined: Any) -> None:
        joined[name][3] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda joined: _later(joined, "own_ns"), id="own arrival of another moment"),
        pytest.param(lambda joined: _later(joined, "in_order_ns"), id="in-order arrival of another moment"),
        pytest.param(_neighbour, id="the frame of another message"),
        pytest.param(_no_wait, id="a wait that is not told"),
        pytest.param(_set("blocked", 1), id="a wait that was not"),
        pytest.param(_no_in_order, id="no in-order arrival without a gap"),
        pytest.param(_set("method", 2), id="another method"),
        pytest.param(_set("end", 1), id="another message end"),
        pytest.param(_set("tcp_seq", 1), id="another sequence number"),
        pytest.param(_set("span_flags", 1), id="a copy that was not"),
        pytest.param(lambda joined: _later(joined, "ordinal"), id="a message that was never sent"),
        pytest.param(lambda joined: joined["leg_ns"].__setitem__((2, Leg.CPU), 5), id="hops that do not add up"),
        pytest.param(lambda joined: _later(joined, "readable_ns"), id="readable at another moment", marks=_kernel),
        pytest.param(lambda joined: _later(joined, "copied_ns"), id="copied at another moment", marks=_kernel),
        pytest.param(_asked_late, id="asked after it was copied", marks=_kernel),
        pytest.param(_wire_late, id="in-order arrival after readable", marks=_kernel),
        pytest.param(_without(Stamp.READABLE), id="not readable, without a gap", marks=_kernel),
        pytest.param(_without(Stamp.COPIED), id="not copied, without a gap", marks=_kernel),
        pytest.param(_part, id="parts that are not the hop", marks=_kernel),
    ],
)
def test_the_verdict_sees(evidence: tuple[Scenario, Evidence], spoil: Callable[[Any], None]) -> None:
    scenario, seen = evidence
    spoilt = copy.copy(seen)
    spoilt.joined = seen.joined.copy()
    assert judge(scenario, spoilt).wrong == 0
    spoil(spoilt.joined)
    assert judge(scenario, spoilt).wrong > 0


# --- the model, on a log written by hand ---


def _frame(seq: int, length: int, **more: int) -> Any:
    frame = np.zeros(1, RECORD)
    frame["version"], frame["fate"], frame["destination_port"] = 4, 1, 9
    frame["seq"], frame["payload_bytes"] = seq % (1 << 32), length
    for name, value in more.items():
        frame[name] = value
    return frame


def test_the_model_takes_the_first_copy_that_is_whole() -> None:
    isn = (1 << 32) - 150
    log = np.concatenate(
        [
            _frame(isn, 0, tcp_flags=0x12),
            _frame(isn + 1, 100),
            _frame(isn + 201, 100, fate=1 | 4),  # its checksum is wrong
            _frame(isn + 101, 100, fate=2),  # dropped
            _frame(isn + 201, 100),
            _frame(isn + 101, 100),
            _frame(isn + 1, 100),
            _frame(isn + 301, 100),
        ]
    )
    (stream,) = streams(log)[9]
    ends = [(e.own, e.in_order, e.copies) for e in map(stream.expected, (100, 200, 300, 400)) if e]
    assert ends == [(1, 1, (1, 6)), (5, 5, (5,)), (4, 5, (4,)), (7, 7, (7,))]
    assert stream.expected(401) is None
    assert stream.expected(300).seq == 150  # type: ignore[union-attr]
