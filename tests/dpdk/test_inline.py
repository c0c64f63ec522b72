# SPDX-License-Identifier: Apache-2.0
"""Inline: the kernel has all of a port that DPDK owns, both ways, and keeps its connections while nobody forwards."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpdk.inlining import PORT, Capture, forgotten, link, tickpath
from tickpath.event import Counter
from tickpath.lab.bench.inline_host import TAP, addressed, given_up
from tickpath.lab.ports import HeldPort
from tickpath.lab.shuttle import TruthWire, WireConfig
from tickpath.lab.simulator.config import SimulatorConfig
from tickpath.lab.simulator.server import Simulator
from traffic import connection, echo_answered, noise, settled, transfer, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and TAPs are made: needs root"),
    pytest.mark.skipif(
        importlib.util.find_spec("tickpath.dpdk_capture._dpdk") is None, reason="tickpath is built without DPDK here"
    ),
]

_BULK_BYTES = 100_000_000
_MESSAGES = 10_000
# A message waits for its stamps while whoever has them stands still; none is finished without them for want of time.
_PATIENT = ("--window-ms", "30000")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Host:
    """One wire and one capture for all who do them no harm."""

    wire: TruthWire
    capture: Capture


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with given_up() as wire, Capture(wire, tmp_path_factory.mktemp("inline")) as capture:
        addressed(wire)
        yield Host(wire, capture)


@pytest.mark.timeout(300)
def test_bulk_goes_through_whole_in_both_directions_and_both_versions(host: Host) -> None:
    for version, size_bytes in ((4, _BULK_BYTES), (6, _BULK_BYTES // 10)):
        data = noise(size_bytes)
        with connection(host.wire, version, port=PORT) as (server, client):
            assert _digest(transfer(server, client, data)) == _digest(data)
            assert _digest(transfer(client, server, data)) == _digest(data)
    settled(host.wire)
    host.capture.counted(Counter.DPDK_RECEIVED, len(host.wire.log()[host.wire.log()["direction"] == 0]))
    counters = host.capture.counters()
    assert counters[Counter.DPDK_TO_KERNEL] == counters[Counter.DPDK_RECEIVED] > _BULK_BYTES / 1500
    assert counters[Counter.DPDK_FROM_KERNEL] > _BULK_BYTES / 1500
    assert counters[Counter.DPDK_TO_KERNEL_DROPPED] == counters[Counter.DPDK_FROM_KERNEL_DROPPED] == 0
    assert host.wire.queue_drops() == 0


def test_neighbours_find_each_other_by_arp_and_neighbour_discovery(host: Host) -> None:
    forgotten(host.wire)
    assert echo_answered(host.wire, host.wire.client, host.wire.server.ipv4)
    assert echo_answered(host.wire, host.wire.client, host.wire.server.ipv6)
    assert echo_answered(host.wire, host.wire.server, host.wire.client.ipv4, bytes(1400))


def test_a_datagram_of_every_length_arrives_with_a_checksum_that_holds(host: Host) -> None:
    wire = host.wire
    for version in (4, 6):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        address = (str(wire.server.ipv4 if version == 4 else wire.server.ipv6), PORT)
        with wire.inside(wire.server):
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with wire.inside(wire.client):
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind(address)
            receiver.settimeout(20)
            for size_bytes in (0, 1, 2, 3, 17, 100, 511, 1000, 1399, 1452):
                data = noise(size_bytes, size_bytes)
                sender.sendto(data, address)
                assert receiver.recv(2000) == data
    assert host.capture.counters()[Counter.DPDK_FROM_KERNEL_DROPPED] == 0


def _matched(wire: TruthWire, folder: Path, capture: Capture) -> dict[str, Any]:
    """What an exporter says of a feed of 10,000 messages over the port."""
    held = HeldPort()
    at = f"127.0.0.1:{held.number}"
    rings = str(capture.rings)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    config = SimulatorConfig(
        host=str(wire.server.ipv4), port=PORT, tls="1.3", speed=Fraction(100), messages=_MESSAGES, connections=1
    )
    log = (folder / "others.log").open("wb")
    exporter = subprocess.Popen(tickpath("exporter", "--listen", at, "--directory", rings, *_PATIENT), stderr=log)
    with log, wire.inside(wire.server):
        simulator = Simulator(config)
        simulator.__enter__()
    try:

        def summary() -> dict[str, Any]:
            try:
                with opener.open(f"http://{at}/api/summary", timeout=10) as answer:
                    return dict(json.loads(answer.read()))
            except OSError:
                return {}

        wait_until(lambda: "rings" in summary(), "an exporter", 90)
        wait_until(lambda: "dpdk-net_af_packet0-0" in summary()["rings"], "the capture's ring in the exporter")
        argv = tickpath("feed", f"{simulator.url}/market/ws/btcusdt@trade", "--publish", "none", "--no-reconnect")
        argv += ["--directory", rings, "--cafile", str(simulator.ca_path)]
        with (folder / "feed.log").open("wb") as said:
            wire.run_in(wire.client, argv, stderr=said).wait(90)
        wait_until(lambda: summary()["messages"] + summary()["pending"] >= _MESSAGES, "all in the exporter", 60)
        wait_until(lambda: summary()["pending"] == 0, "an end of waiting", 60)
        return summary()
    finally:
        simulator.__exit__(None, None, None)
        exporter.terminate()
        exporter.wait(60)
        held.close()


@pytest.mark.timeout(300)
def test_every_message_is_joined_by_its_byte_with_the_poll_that_brought_it(host: Host, tmp_path: Path) -> None:
    before = host.capture.counters()
    summary = _matched(host.wire, tmp_path, host.capture)
    assert summary["matched"]["offset"] == summary["messages"] == _MESSAGES
    assert summary["hops"]["bn_to_nic"]["source"] == "poll"
    assert summary["hops"]["bn_to_nic"]["count"] == _MESSAGES
    after = host.capture.counters()
    assert after[Counter.DPDK_HOLES] == before[Counter.DPDK_HOLES]
    assert after[Counter.DPDK_MISSED] == 0


def _read(receiver: socket.socket, length: int) -> bytes:
    got = bytearray()
    while len(got) < length and (more := receiver.recv(length - len(got))):
        got += more
    return bytes(got)


# TCP tries again after as long as it has waited already, and a start takes long where the machine is busy.
@pytest.mark.timeout(300)
def test_a_connection_lives_through_the_death_of_who_forwards(tmp_path: Path) -> None:
    data = noise(40_000_000)  # more than both ends keep for each other
    with given_up() as wire:
        capture = Capture(wire, tmp_path).ready()
        addressed(wire)
        with connection(wire, port=PORT) as (server, client):
            for end in (server, client):
                end.settimeout(200)
            sending = threading.Thread(target=server.sendall, args=(data,), daemon=True)
            sending.start()
            first = _read(client, 1_000_000)
            capture.kill()
            with Capture(wire, tmp_path) as successor:
                assert _digest(first + _read(client, len(data) - len(first))) == _digest(data)
                sending.join()
                assert transfer(client, server, data[:100_000]) == data[:100_000]
                successor.counted(Counter.DPDK_TO_KERNEL, 1000)


def test_frames_not_taken_are_counted_and_a_tap_that_vanishes_ends_the_capture_in_one_line(
    tmp_path: Path,
) -> None:
    with given_up() as wire, Capture(wire, tmp_path) as capture:
        addressed(wire)
        link(wire, wire.client, "set", TAP, "down")
        with wire.inside(wire.server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(20):
                sender.sendto(b"nobody is there", (str(wire.client.ipv4), PORT))
        capture.counted(Counter.DPDK_TO_KERNEL_DROPPED, 20)
        link(wire, wire.client, "set", TAP, "mtu", "3000", "up")
        addressed(wire)
        with wire.inside(wire.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(bytes(2500), (str(wire.server.ipv4), PORT))
        capture.counted(Counter.DPDK_FROM_KERNEL_DROPPED, 3)

        link(wire, wire.client, "delete", TAP)
        assert capture.process.wait(20) == 1
        assert f"TAP {TAP} was removed under the capture" in capture.said.splitlines()[-1]
        assert "Traceback" not in capture.said


def test_what_the_port_takes_and_cannot_send_is_counted(tmp_path: Path) -> None:
    small = "blocksz=131072,framesz=1024,framecnt=8192"
    with given_up() as wire, Capture(wire, tmp_path, frames=small) as capture:
        addressed(wire)
        with wire.inside(wire.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(7):
                sender.sendto(bytes(1400), (str(wire.server.ipv4), PORT))
        capture.counted(Counter.DPDK_FROM_KERNEL_DROPPED, 7)
        assert capture.stop() == 0
        assert capture.counters()[Counter.DPDK_FROM_KERNEL_DROPPED] == 7, capture.said


def test_two_cannot_forward_to_one_tap_and_a_stranger_s_interface_is_left_alone(host: Host, tmp_path: Path) -> None:
    second = Capture(host.wire, tmp_path / "second")
    assert second.process.wait(60) == 1
    assert "another process forwards to it" in second.said.splitlines()[-1]
    third = Capture(host.wire, tmp_path / "third", "--tap", host.wire.client.device)
    assert third.process.wait(60) == 1
    assert "name another with --tap" in third.said.splitlines()[-1]


def _dry(wire: TruthWire, *flags: str) -> tuple[int, str, str]:
    device = f"net_af_packet0,iface={wire.client.device}"
    argv = tickpath("capture", "dpdk", "--mode", "inline", "--device", device, "--dry-run", *flags)
    done = wire.run_in(wire.client, argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, complained = done.communicate(timeout=60)
    return done.returncode, said, complained


def test_the_default_route_s_interface_is_taken_only_when_told_twice() -> None:
    with TruthWire(WireConfig()) as wire:
        with wire.inside(wire.client):
            subprocess.run(["ip", "route", "add", "default", "via", str(wire.server.ipv4)], check=True)
        status, said, complained = _dry(wire)
        assert (status, said) == (2, "")
        assert len(complained.splitlines()) == 1
        assert "if that is meant, say so: --default-route" in complained
        status, said, complained = _dry(wire, "--default-route")
        assert status == 0, complained
        assert f"TAP {TAP}: made" in said
        with wire.inside(wire.client):
            assert TAP not in [name for _, name in socket.if_nameindex()]
