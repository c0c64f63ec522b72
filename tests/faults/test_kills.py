# SPDX-License-Identifier: Apache-2.0
"""Every process killed at random under load and started again: nothing twice, what was missed is counted."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from plant import Plant

IS_ROOT = os.geteuid() == 0
# The long form is `make faults DURATION=300 SEED=7`.
SECONDS = float(os.environ.get("FAULTS_SECONDS", "3"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="the wire probe needs CAP_NET_RAW")
@pytest.mark.timeout(120 + 3 * SECONDS)
def test_killed_at_random_the_others_go_on_and_every_message_is_somewhere(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    kills: dict[str, int] = dict.fromkeys(("a", "b", "wire", "exporter", "simulator"), 0)
    with Plant(tmp_path, simulate=["--speed", "2"]) as plant:
        plant.wait_for_messages(plant.feed_names, 100)
        until = time.monotonic() + SECONDS
        # Each at least once, then whichever.
        victims = chance.sample(list(kills), len(kills))
        while victims or time.monotonic() < until:
            victim = victims.pop() if victims else chance.choice(list(kills))
            time.sleep(chance.uniform(0.05, 0.6))
            plant.kill(victim)
            kills[victim] += 1
            if victim != "simulator":
                plant.wait_for_messages(name for name in plant.feed_names if name != victim)
            time.sleep(chance.uniform(0, 0.3))
            plant.start(victim)
            plant.wait_for_messages(plant.feed_names)
        summary = plant.settle()
        books = plant.books(summary)
    print(f"seed {SEED}: kills {kills}; {books}; uncounted {books.uncounted}")
    assert books.uncounted == 0
    assert summary.lost_records == 0
    assert summary.unreadable_rings == {}
