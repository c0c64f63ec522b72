# SPDX-License-Identifier: Apache-2.0
"""Traffic over the truth wire, and a witness of it that is not ours: the kernel's own packet socket."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import numpy as np

from tickpath.lab.shuttle import Direction, Side, TruthWire

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_TIMEOUT_S = 60.0
_GLANCE_S = 0.02  # the most that one look at a quiet wire counts for
_PORTS = itertools.count(20000)

Address = IPv4Address | IPv6Address


def wait_until(holds: Callable[[], bool], what: str, seconds: float = _TIMEOUT_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.005)


def settled(wire: TruthWire, quiet_s: float = 0.1) -> None:
    """Wait until the wire is quiet: its shuttle waits for frames and logs none for a while.

    Time in which this process, or the shuttle, waited for a processor or stood still says nothing, and does not count.
    """
    seen, quiet_for_s, before = -1, 0.0, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, quiet_for_s, before
        now, logged = time.monotonic(), len(wire.log())
        waits = Path(f"/proc/{wire.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        quiet_for_s = quiet_for_s + min(now - before, _GLANCE_S) if waits and logged == seen else 0.0
        seen, before = logged, now
        return quiet_for_s > quiet_s

    wait_until(quiet, "quiet on the wire")


def noise(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


@contextlib.contextmanager
def connection(
    wire: TruthWire, version: int = 4, port: int | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection: the server's socket, the client's socket; on a port of its own unless `port` is given."""
    with wire.connection(port or next(_PORTS), version) as ends:
        yield ends


def transfer(sender: socket.socket, receiver: socket.socket, data: bytes) -> bytes:
    """What `receiver` gets of `data`."""
    sending = threading.Thread(target=sender.sendall, args=(data,), daemon=True)
    sending.start()
    got = bytearray()
    while len(got) < len(data) and (more := receiver.recv(1 << 20)):
        got += more
    sending.join(_TIMEOUT_S)
    return bytes(got)


def send_paced(sender: socket.socket, receiver: socket.socket, count: int, size_bytes: int = 100) -> None:
    """`count` segments of one size, each acknowledged before the next: the wire sees the same frames in every run."""
    for ordinal in range(count):
        sender.sendall(ordinal.to_bytes(4) * (size_bytes // 4))
        got = 0
        while got < size_bytes:
            got += len(receiver.recv(size_bytes - got))


def _left(wire: TruthWire, side: Side) -> tuple[int, int]:
    """Frames that left the side's device: the shuttle has read them; the kernel counts them as dropped."""
    with wire.inside(side):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (counters,) = (line.split()[1:] for line in lines if line.split()[0] == f"{side.device}:")
    return int(counters[9]), int(counters[11])


def send_bunch(
    wire: TruthWire,
    origin: Side,
    target: Side,
    sizes: list[int],
    *,
    waiting: int = 0,
    copies: int = 0,
    once_sent: Callable[[], None] = lambda: None,
) -> None:
    """UDP datagrams, one after the other without waiting: nobody repeats one that is lost.

    Returns once the shuttle has taken them all and has logged what becomes of all but `waiting`, and so many copies.
    """
    port = next(_PORTS)
    direction = Direction.TO_CLIENT if origin is wire.server else Direction.TO_SERVER

    def logged() -> tuple[int, int]:
        log = wire.log()
        copy = log["copy"][log["direction"] == direction] > 0
        return int(np.count_nonzero(~copy)), int(np.count_nonzero(copy))

    with wire.inside(origin):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with wire.inside(target):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        # Bound: a neighbour that says "no such port" would add frames of its own.
        receiver.bind((str(target.ipv4), port))
        (taken, dropped), (originals, copied) = _left(wire, origin), logged()
        for size in sizes:
            sender.sendto(bytes(size), (str(target.ipv4), port))
        once_sent()
        wait_until(lambda: sum(_left(wire, origin)) - taken - dropped >= len(sizes), "all datagrams in the shuttle")
        lost = _left(wire, origin)[1] - dropped
        wait_until(lambda: logged()[0] - originals >= len(sizes) - lost - waiting, "all datagrams in the log")
        wait_until(lambda: logged()[1] - copied >= copies, "all copies in the log")


def echo_answered(wire: TruthWire, origin: Side, target: Address, payload: bytes = b"tickpath") -> bool:
    """Whether a ping of `target` from the side `origin` is answered with its own bytes."""
    v4 = target.version == 4
    family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if v4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    request, reply = (8, 0) if v4 else (128, 129)
    head = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1)
    if v4:
        words = struct.unpack(f"!{(len(head) + len(payload)) // 2}H", head + payload)
        total = sum(words)
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:]
    with wire.inside(origin), socket.socket(family, socket.SOCK_RAW, protocol) as echo:
        echo.settimeout(_TIMEOUT_S)
        echo.sendto(head + payload, (str(target), 0))
        while True:
            got = echo.recv(65536)
            message = got[20:] if v4 else got
            if message[0] == reply and message[4:8] == head[4:8]:
                return message[8:] == payload


@dataclass(frozen=True)
class Sighting:
    """A frame as a packet socket saw it, with the kernel's software stamp (CLOCK_REALTIME)."""

    frame: bytes
    stamp_ns: int


class Witness:
    """A packet socket on one side's device: every frame that came in, in the kernel's order."""

    def __init__(self, wire: TruthWire, side: Side) -> None:
        with wire.inside(side):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 28)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        with wire.inside(side):
            self._socket.bind((side.device, _ETH_P_ALL))

    def sightings(self) -> list[Sighting]:
        """What came in since the last call."""
        seen = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, _ = self._socket.recvmsg(1 << 17, 256)
                (stamp,) = (data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, 35))
                seconds, nanoseconds = struct.unpack("qq", stamp)
                seen.append(Sighting(frame, seconds * 1_000_000_000 + nanoseconds))
        return seen

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
