# SPDX-License-Identifier: Apache-2.0
"""The wire carries what it is given, and its log is what the far side's kernel says: every frame, order and time."""

from __future__ import annotations

import os
import signal
import struct
from functools import partial

import numpy as np
import pytest

from tickpath.errors import ConfigError
from tickpath.lab.shuttle import Direction, Fate, Faults, ShuttleError, TruthWire, When, WireConfig, frame_hash, has
from traffic import Witness, connection, echo_answered, noise, send_bunch, settled, transfer, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
]


def _naive_hash(frame: bytes) -> int:
    value = len(frame)
    padded = frame + bytes(-len(frame) % 8)
    for (word,) in struct.iter_unpack("<Q", padded):
        value = (value ^ word) * 0x9E3779B97F4A7C15 % 2**64
        value ^= value >> 32
    return value


@pytest.mark.parametrize("gro", [False, True], ids=["plain", "gro"])
def test_pings_and_transfers_pass_whole_both_ways(gro: bool) -> None:
    data = noise(3_000_000)
    with TruthWire(WireConfig(gro=gro)) as wire:
        for origin, peer in ((wire.server, wire.client), (wire.client, wire.server)):
            assert echo_answered(wire, origin, peer.ipv4)
            assert echo_answered(wire, origin, peer.ipv6)
        for version in (4, 6):
            with connection(wire, version) as (server, client):
                assert transfer(server, client, data) == data
                assert transfer(client, server, data) == data
    log = wire.log()
    assert set(log["fate"].tolist()) == {Fate.FORWARDED}
    assert {4, 6} <= set(log["version"].tolist())


@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_frames_are_wire_sized(mtu: int) -> None:
    with TruthWire(WireConfig(mtu_bytes=mtu)) as wire, connection(wire) as (server, client):
        transfer(server, client, noise(500_000))
    log = wire.log()
    assert log["length"].max() == 14 + mtu


def test_the_log_is_what_the_far_side_sees_frame_by_frame() -> None:
    faults = Faults(
        drop=When(probability=0.02),
        duplicate=When(probability=0.02),
        swap=When(probability=0.02),
        corrupt=When(probability=0.02),
        hold=When(probability=0.02),
    )
    with TruthWire(WireConfig(to_client=faults, to_server=faults)) as wire:
        settled(wire)
        before = len(wire.log())
        with Witness(wire, wire.client) as at_client, Witness(wire, wire.server) as at_server:
            for version in (4, 6):
                with connection(wire, version) as (server, client):
                    transfer(server, client, noise(1_000_000))
                    transfer(client, server, noise(1_000_000))
            settled(wire)
            log = wire.log()[before:]
            log = log[has(log, Fate.FORWARDED)]
            for direction, witness in ((Direction.TO_CLIENT, at_client), (Direction.TO_SERVER, at_server)):
                mine = log[log["direction"] == direction]
                sightings = witness.sightings()
                assert len(sightings) > 700
                assert [_naive_hash(s.frame) for s in sightings] == mine["hash"].tolist()
                assert [frame_hash(s.frame) for s in sightings] == mine["hash"].tolist()
                assert [len(s.frame) for s in sightings] == mine["length"].tolist()


def test_the_log_knows_the_tcp_header() -> None:
    data = noise(200_000)
    with TruthWire() as wire:
        with connection(wire, 4) as (server, client):
            client_port = client.getsockname()[1]
            server_port = server.getsockname()[1]
            transfer(server, client, data)
        settled(wire)
        log = wire.log()
        addresses = wire.server.ipv4.packed, wire.client.ipv4.packed
    mine = log[(log["direction"] == Direction.TO_CLIENT) & (log["payload_bytes"] > 0)]
    assert set(mine["source_port"].tolist()) == {server_port}
    assert set(mine["destination_port"].tolist()) == {client_port}
    assert {bytes(v)[12:] for v in mine["source"].tolist()} == {addresses[0]}
    assert {bytes(v)[12:] for v in mine["destination"].tolist()} == {addresses[1]}
    (first,) = log[(log["tcp_flags"] == 0x12) & (log["direction"] == Direction.TO_CLIENT)]["seq"].tolist()
    reached = np.zeros(len(data), bool)
    for seq, size in zip(mine["seq"].tolist(), mine["payload_bytes"].tolist(), strict=True):
        start = (seq - first - 1) % 2**32
        reached[start : start + size] = True
    assert reached.all()


