# SPDX-License-Identifier: Apache-2.0
"""Pings over the truth wire, by the command itself, and what the shuttle's log says of each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tickpath.lab.shuttle import Direction, Fate, Log, TruthWire, has
from tickpath.probes.ping._pinger import Echo
from traffic import settled, wait_until

COMMAND = [str(Path(sys.executable).parent / "tickpath"), "ping"]
PORT = 18066


def allow_ping_sockets(wire: TruthWire) -> None:
    with wire.inside(wire.client):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")


@contextlib.contextmanager
def stamping() -> Iterator[None]:
    """The kernel stamps arrivals meanwhile: it begins a while after the first socket asked, later where it is busy."""
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        asking.bind(("127.0.0.1", 0))

        def stamped() -> bool:
            asking.sendto(b"x", asking.getsockname())
            read_ns = time.time_ns()
            _, ((_, _, stamp), *_), _, _ = asking.recvmsg(1, 64)
            seconds, nanoseconds = struct.unpack("qq", stamp)
            # Until then the stamp is that of the reading.
            return int(seconds * 1_000_000_000 + nanoseconds) < read_ns

        wait_until(stamped, "stamps at arrival")
        yield


@contextlib.contextmanager
def echo_server(wire: TruthWire) -> Iterator[None]:
    """`tickpath ping --serve` on the server's side."""
    server = wire.run_in(wire.server, [*COMMAND, "--serve", "-p", str(PORT)], stderr=subprocess.PIPE, text=True)
    assert server.stderr
    said = server.stderr.readline()
    assert "ready" in said, said
    try:
        yield
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


@contextlib.contextmanager
def listening(wire: TruthWire) -> Iterator[None]:
    """A TCP server that takes every connection and hangs up."""
    with wire.inside(wire.server):
        server = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """`tickpath ping --json` here: its code, its lines and what it said beside."""
    done = subprocess.run([*COMMAND, "--json", *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@contextlib.contextmanager
def answering(answers: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A UDP server on loopback that answers each datagram with those; its port."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (got := server.recvfrom(65536))[0]:
                for answer in answers(got[0]):
                    server.sendto(answer, got[1])

        thread = threading.Thread(target=serve)
        thread.start()
        port: int = server.getsockname()[1]
        try:
            yield port
        finally:
            with socket.socket(type=socket.SOCK_DGRAM) as stop:
                stop.sendto(b"", ("127.0.0.1", port))
            thread.join()


@contextlib.contextmanager
def echo() -> Iterator[Echo]:
    """Our echo server on loopback, in a thread."""
    served = Echo(("127.0.0.1", 0))
    read, write = os.pipe()
    thread = threading.Thread(target=served.run, args=(read,))
    thread.start()
    try:
        yield served
    finally:
        os.close(write)
        thread.join()
        os.close(read)


def server_of(wire: TruthWire, proto: str) -> contextlib.AbstractContextManager[None]:
    if proto == "udp":
        return echo_server(wire)
    return listening(wire) if proto == "tcp" else contextlib.nullcontext()


def target(wire: TruthWire, proto: str, version: int) -> str:
    address = wire.server.ipv4 if version == 4 else wire.server.ipv6
    if proto == "icmp":
        return f"icmp://{address}"
    return f"{proto}://[{address}]:{PORT}"


@dataclass(frozen=True)
class Run:
    """One run: the outcomes by their order, the totals, and the shuttle's log of it."""

    outcomes: list[dict[str, Any]]
    totals: dict[str, Any]
    log: Log
    stderr: str
    code: int

    def of(self, result: str) -> list[dict[str, Any]]:
        return [one for one in self.outcomes if one["result"] == result]

    def seqs(self, result: str) -> list[int]:
        return sorted(one["seq"] for one in self.of(result))


def ping(wire: TruthWire, *arguments: str, until: tuple[int, float] | None = None) -> Run:
    """`tickpath ping --json` of one target on the client's side, and the log while it ran.

    `until`: it is told to stop once so many frames have left the client, and the wire was quiet for so many seconds.
    """
    settled(wire, 0.05)
    start = len(wire.log())
    child = wire.run_in(
        wire.client, [*COMMAND, "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if until:
        count, quiet_s = until
        wait_until(lambda: sent(wire.log()[start:]) >= count, "all of them on the wire")
        settled(wire, quiet_s)
        child.terminate()
    out, err = child.communicate(timeout=120)
    lines = [json.loads(line) for line in out.splitlines()]
    settled(wire, 0.05)
    return Run(lines[:-1], lines[-1] if lines else {}, wire.log()[start:], err, child.returncode)


def sent(log: Log) -> int:
    """Frames that left the client."""
    return int(np.count_nonzero(log["direction"] == Direction.TO_SERVER))


@dataclass(frozen=True)
class Truth:
    """What the log says of a ping whose request and reply are the nth frame of their directions."""

    held_ns: int
    """From the shuttle's reading the request to its writing the reply: the RTT is no less."""
    written_ns: int
    """When the reply was written, at the latest; monotonic."""
    copies: int


def truths(log: Log) -> dict[int, Truth]:
    """By the number of the ping, of those whose reply came through; no request may have been harmed."""
    requests = log[log["direction"] == Direction.TO_SERVER]
    replies = log[log["direction"] == Direction.TO_CLIENT]
    first_request, first_reply = int(requests["number"].min()), int(replies["number"].min())
    read_ns = {int(r["number"]) - first_request + 1: int(r["read_ns"]) for r in requests}
    found: dict[int, Truth] = {}
    for reply in replies[has(replies, Fate.FORWARDED)]:
        seq = int(reply["number"]) - first_reply + 1
        if int(reply["fate"]) & Fate.COPY:
            before = found[seq]
            found[seq] = Truth(before.held_ns, before.written_ns, before.copies + 1)
        else:
            found[seq] = Truth(int(reply["before_ns"]) - read_ns[seq], int(reply["after_ns"]), 0)
    return found


def dropped(log: Log) -> list[int]:
    """The numbers of the pings whose reply was dropped."""
    replies = log[log["direction"] == Direction.TO_CLIENT]
    first = int(replies["number"].min())
    return sorted((replies["number"][has(replies, Fate.DROPPED)].astype(np.int64) - first + 1).tolist())
