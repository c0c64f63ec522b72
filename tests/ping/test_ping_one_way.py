# SPDX-License-Identifier: Apache-2.0
"""Each way of a ping over the truth wire, which holds the two by different times: what is said is what it did."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pinging import Run, echo_server, ping, stamping, target
from tickpath.lab.shuttle import ALWAYS, Direction, Fate, Faults, TruthWire, When, WireConfig, has

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
]

COUNT = 40
SIZE = 100  # what the server says of its answer is shorter
FAST = ("-i", "0.004", "-W", "30", "-s", str(SIZE))


def held(run: Run, version: int, direction: Direction) -> list[Any]:
    """The frames of pings, or of answers to them, in their order."""
    length = 14 + (20 if version == 4 else 40) + 8 + SIZE
    log = run.log[run.log["direction"] == direction]
    return list(log[(log["length"] == length) & has(log, Fate.FORWARDED)])


def steered(ns: int) -> int:
    """As long by a clock that is being steered, at most."""
    return ns + ns // 512 + 1000


def splits(run: Run) -> dict[int, dict[str, Any]]:
    found = {one["seq"]: one for one in run.of("split")}
    assert len(found) == len(run.of("split")), "each once"
    return found


@pytest.mark.parametrize(("version", "out_ns", "back_ns"), [(4, 3_000_000, 9_000_000), (6, 9_000_000, 3_000_000)])
def test_each_way_is_what_the_wire_held_it(version: int, out_ns: int, back_ns: int) -> None:
    config = WireConfig(
        to_server=Faults(only_payload=False, delay=ALWAYS, delay_ns=out_ns),
        to_client=Faults(only_payload=False, delay=ALWAYS, delay_ns=back_ns),
    )
    with stamping(), TruthWire(config) as wire, echo_server(wire):
        run = ping(wire, target(wire, "udp", version), "-c", str(COUNT), *FAST)
    assert run.code == 0, run.stderr
    sent_ns = {one["seq"]: one["time_ns"] for one in run.of("sent")}
    replies = {one["seq"]: one for one in run.of("reply")}
    requests, answers = held(run, version, Direction.TO_SERVER), held(run, version, Direction.TO_CLIENT)
    assert len(requests) == len(answers) == COUNT
    found = splits(run)
    # What the last ones' server says may come after they are waited for, where the host stalls.
    assert len(found) >= COUNT // 2
    stamped = [one for one in found.values() if (one["source"], one["far_source"]) == ("sw", "sw")]
    assert len(stamped) >= len(found) // 2
    for seq, one in found.items():
        assert (one["unknown"], one["bound_ns"]) == (None, 0)
        assert one["out_ns"] + one["back_ns"] == one["path_ns"]
        if one["source"] == replies[seq]["source"]:
            assert one["path_ns"] + one["turn_ns"] == replies[seq]["rtt_ns"]
    for one in stamped:
        request, answer = requests[one["seq"] - 1], answers[one["seq"] - 1]
        truth = int(request["before_ns"]) - int(request["read_ns"]), int(answer["before_ns"]) - int(answer["read_ns"])
        assert truth[0] >= out_ns
        assert truth[1] >= back_ns
        assert steered(one["out_ns"]) >= truth[0]
        assert steered(one["back_ns"]) >= truth[1]
        # It left after the call began, and came while the wire wrote it.
        assert one["out_ns"] <= steered(int(request["after_ns"]) - sent_ns[one["seq"]])
        assert one["back_ns"] <= steered(int(answer["after_ns"]) - int(request["before_ns"]))
    ways = run.totals["ways"]
    assert ways["out"]["sw"]["count"] == ways["back"]["sw"]["count"] == len(stamped)
    assert ways["out"]["sw"]["bound_most_ns"] == 0


def test_doubled_requests_and_lost_answers_are_split_by_their_own_times() -> None:
    delay_ns = 2_000_000
    config = WireConfig(
        to_server=Faults(only_payload=False, delay=ALWAYS, delay_ns=delay_ns, duplicate=When(probability=0.3)),
        to_client=Faults(only_payload=False, delay=ALWAYS, delay_ns=delay_ns, drop=When(probability=0.2)),
        seed=9,
        armed=False,
    )
    with stamping(), TruthWire(config) as wire, echo_server(wire):
        wire.arm()
        run = ping(wire, target(wire, "udp", 4), "-c", "100", *FAST, "-W", "0.5", "--linger", "0.5")
    replies = {one["seq"]: one for one in run.outcomes if one["result"] in ("reply", "late")}
    found = splits(run)
    assert run.of("duplicate")
    assert set(found) <= set(replies)
    assert len(found) > 30
    for seq, one in found.items():
        assert one["unknown"] is None
        if one["source"] == replies[seq]["source"]:
            assert one["path_ns"] + one["turn_ns"] == replies[seq]["rtt_ns"]
        if (one["source"], one["far_source"]) == ("sw", "sw"):
            assert min(steered(one["out_ns"]), steered(one["back_ns"])) >= delay_ns
