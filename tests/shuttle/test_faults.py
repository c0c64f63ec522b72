# SPDX-License-Identifier: Apache-2.0
"""Each fault does what it says and nothing else, to the frames that the seed names."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tickpath.lab.shuttle import ALWAYS, Direction, Fate, Faults, Log, TruthWire, When, WireConfig, has
from tickpath.packet import Checksum, Packet, parse
from traffic import Witness, connection, noise, send_bunch, send_paced, settled, transfer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
]

COUNT = 400
FOREVER_NS = 60_000_000_000  # the most that may be asked for


def _bunch(faults: Faults, seed: int = 1, *, waiting: int = 0, copies: int = 0) -> Log:
    """The log of COUNT datagrams from the server to the client, all of them candidates."""
    with TruthWire(WireConfig(seed=seed, to_client=faults)) as wire:
        # All lie before the shuttle when it begins, however long their sender had to wait between two of them.
        os.kill(wire.pid, signal.SIGSTOP)
        begin = partial(os.kill, wire.pid, signal.SIGCONT)
        sizes = list(range(COUNT))
        send_bunch(wire, wire.server, wire.client, sizes, waiting=waiting, copies=copies, once_sent=begin)
    log = wire.log()
    assert (log["direction"] == Direction.TO_CLIENT).all()
    assert sorted(set(log["candidate"].tolist())) == list(range(1, COUNT + 1))
    return log


def _mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def _chosen(seed: int, direction: int, fault: int, probability: float, count: int) -> list[int]:
    """The candidates that the rule in faults.h names, worked out apart from it."""
    golden = 0x9E3779B97F4A7C15
    stream = _mix((seed + (direction * 16 + fault) * golden) % 2**64)
    return [n for n in range(1, count + 1) if _mix((stream + n * golden) % 2**64) / 2**64 < probability]


def test_without_faults_every_frame_passes_once_and_in_order() -> None:
    log = _bunch(Faults(only_payload=False))
    assert set(log["fate"].tolist()) == {Fate.FORWARDED}
    assert log["candidate"].tolist() == list(range(1, COUNT + 1))


def test_every_nth_frame_is_dropped() -> None:
    log = _bunch(Faults(only_payload=False, drop=When(every=7)))
    dropped = log[log["fate"] == Fate.DROPPED]
    assert dropped["candidate"].tolist() == list(range(7, COUNT + 1, 7))
    assert not dropped["before_ns"].any()
    assert set(log["fate"].tolist()) == {Fate.DROPPED, Fate.FORWARDED}
    assert (np.diff(log["candidate"].astype(int)) == 1).all()


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_seed_says_which_frames_are_dropped(seed: int) -> None:
    log = _bunch(Faults(only_payload=False, drop=When(probability=0.1)), seed)
    dropped = log[has(log, Fate.DROPPED)]["candidate"].tolist()
    assert dropped == _chosen(seed, Direction.TO_CLIENT, 1, 0.1, COUNT)
    assert 0.05 * COUNT < len(dropped) < 0.15 * COUNT


def test_each_direction_draws_for_itself() -> None:
    drop = Faults(only_payload=False, drop=When(probability=0.1))
    with TruthWire(WireConfig(to_client=drop, to_server=drop)) as wire:
        send_bunch(wire, wire.server, wire.client, [1] * COUNT)
        send_bunch(wire, wire.client, wire.server, [1] * COUNT)
    log = wire.log()
    for direction in Direction:
        dropped = log[has(log, Fate.DROPPED) & (log["direction"] == direction)]
        assert dropped["candidate"].tolist() == _chosen(1, direction, 1, 0.1, COUNT)


def test_all_decisions_repeat_with_the_seed_and_differ_with_another() -> None:
    some = When(probability=0.1)
    faults = Faults(
        only_payload=False, drop=some, duplicate=some, swap=some, delay=some, delay_jitter_ns=1000, hold=some
    )

    def fates(seed: int) -> dict[tuple[int, int], int]:
        # Who joins a burst depends on time; who starts one, and all else, must not.
        joined = ~np.int64(Fate.HELD)
        return {(int(r["candidate"]), int(r["copy"])): int(r["fate"] & joined) for r in _bunch(faults, seed)}

    assert fates(3) == fates(3)
    assert fates(3) != fates(4)


def test_a_frame_is_followed_by_its_copies() -> None:
    log = _bunch(Faults(only_payload=False, duplicate=When(every=5), duplicate_copies=3))
    expected = [(n, copy) for n in range(1, COUNT + 1) for copy in range(4 if n % 5 == 0 else 1)]
    assert list(zip(log["candidate"].tolist(), log["copy"].tolist(), strict=True)) == expected
    assert (has(log, Fate.COPY) == (log["copy"] > 0)).all()
    for n in range(5, COUNT + 1, 5):
        assert len(set(log[log["candidate"] == n]["hash"].tolist())) == 1


def test_copies_come_as_far_apart_as_asked() -> None:
    apart_ns = 3_000_000
    twice = Faults(only_payload=False, duplicate=When(every=50), duplicate_copies=2, duplicate_apart_ns=apart_ns)
    log = _bunch(twice, copies=2 * (COUNT // 50))
    for n in range(50, COUNT + 1, 50):
        copies = log[log["candidate"] == n]
        assert copies["copy"].tolist() == [0, 1, 2]
        assert (np.diff(copies["before_ns"]) >= apart_ns).all()
    originals = log[~has(log, Fate.COPY)]
    assert originals["candidate"].tolist() == list(range(1, COUNT + 1))


def test_a_swapped_frame_comes_behind_the_next_n() -> None:
    late = Faults(only_payload=False, swap=When(every=10), swap_by=3, swap_wait_ns=FOREVER_NS)
    log = _bunch(late, waiting=1)
    expected = list(range(1, COUNT + 1))
    for n in range(10, COUNT - 3, 10):
        expected.remove(n)
        expected.insert(expected.index(n + 3) + 1, n)
    # The last one waits for followers that do not come.
    expected.remove(COUNT)
    assert log[has(log, Fate.FORWARDED)]["candidate"].tolist() == expected
    assert log[has(log, Fate.SWAPPED)]["candidate"].tolist() == list(range(10, COUNT + 1, 10))
    assert log[has(log, Fate.UNSENT)]["candidate"].tolist() == [COUNT]


def test_many_frames_swapped_at_once_each_let_n_go_first() -> None:
    swapped = set(_chosen(1, Direction.TO_CLIENT, 4, 0.5, COUNT))
    expected: list[int] = []
    waiting: list[tuple[int, int]] = []
    passed = 0
    for n in range(1, COUNT + 1):
        if n in swapped:
            waiting.append((n, passed + 4))
            continue
        passed += 1
        expected += [n, *(late for late, turn in waiting if turn == passed)]
        waiting = [(late, turn) for late, turn in waiting if turn > passed]
    half = Faults(only_payload=False, swap=When(probability=0.5), swap_by=4, swap_wait_ns=FOREVER_NS)
    log = _bunch(half, waiting=len(waiting))
    assert log[has(log, Fate.FORWARDED)]["candidate"].tolist() == expected
    assert log[has(log, Fate.UNSENT)]["candidate"].tolist() == [late for late, _ in waiting]


def test_a_swapped_frame_does_not_wait_for_ever() -> None:
    log = _bunch(Faults(only_payload=False, swap=When(every=COUNT), swap_wait_ns=20_000_000))
    last = log[log["candidate"] == COUNT][0]
    assert last["fate"] == Fate.FORWARDED | Fate.SWAPPED
    assert last["before_ns"] - last["read_ns"] >= 20_000_000


def test_a_burst_is_released_when_it_is_full() -> None:
    log = _bunch(Faults(only_payload=False, hold=When(every=40), hold_frames=10, hold_ns=FOREVER_NS), waiting=1)
    held = log[has(log, Fate.HELD)]
    expected = [n for start in range(40, COUNT, 40) for n in range(start, start + 10)]
    assert held[has(held, Fate.FORWARDED)]["candidate"].tolist() == expected
    assert log["candidate"].tolist() == list(range(1, COUNT + 1))
    # Back to back: all had been read before the first was written.
    for start in range(40, COUNT, 40):
        burst = log[(log["candidate"] >= start) & (log["candidate"] < start + 10)]
        assert burst["read_ns"].max() <= burst["before_ns"].min()


def test_a_burst_is_released_when_its_time_is_over() -> None:
    log = _bunch(Faults(only_payload=False, hold=When(every=COUNT), hold_frames=10, hold_ns=20_000_000))
    last = log[log["candidate"] == COUNT][0]
    assert last["fate"] == Fate.FORWARDED | Fate.HELD
    assert last["before_ns"] - last["read_ns"] >= 20_000_000


def test_delays_are_at_least_as_long_as_asked_and_keep_the_order() -> None:
    delay_ns, jitter_ns = 2_000_000, 1_000_000
    log = _bunch(Faults(only_payload=False, delay=ALWAYS, delay_ns=delay_ns, delay_jitter_ns=jitter_ns))
    assert set(log["fate"].tolist()) == {Fate.FORWARDED | Fate.DELAYED}
    assert log["candidate"].tolist() == list(range(1, COUNT + 1))
    assert (log["before_ns"] - log["read_ns"] >= delay_ns).all()


def test_frames_behind_a_delayed_one_wait_with_it() -> None:
    log = _bunch(Faults(only_payload=False, delay=When(every=COUNT // 2), delay_ns=200_000_000))
    assert log["candidate"].tolist() == list(range(1, COUNT + 1))
    delayed = log[has(log, Fate.DELAYED)]
    assert delayed["candidate"].tolist() == [COUNT // 2, COUNT]
    behind = log[(log["candidate"] > COUNT // 2) & (log["read_ns"] < delayed["before_ns"][0])]
    assert len(behind)
    assert behind["before_ns"].min() > delayed["before_ns"][0]


def test_jitter_is_spread_over_its_range() -> None:
    with (
        TruthWire(
            WireConfig(to_client=Faults(delay=ALWAYS, delay_ns=1_000_000, delay_jitter_ns=4_000_000), armed=False)
        ) as wire,
        connection(wire) as (server, client),
    ):
        wire.arm()
        send_paced(server, client, 60)
    log = wire.log()
    waits = (log["before_ns"] - log["read_ns"])[has(log, Fate.DELAYED)]
    assert waits.min() >= 1_000_000
    assert np.quantile(waits, 0.75) - np.quantile(waits, 0.25) > 1_000_000


def _checksum_errors(wire: TruthWire) -> int:
    """What the client's kernel counted."""
    with wire.inside(wire.client):
        names, values = [
            line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if "Tcp:" in line
        ]
    return int(values[names.index("InCsumErrors")])


