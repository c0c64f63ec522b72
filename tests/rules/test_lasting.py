# SPDX-License-Identifier: Apache-2.0
"""A regression that is never put right: told, and then learned, for the day before it leaves the baseline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rules.scenario import Fleet, Minutes, needs_promtool

HOUR = 60
CALM = {20e-6: 292, 50e-6: 8}
SLOW = {520e-6: 292, 550e-6: 8}


@needs_promtool
@pytest.mark.skipif(os.environ.get("TICKPATH_STACK") != "1", reason="a minute of promtool: part of `make test-stack`")
@pytest.mark.timeout(600)
def test_what_stays_is_learned_within_a_day_and_told_again_when_it_gets_worse(tmp_path: Path) -> None:
    fleet = Fleet("baselines")
    host = fleet.host("moved")
    host.latency(
        Minutes(8 * HOUR, CALM),
        Minutes(40 * HOUR, SLOW),
        Minutes(2 * HOUR, {s * 3: n for s, n in SLOW.items()}),
        hop="cpu",
    )
    for hour in (9, 16, 24):
        host.firing(hour * HOUR, "TickpathLatencyRegression")
    host.quiet(7 * HOUR, 33 * HOUR, 40 * HOUR, 48 * HOUR)
    host.firing(48 * HOUR + 15, "TickpathLatencyRegression")
    assert not fleet.run(tmp_path)