def test_the_kernels_stamp_lies_between_before_and_after_the_write() -> None:
    with TruthWire() as wire, Witness(wire, wire.client) as witness:
        # The kernel begins to stamp a moment after it was asked to; until then a stamp is that of the reading.
        def stamping() -> bool:
            witness.sightings()
            start = len(wire.log())
            echo_answered(wire, wire.client, wire.server.ipv4)
            settled(wire, 0.02)
            sightings = witness.sightings()
            records = [r for r in wire.log()[start:] if r["direction"] == Direction.TO_CLIENT]
            return len(records) == 1 and bool(sightings[0].stamp_ns <= records[0]["after_realtime_ns"])

        wait_until(stamping, "stamps at reception")
        before = len(wire.log())
        with connection(wire, 6) as (server, client):
            transfer(server, client, noise(1_000_000))
            transfer(client, server, noise(1_000_000))
        settled(wire)
        log = wire.log()[before:]
        log = log[log["direction"] == Direction.TO_CLIENT]
        sightings = witness.sightings()
        assert [frame_hash(s.frame) for s in sightings] == log["hash"].tolist()
        stamps = np.array([s.stamp_ns for s in sightings])
        assert (log["before_realtime_ns"] <= stamps).all()
        assert (stamps <= log["after_realtime_ns"]).all()


def test_times_of_a_record_are_in_order() -> None:
    with TruthWire() as wire, connection(wire) as (server, client):
        transfer(server, client, noise(500_000))
    log = wire.log()
    assert (log["read_ns"] <= log["before_ns"]).all()
    assert (log["before_ns"] < log["after_ns"]).all()
    assert (log["after_ns"][:-1] <= log["before_ns"][1:]).all()
    for direction in Direction:
        numbers = log["number"][log["direction"] == direction]
        assert (numbers == np.arange(1, len(numbers) + 1)).all()


def test_with_gro_the_far_side_sees_merged_frames_and_without_it_none() -> None:
    def longest(gro: bool) -> int:
        hold = Faults(hold=When(every=8), hold_frames=8)
        config = WireConfig(gro=gro, gro_flush_ns=2_000_000, to_client=hold)
        with TruthWire(config) as wire, Witness(wire, wire.client) as witness, connection(wire) as (server, client):
            data = noise(1_000_000)
            assert transfer(server, client, data) == data
            settled(wire)
            assert wire.log()["length"].max() == 1514
            return max(len(s.frame) for s in witness.sightings())

    assert longest(gro=True) > 2 * 1448
    assert longest(gro=False) == 1514


def test_a_long_log_is_read_while_it_grows() -> None:
    with TruthWire() as wire:
        with connection(wire) as (server, client):
            early = wire.log()
            transfer(server, client, noise(30_000_000))
        settled(wire)
        late = wire.log()
    assert len(late) > 2 * 8192  # more than the window that the shuttle has mapped
    assert (late[: len(early)] == early).all()
    assert (wire.log()[: len(late)] == late).all()


def test_frames_that_wait_at_the_end_are_in_the_log() -> None:
    slow = Faults(only_payload=False, delay=When(every=1), delay_ns=60_000_000_000)
    with TruthWire(WireConfig(to_client=slow, armed=False)) as wire:
        settled(wire)
        wire.arm()
        send_bunch(wire, wire.server, wire.client, [100] * 7, waiting=7)
    log = wire.log()
    assert has(log, Fate.UNSENT | Fate.DELAYED).sum() == 7
    assert not log[has(log, Fate.UNSENT)]["before_ns"].any()


def test_when_waiting_frames_fill_the_room_the_rest_waits_in_the_kernel() -> None:
    slow = Faults(only_payload=False, delay=When(every=1), delay_ns=300_000_000)
    with TruthWire(WireConfig(to_client=slow, armed=False)) as wire:
        settled(wire)
        wire.arm()
        start = len(wire.log())
        send_bunch(wire, wire.server, wire.client, [20] * 6000)
    log = wire.log()[start:]
    assert log["number"].tolist() == list(range(start + 1, start + 6001))
    assert has(log, Fate.FORWARDED | Fate.DELAYED).all()


def test_frames_that_not_even_the_kernel_can_keep_are_counted() -> None:
    sent = 20_000
    with TruthWire() as wire:
        assert wire.queue_drops() == 0
        os.kill(wire.pid, signal.SIGSTOP)
        resume = partial(os.kill, wire.pid, signal.SIGCONT)
        send_bunch(wire, wire.server, wire.client, [20] * sent, once_sent=resume)
        drops = wire.queue_drops()
    assert drops > 0
    assert len(wire.log()) + drops == sent


@pytest.mark.parametrize(
    "make",
    [
        lambda: When(probability=1.5),
        lambda: When(every=-1),
        lambda: Faults(swap_by=0),
        lambda: Faults(duplicate_copies=256),
        lambda: Faults(delay_ns=-1),
        lambda: WireConfig(mtu_bytes=576),
        lambda: WireConfig(seed=-1),
    ],
)
def test_what_makes_no_sense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError):
        make()


def test_a_shuttle_that_ends_by_itself_is_an_error() -> None:
    with pytest.raises(ShuttleError, match="ended with -9"), TruthWire() as wire:
        os.kill(wire.pid, 9)