@pytest.mark.parametrize("version", [4, 6])
def test_a_corrupted_frame_has_a_wrong_checksum_and_no_other_has(version: int) -> None:
    config = WireConfig(to_client=Faults(corrupt=When(probability=0.05)))
    with TruthWire(config) as wire, Witness(wire, wire.client) as witness:
        with connection(wire, version) as (server, client):
            data = noise(500_000)
            assert transfer(server, client, data) == data
        settled(wire)
        sightings = witness.sightings()
        counted = _checksum_errors(wire)
    log = wire.log()
    corrupted = has(log, Fate.CORRUPTED)[log["direction"] == Direction.TO_CLIENT].tolist()
    assert sum(corrupted) == counted > 5
    wrong = []
    for sighting in sightings:
        packet = parse(sighting.frame)
        assert isinstance(packet, Packet)
        wrong.append(packet.tcp_checksum == Checksum.BAD)
    assert wrong == corrupted


def test_a_frame_without_a_tcp_checksum_is_not_corrupted() -> None:
    log = _bunch(Faults(only_payload=False, corrupt=ALWAYS))
    assert set(log["fate"].tolist()) == {Fate.FORWARDED}


def test_only_candidates_are_harmed() -> None:
    config = WireConfig(to_client=Faults(drop=ALWAYS, port=9), to_server=Faults(drop=When(every=2)))
    with TruthWire(config) as wire, connection(wire) as (server, client):
        data = noise(100_000)
        assert transfer(server, client, data) == data
        assert transfer(client, server, data) == data
    log = wire.log()
    back = log["direction"] == Direction.TO_SERVER
    assert not log[~back]["candidate"].any()
    assert ((log[back]["candidate"] > 0) == (log[back]["payload_bytes"] > 0)).all()
    assert has(log[back], Fate.DROPPED).sum() == log[back]["candidate"].max() // 2


