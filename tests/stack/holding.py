# SPDX-License-Identifier: Apache-2.0
"""Holds the packets of one connection for a known time, before the NIC or between NIC and TCP, by netfilter's queue.

The queue is the host's own (NFQUEUE): a packet that leaves waits before the loopback device gets it, one that comes
waits behind what capturing sees and before what TCP sees. Nothing of the product knows of it.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from netns import entered

_NETLINK_NETFILTER = 12
_QUEUE = 3 << 8  # NFNL_SUBSYS_QUEUE
_VERDICT, _CONFIG = _QUEUE | 1, _QUEUE | 2
_REQUEST, _ACK = 1, 4
_NUMBER = 5
_ACCEPT = 1
_PACKET_HEADER, _VERDICT_HEADER = 1, 2  # attributes
_ERROR = 2


class Where(Enum):
    """The chain in which a packet waits."""

    BEFORE_NIC = "OUTPUT"
    BEFORE_TCP = "INPUT"


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


class _Queue:
    """The queue of a network namespace, bound for as long as it is open."""

    def __init__(self, namespace: Path) -> None:
        with entered(namespace):
            self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        bind, copy_metadata = _attribute(1, struct.pack("!BxH", 1, 0)), _attribute(2, struct.pack("!IB", 0, 1))
        for command in (bind, copy_metadata):
            self._send(_CONFIG, command, _REQUEST | _ACK)
            (error,) = struct.unpack_from("=i", self.sock.recv(4096), 16)
            if error:
                raise OSError(-error, f"netfilter's queue: {os.strerror(-error)}")
        self.sock.settimeout(0.1)

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        body = struct.pack("!BBH", 0, 0, _NUMBER) + body
        self.sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body)

    def packet(self) -> int | None:
        """The next packet's number; None: none came for a while."""
        try:
            message = self.sock.recv(1 << 16)
        except TimeoutError:
            return None
        at = 20
        while at < len(message):
            length, kind = struct.unpack_from("=HH", message, at)
            if kind == _PACKET_HEADER:
                return int(struct.unpack_from("!I", message, at + 4)[0])
            at += (length + 3) & ~3
        return None

    def accept(self, packet: int) -> None:
        """Let it go on."""
        self._send(_VERDICT, _attribute(_VERDICT_HEADER, struct.pack("!II", _ACCEPT, packet)), _REQUEST)


def _stands_still(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("T")


def _hold(queue: _Queue, seconds: float, reader: int | None, end: threading.Event) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(6))  # of this thread
    while not end.is_set():
        packet = queue.packet()
        if packet is None:
            continue
        if reader is None:
            time.sleep(seconds)
            queue.accept(packet)
            continue
        # The reader sleeps in its call for data, and stands still before there is some: else it would take it first.
        os.kill(reader, signal.SIGSTOP)
        while not _stands_still(reader) and not end.is_set():
            time.sleep(0.0001)
        queue.accept(packet)
        time.sleep(seconds)
        os.kill(reader, signal.SIGCONT)


@contextmanager
def held(namespace: Path, where: Where, port: int, seconds: float, reader: int | None = None) -> Iterator[None]:
    """What goes to the TCP `port` waits there; with a `reader` (a pid) it goes on at once, and that process waits."""
    rule = [where.value, "-p", "tcp", "--dport", str(port), "-j", "NFQUEUE", "--queue-num", str(_NUMBER)]
    tables = ["nsenter", f"--net={namespace}", "--", "iptables", "-w"]
    queue = _Queue(namespace)
    end = threading.Event()
    thread = threading.Thread(target=_hold, args=(queue, seconds, reader, end), daemon=True)
    thread.start()
    try:
        subprocess.run([*tables, "-I", *rule, "--queue-bypass"], check=True)
        try:
            yield
        finally:
            subprocess.run([*tables, "-D", *rule, "--queue-bypass"], check=True)
            time.sleep(2 * seconds)  # what still waits is let go
    finally:
        end.set()
        thread.join()
        queue.sock.close()
