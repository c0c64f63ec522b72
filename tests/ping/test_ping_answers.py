# SPDX-License-Identifier: Apache-2.0
"""Answers that are no answers: damaged, foreign, refusing, from the wrong place; each is counted as what it is."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pinging import COMMAND, PORT, answering, ping, run
from tickpath.errors import ConfigError
from tickpath.event import PingProto
from tickpath.lab.shuttle import TruthWire
from tickpath.lab.shuttle.namespace import run_inside
from tickpath.probes.ping.config import PingConfig
from tickpath.probes.ping.target import Address, parse_target

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices")
ORDINAL_AT = 16


def changed(request: bytes, at: int) -> bytes:
    return request[:at] + bytes([request[at] ^ 1]) + request[at + 1 :]


DAMAGED: list[Callable[[bytes], bytes]] = [
    lambda request: request[:-1],
    lambda request: request[:10],
    lambda request: request + b"x",
    lambda request: request * 3,
    lambda request: changed(request, 40),  # the payload
    lambda request: changed(request, 4),  # the version
]
FOREIGN: list[Callable[[bytes], bytes]] = [
    lambda request: changed(request, 8),  # the nonce
    lambda request: changed(request, 0),  # the magic
    lambda request: request[:ORDINAL_AT] + struct.pack("=Q", 2**63) + request[ORDINAL_AT + 8 :],
]


def test_what_was_not_sent_is_no_answer() -> None:
    with answering(lambda request: [change(request) for change in DAMAGED + FOREIGN]) as port:
        code, lines, stderr = run(f"udp://127.0.0.1:{port}", "-c", "5", "-i", "0.01", "-W", "0.5", "--linger", "4")
    totals = lines[-1]
    assert (code, totals["received"], totals["lost"], totals["duplicates"]) == (1, 0, 5, 0)
    assert f"{5 * len(DAMAGED)} replies damaged" in stderr
    assert f"{5 * len(FOREIGN)} replies to nothing" in stderr


def test_a_plain_echo_is_an_answer_and_a_second_one_a_duplicate() -> None:
    with answering(lambda request: [changed(request, 30), request, request]) as port:
        code, lines, stderr = run(f"udp://127.0.0.1:{port}", "-c", "20", "-i", "0.01", "-W", "30", "--linger", "2")
    assert (code, lines[-1]["received"], lines[-1]["duplicates"], lines[-1]["lost"]) == (0, 20, 20, 0)
    assert "20 replies damaged" in stderr


def test_a_closed_port_is_an_error_that_says_so() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bound, socket.socket() as tcp:
        bound.bind(("127.0.0.1", 0))
        tcp.bind(("127.0.0.1", 0))
        udp, port = bound.getsockname()[1], tcp.getsockname()[1]
        bound.close()
        code, lines, _ = run(f"udp://127.0.0.1:{udp}", f"tcp://127.0.0.1:{port}", "-c", "10", "-i", "0.01", "-W", "30")
    assert code == 1
    first, second = lines[-2:]
    assert (first["errors"], first["lost"]) == ({"Destination Port Unreachable": 10}, 0)
    assert (second["errors"], second["lost"]) == ({"Connection refused": 10}, 0)
    assert {one["offender"] for one in lines if one.get("result") == "error" and one["proto"] == "udp"} == {"127.0.0.1"}


@pytest.mark.root
@root
def test_a_router_that_knows_no_way_is_named_with_its_reason() -> None:
    with TruthWire() as wire:
        with wire.inside(wire.server):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            # Else it says so only now and then.
            Path("/proc/sys/net/ipv4/icmp_ratemask").write_text("0")
        run_inside(wire.server.namespace, ["ip", "route", "add", "unreachable", "10.99.0.0/24"])
        run_inside(wire.client.namespace, ["ip", "route", "add", "10.99.0.0/24", "via", str(wire.server.ipv4)])
        # A router says so five times at once, and then once a second.
        icmp = ping(wire, "10.99.0.1", "-c", "2", "-i", "0.01", "-W", "30")
        udp = ping(wire, f"udp://10.99.0.1:{PORT}", "-c", "2", "-i", "0.01", "-W", "30")
        tcp = ping(wire, f"tcp://10.99.0.1:{PORT}", "-c", "1", "-W", "30")
    for one in (icmp, udp):
        assert one.totals["errors"] == {"Destination Host Unreachable": 2}
        assert {error["offender"] for error in one.of("error")} == {str(wire.server.ipv4)}
        assert one.seqs("error") == [1, 2]
    assert tcp.totals["errors"] == {"No route to host": 1}
    assert (icmp.code, udp.totals["lost"], tcp.totals["lost"]) == (1, 0, 0)


@pytest.mark.root
@root
def test_a_wrong_checksum_and_another_pingers_answers_are_not_taken() -> None:
    def answer(requests: socket.socket) -> None:
        for _ in range(10):
            packet, peer = requests.recvfrom(65536)
            request = packet[20:]
            reply = bytearray(request)
            reply[0] = 0
            (total,) = struct.unpack("!H", request[2:4])
            # The type's change, in one's complement.
            total += 8 << 8
            total = (total & 0xFFFF) + (total >> 16)
            bad, other = bytearray(reply), bytearray(reply)
            bad[2:4] = struct.pack("!H", total ^ 1)
            reply[2:4] = struct.pack("!H", total)
            other[2:4], other[4:6] = reply[2:4], struct.pack("!H", struct.unpack("!H", request[4:6])[0] ^ 1)
            for one in (bad, other, reply):
                requests.sendto(one, peer)

    with TruthWire() as wire:
        with wire.inside(wire.server):
            Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1")
            requests = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            requests.setsockopt(255, 1, struct.pack("=I", 0xFFFFFFFF & ~(1 << 8)))  # ICMP_FILTER: requests alone
        requests.settimeout(30)
        with requests:
            thread = threading.Thread(target=answer, args=(requests,), daemon=True)
            thread.start()
            found = ping(wire, str(wire.server.ipv4), "-c", "10", "-i", "0.01", "-W", "30", "--raw")
            thread.join()
    assert (found.code, found.totals["received"], found.totals["duplicates"]) == (0, 10, 0)
    assert "10 replies damaged" in found.stderr
    assert "to nothing" not in found.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no.such.host.invalid", "cannot resolve 'no.such.host.invalid'"),
        ("http://127.0.0.1", "'http' is not one of icmp, udp, tcp"),
        ("udp://127.0.0.1:0", "port '0' is not a number from 1 to 65535"),
        ("icmp://127.0.0.1:7", "ICMP has no ports"),
        ("udp://", "is not HOST"),
        ("[::1", "is not HOST"),
        ("x" * 300, "cannot resolve"),
        ("a..b", "cannot resolve"),
        ("\0", "cannot resolve"),
    ],
)
def test_a_target_that_cannot_be_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_target(text, PingConfig())


@pytest.mark.parametrize(
    ("text", "proto", "address"),
    [
        ("127.0.0.1", PingProto.ICMP, ("127.0.0.1", 0)),
        ("::1", PingProto.ICMP, ("::1", 0, 0, 0)),
        ("udp://::1", PingProto.UDP, ("::1", 18066, 0, 0)),
        ("tcp://[::1]:80", PingProto.TCP, ("::1", 80, 0, 0)),
        ("tcp://127.0.0.1", PingProto.TCP, ("127.0.0.1", 443)),
    ],
)
def test_a_target_is_read_as_it_is_written(text: str, proto: PingProto, address: Address) -> None:
    target = parse_target(text, PingConfig())
    assert (target.proto, target.address) == (proto, address)
    assert parse_target(text, PingConfig(port=99)).address[1] in {0, 80, 99}


def test_without_a_target_nothing_is_pinged() -> None:
    code, lines, stderr = run()
    assert (code, lines, len(stderr.splitlines())) == (2, [], 1)
    assert "nothing to ping" in stderr


@pytest.mark.root
@root
def test_who_may_not_ping_is_told_what_would_let_him() -> None:
    with TruthWire() as wire:
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        child = wire.run_in(
            wire.client, [*nobody, *COMMAND, str(wire.server.ipv4), "-c", "1"], stderr=subprocess.PIPE, text=True
        )
        _, stderr = child.communicate(timeout=30)
    assert child.returncode == 77, stderr
    assert "ping_group_range" in stderr
    assert len(stderr.splitlines()) == 1
