# SPDX-License-Identifier: Apache-2.0
"""A stall moves the part in which it was put, and no other: `make blame` shows the same at length."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blame.compare import PARTS, compare
from blame.play import STALLS, Stall, play
from blame.sender import stalled
from kernel.tracing import traced
from tickpath.exporter.correlator import JOINED, Leg

_MESSAGES = 800
# The criterion is about medians, and the host is not ours alone: what is wrong is wrong every time.
_TRIES = 3


def _wrong(stall: Stall, joined: Any) -> list[str]:
    return [
        f"{moved.part.name}: {moved.off_ns:.0f} -> {moved.on_ns:.0f} ns [{moved.low:.3f} … {moved.high:.3f}]"
        for moved in compare(joined)
        if not (moved.has(stall.ns) if moved.part is stall.part else moved.stays(stall.ns))
    ]


@traced
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the reader needs a processor for itself")
@pytest.mark.parametrize("stall", STALLS, ids=lambda stall: stall.part.name.lower())
def test_a_stall_moves_its_own_part_alone(stall: Stall, tmp_path: Path) -> None:
    wrong: list[str] = []
    for turn in range(_TRIES):
        folder = tmp_path / str(turn)
        folder.mkdir()
        joined = play(stall, folder, _MESSAGES)
        assert len(joined) == _MESSAGES
        assert (joined["method"] == 1).all()
        wrong = _wrong(stall, joined)
        if not wrong:
            return
    pytest.fail("; ".join(wrong))


def _made(shift_ns: dict[Leg, int], seed: int) -> Any:
    """Results of parts around 20 us, those of the stalled messages shifted."""
    random = np.random.default_rng(seed)
    joined = np.zeros(2000, JOINED)
    joined["ordinal"] = np.arange(2000)
    joined["legs"] = sum(1 << int(part) for part in PARTS)
    slow = np.array([stalled(number) for number in range(2000)])
    for part in PARTS:
        joined["leg_ns"][:, part] = 20_000 * random.lognormal(0, 0.3, 2000)
        joined["leg_ns"][slow, part] += shift_ns.get(part, 0)
    return joined


@pytest.mark.parametrize("seed", range(3))
def test_the_comparison_tells_what_moved(seed: int) -> None:
    stall = Stall(Leg.CPU, 200_000)
    assert _wrong(stall, _made({Leg.CPU: 200_000}, seed)) == []
    assert len(_wrong(stall, _made({}, seed))) == 1
    assert len(_wrong(stall, _made({Leg.CPU: 200_000, Leg.MSK: 14_000}, seed))) == 1
    assert len(_wrong(stall, _made({Leg.WAKE: 200_000}, seed))) == 2
