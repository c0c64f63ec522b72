# SPDX-License-Identifier: Apache-2.0
"""Every process killed at random under load and started again: nothing twice, what was missed is counted."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from plant import Plant, wait_for

IS_ROOT = os.geteuid() == 0
# The long form is `make faults SECONDS=300 SEED=7`.
SECONDS = float(os.environ.get("FAULTS_SECONDS", "3"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="the wire probe needs CAP_NET_RAW")
@pytest.mark.timeout(120 + 3 * SECONDS)
def test_killed_at_random_the_others_go_on_and_every_message_is_somewhere(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    kills: dict[str, int] = dict.fromkeys(("a", "b", "wire", "exporter", "simulator"), 0)
    with Plant(tmp_path, simulate=["--speed", "2"]) as plant:
        wait_for(lambda: plant.recorded("a") > 100 < plant.recorded("b"), "the first messages")
        until = time.monotonic() + SECONDS
        # Each at least once, then whichever.
        victims = chance.sample(list(kills), len(kills))
        while victims or time.monotonic() < until:
            victim = victims.pop() if victims else chance.choice(list(kills))
            time.sleep(chance.uniform(0.05, 0.6))
            plant.kill(victim)
            kills[victim] += 1
            before = {name: plant.recorded(name) for name in plant.feed_names}
            if victim != "simulator":
                others = [name for name in plant.feed_names if name != victim]
                wait_for(lambda: all(plant.recorded(n) > before[n] for n in others), f"messages after {victim}'s end")
            time.sleep(chance.uniform(0, 0.3))
            plant.start(victim)
            wait_for(
                lambda: all(plant.recorded(name) > before[name] for name in plant.feed_names),
                f"messages of all feeds after {victim} came back",
            )
        summary = plant.settle()
        books = plant.books(summary)
    print(f"seed {SEED}: kills {kills}; {books}; uncounted {books.uncounted}")
    assert books.uncounted == 0
    assert summary.lost_records == 0
    assert summary.unreadable_rings == {}