def test_a_port_selects_its_connection_in_both_directions() -> None:
    port = 7
    faults = Faults(delay=ALWAYS, port=port)
    with TruthWire(WireConfig(to_client=faults, to_server=faults)) as wire:
        for server_port in (port, 8):
            with connection(wire, port=server_port) as (server, client):
                transfer(server, client, noise(10_000))
                transfer(client, server, noise(10_000))
    log = wire.log()
    mine = (log["source_port"] == port) | (log["destination_port"] == port)
    assert mine.any() and not mine.all()
    assert ((log["candidate"] > 0) == (mine & (log["payload_bytes"] > 0))).all()
    assert set(log[log["candidate"] > 0]["direction"].tolist()) == set(Direction)


def test_nothing_is_harmed_until_the_wire_is_armed_nor_after() -> None:
    config = WireConfig(to_client=Faults(drop=When(every=3)), armed=False)
    with TruthWire(config) as wire, connection(wire) as (server, client):
        data = noise(50_000)
        assert transfer(server, client, data) == data
        settled(wire)
        unarmed = len(wire.log())
        wire.arm()
        assert transfer(server, client, data) == data
        settled(wire)
        armed = len(wire.log())
        wire.disarm()
        assert transfer(server, client, data) == data
    log = wire.log()
    assert not has(log[:unarmed], Fate.DROPPED).any()
    assert has(log[unarmed:armed], Fate.DROPPED).any()
    assert not log[armed:]["candidate"].any()
    assert set(log[armed:]["fate"].tolist()) == {Fate.FORWARDED}


@pytest.mark.parametrize("gro", [False, True], ids=["plain", "gro"])
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_survives_all_faults_at_once(version: int, gro: bool) -> None:
    some = When(probability=0.01)
    faults = Faults(
        drop=some,
        corrupt=some,
        duplicate=some,
        duplicate_copies=2,
        duplicate_apart_ns=500_000,
        swap=some,
        swap_by=3,
        hold=some,
        hold_ns=300_000,
        delay=some,
        delay_ns=100_000,
        delay_jitter_ns=100_000,
    )
    data = noise(2_000_000)
    config = WireConfig(gro=gro, to_client=faults, to_server=faults)
    with TruthWire(config) as wire, connection(wire, version) as (server, client):
        assert transfer(server, client, data) == data
        assert transfer(client, server, data) == data
    log = wire.log()
    for fate in (Fate.DROPPED, Fate.CORRUPTED, Fate.COPY, Fate.SWAPPED, Fate.HELD, Fate.DELAYED):
        assert has(log, fate).any(), fate
