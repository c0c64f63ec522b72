# SPDX-License-Identifier: Apache-2.0
"""Pings over the truth wire: what is said of each is what the shuttle did to it."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from pinging import allow_ping_sockets, dropped, ping, server_of, stamping, target, truths
from tickpath.lab.shuttle import ALWAYS, Direction, Fate, Faults, TruthWire, When, WireConfig, has

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
]

COUNT = 200
# Longer than a busy host stalls: what is not lost is not late.
FAST = ("-i", "0.002", "-W", "30")
DATAGRAMS = [("icmp", 4), ("icmp", 6), ("udp", 4), ("udp", 6)]


@pytest.mark.parametrize("sockets", ["raw", "ping"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_round_trip_is_between_the_shuttles_hold_and_the_applications_clock(sockets: str, version: int) -> None:
    slow = Faults(only_payload=False, delay=ALWAYS, delay_ns=3_000_000)
    with stamping(), TruthWire(WireConfig(to_client=slow)) as wire:
        if sockets == "ping":
            allow_ping_sockets(wire)
        run = ping(wire, target(wire, "icmp", version), "-c", "50", *FAST)
    held = truths(run.log)
    assert run.seqs("reply") == list(range(1, 51))
    assert run.code == 0
    for one in run.of("reply"):
        seen_ns = one["app_rtt_ns"] + one["app_rtt_ns"] // 512 + 1000  # two clocks, of which one may be steered
        assert 3_000_000 <= held[one["seq"]].held_ns <= one["rtt_ns"] <= seen_ns
        assert (one["ttl"], one["bytes"]) == (64, 64)
        assert not one["disbelieved"]
    # Whoever holds stamping on, the first may come before the kernel has begun.
    assert Counter(one["source"] for one in run.of("reply"))["sw"] >= 45


@pytest.mark.parametrize(("proto", "version"), DATAGRAMS)
def test_loss_duplicates_and_lateness_are_the_shuttles_exactly(proto: str, version: int) -> None:
    allowed_ns = 200_000_000
    harm = Faults(
        only_payload=False,
        drop=When(probability=0.1),
        duplicate=When(probability=0.1),
        duplicate_copies=2,
        swap=When(probability=0.05),
        swap_by=1000,
        swap_wait_ns=2 * allowed_ns,
    )
    with TruthWire(WireConfig(to_client=harm, seed=11, armed=False)) as wire, server_of(wire, proto):
        wire.arm()
        run = ping(
            wire,
            *[
                target(wire, proto, version),
                "-c",
                str(COUNT),
                *FAST,
                "-W",
                str(allowed_ns / 1e9),
                "--linger",
                "60",
                "--no-split",
            ],
            until=(COUNT, 3 * allowed_ns / 1e9),
        )
    held = truths(run.log)
    assert run.seqs("sent") == list(range(1, COUNT + 1))
    sent_ns = {one["seq"]: one["time_ns"] for one in run.of("sent")}
    lost, late = run.seqs("lost"), run.seqs("late")
    assert set(dropped(run.log)) <= set(lost)
    assert sorted({*lost} - {*late}) == dropped(run.log)
    surely_late = [seq for seq, truth in held.items() if truth.held_ns > allowed_ns]
    surely_in_time = [seq for seq, truth in held.items() if truth.written_ns - sent_ns[seq] <= allowed_ns]
    assert set(surely_late) <= set(late)
    assert not set(surely_in_time) & set(late)
    assert len(surely_late) > 3
    # On a busy host many an answer is neither.
    assert len(surely_in_time) > COUNT // 10
    copies = {seq: truth.copies for seq, truth in held.items() if truth.copies}
    assert Counter(run.seqs("duplicate")) == copies
    assert run.seqs("reply") == sorted(set(range(1, COUNT + 1)) - set(lost))
    totals = run.totals
    assert totals["sent"] == COUNT
    assert totals["received"] + totals["lost"] == COUNT
    assert (totals["late"], totals["duplicates"]) == (len(late), sum(copies.values()))
    assert totals["errors"] == {}


@pytest.mark.parametrize("version", [4, 6])
def test_a_lost_handshake_is_a_lost_ping_though_tcp_tries_again(version: int) -> None:
    harm = Faults(only_payload=False, drop=When(probability=0.2))
    with TruthWire(WireConfig(to_server=harm, seed=5, armed=False)) as wire, server_of(wire, "tcp"):
        wire.arm()
        run = ping(wire, target(wire, "tcp", version), "-c", "60", "-i", "0.005", "-W", "0.9", "--linger", "1.5")
    syns = run.log[(run.log["direction"] == Direction.TO_SERVER) & (run.log["tcp_flags"] == 0x02)]
    first: dict[int, bool] = {}
    for syn, gone in zip(syns, has(syns, Fate.DROPPED), strict=True):
        first.setdefault(int(syn["source_port"]), bool(gone))
    assert len(first) == 60
    expected = [seq for seq, gone in enumerate(first.values(), 1) if gone]
    assert expected
    # One whose first answer came too late, on a host that stood still, is lost as well.
    ports = {port: seq for seq, port in enumerate(first, 1)}
    answers = run.log[(run.log["direction"] == Direction.TO_CLIENT) & (run.log["tcp_flags"] == 0x12)]
    answered_ns: dict[int, int] = {}
    for one in answers:
        answered_ns.setdefault(ports[int(one["destination_port"])], int(one["after_ns"]))
    sent_ns = {one["seq"]: one["time_ns"] for one in run.of("sent")}
    in_time = {seq for seq, at_ns in answered_ns.items() if at_ns - sent_ns[seq] <= 900_000_000}
    assert set(expected) <= set(run.seqs("lost"))
    assert not set(run.seqs("lost")) & in_time
    assert len(run.of("reply")) == 60 - len(run.seqs("lost"))
    assert {one["source"] for one in run.of("reply")} <= {"tcp_info", "app"}
    # TCP asks again after a second.
    assert run.of("late")
    assert set(run.seqs("late")) <= set(run.seqs("lost"))
    assert all(one["rtt_ns"] >= 900_000_000 for one in run.of("late"))


def test_reordered_replies_each_find_their_own_request() -> None:
    harm = Faults(only_payload=False, swap=When(probability=0.2), swap_by=3, delay=ALWAYS, delay_ns=8_000_000)
    with TruthWire(WireConfig(to_client=harm, seed=3)) as wire:
        run = ping(wire, target(wire, "icmp", 4), "-c", "150", *FAST)
    held = truths(run.log)
    order = [one["seq"] for one in run.of("reply")]
    assert sorted(order) == list(range(1, 151))
    assert order != sorted(order)
    assert all(one["rtt_ns"] >= held[one["seq"]].held_ns for one in run.of("reply"))
    assert run.of("duplicate") == []


def test_without_stamps_the_applications_clock_is_used_and_said() -> None:
    with TruthWire() as wire:
        run = ping(wire, target(wire, "icmp", 4), "-c", "20", *FAST, "--no-stamps")
    held = truths(run.log)
    assert {one["source"] for one in run.of("reply")} == {"app"}
    assert all(one["rtt_ns"] >= held[one["seq"]].held_ns for one in run.of("reply"))
    assert list(run.totals["rtt"]) == ["app"]
