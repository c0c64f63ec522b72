# SPDX-License-Identifier: Apache-2.0
"""One paced stream over the truth wire, half the messages of which are stalled in one step."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any

import numpy as np
import structlog
import websocket

from blame.sender import SINK_PORT, stalled
from kernel.tracing import Tracing
from tickpath.exporter.correlator import JOINED, Correlator, Leg
from tickpath.lab.shuttle import Faults, TruthWire, When, WireConfig
from tickpath.probes.feed.connection import Connection, ConnectSettings, open_connection, tls_context
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.session import ConnectionEnded, Session, Stop
from tickpath.probes.feed.venues import subscribe
from tickpath.probes.feed.venues.venue import Reader
from tickpath.recorder import Recorder
from tickpath.selector import Selector
from truth.play import WireProbe

_PORT = 18065
_GAP_NS = 1_500_000
# What is stalled does as much in every message, and the stall on top in half of them: so both run the same code.
_BASE_NS = 20_000
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Stall:
    """Where it is put; the part of that name must move, by `ns` or a little more."""

    part: Leg
    ns: int


STALLS = [
    Stall(Leg.CPU, 200_000),
    Stall(Leg.APP_BUSY, 200_000),
    Stall(Leg.WAKE, 200_000),
    Stall(Leg.BN_TO_NIC, 200_000),
    Stall(Leg.HOL_WAIT, 200_000),
]


def _faults(stall: Stall) -> Faults:
    # Frames of the sender's that belong to no stream set free what is held back, when the sender says so.
    if stall.part is Leg.BN_TO_NIC:
        return Faults(hold=When(every=2), hold_frames=2, hold_ns=20_000_000, only_payload=False)
    if stall.part is Leg.HOL_WAIT:
        # Of three frames the first goes behind the third.
        return Faults(swap=When(every=3), swap_by=2, swap_wait_ns=20_000_000, only_payload=False)
    return Faults()


def _spin(ns: int) -> None:
    until_ns = monotonic_ns() + ns
    while monotonic_ns() < until_ns:
        pass


class _Turns:
    """Says for one message after the other whether it is stalled."""

    def __init__(self, stall: Stall, part: Leg) -> None:
        self._ns = stall.ns if stall.part is part else 0
        self._number = 0

    def take(self) -> None:
        if self._ns:
            _spin(_BASE_NS + (self._ns if stalled(self._number) else 0))
        self._number += 1


class _Waiting:
    """In the WebSocket's place: an application that looks whether there is data, and has something else to do first."""

    def __init__(self, connection: Connection, stall: Stall) -> None:
        self._receive = connection.websocket.recv_data_frame
        self._sock = connection.sock
        self._turns = _Turns(stall, Leg.APP_BUSY)

    def recv_data_frame(self, control: bool) -> Any:
        if select.select([self._sock], [], [], 1)[0]:
            self._turns.take()
        return self._receive(control)


def _slow(reader: Reader, stall: Stall) -> Reader:
    turns, read = _Turns(stall, Leg.CPU), reader.read

    def slow_read(payload: bytes) -> None:
        read(payload)
        turns.take()

    reader.read = slow_read  # type: ignore[method-assign]
    return reader


@contextlib.contextmanager
def _competitor(cpu: int, *words: Path) -> Iterator[None]:
    argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", _HERE / "competitor.py", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            os.sched_setaffinity(process.pid, {cpu})
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """This thread, and what it starts meanwhile, at real-time priority: the host's other work waits, not the stream."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@contextlib.contextmanager
def _on(cpu: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _application(connection: Connection, reader: Reader, recorder: Recorder, stall: Stall) -> None:
    """Takes every message, until the sender leaves."""
    publisher = Publisher(f"inproc://blame-{id(connection)}", 1000)
    face: Any = connection
    if stall.part is Leg.APP_BUSY:
        face = Connection(_Waiting(connection, stall), connection.sock, connection.recorder)
    try:
        ended = (ConnectionEnded, websocket.WebSocketConnectionClosedException, ConnectionError)
        with contextlib.suppress(*ended):
            Session(face, _slow(reader, stall), recorder, publisher, idle_timeout_s=10, every_second=lambda: None).run(
                Stop()
            )
    finally:
        connection.sock.close()
        publisher.close()


def _results(paths: list[Path], probes: list[Callable[[], None]]) -> Any:
    """Of everything that the rings hold, once their writers are done."""
    for stop in probes:
        stop()
    correlator = Correlator(joined_capacity=1 << 16)
    for path in paths:
        correlator.attach(path, from_start=True)
    correlator.poll()
    correlator.flush()
    out = np.zeros(1 << 16, JOINED)
    return out[: correlator.joined(out)]


def play(stall: Stall, directory: Path, messages: int) -> Any:
    """The results of all messages. The application has one processor for itself, all else shares another."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    beside, own = sorted(os.sched_getaffinity(0))[:2]
    asked = directory / "competitor"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_on(beside))
        stack.enter_context(_before_others())
        wire = stack.enter_context(TruthWire(WireConfig(to_client=_faults(stall), armed=False)))
        with wire.inside(wire.server):
            # Else one frame out of order is enough for the sender to repeat what is held back.
            Path("/proc/sys/net/ipv4/tcp_sack").write_text("0")
        with wire.inside(wire.client):
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.bind((str(wire.client.ipv4), SINK_PORT))
        tracing = stack.enter_context(Tracing(directory, [Selector(_PORT)], buffer_bytes=1 << 22, interval_ms=20))
        probe = WireProbe(wire, directory)
        probe.start()
        stack.callback(probe.stop)
        if stall.part is Leg.WAKE:
            stack.enter_context(_competitor(own, asked))
        # What else the host does would make the reader's caches the colder, the longer it waits.
        stack.enter_context(_competitor(own))
        words = (wire.server.ipv4, _PORT, messages, _GAP_NS, stall.part.name.lower(), stall.ns, asked)
        argv = [sys.executable, "-P", str(_HERE / "sender.py"), *map(str, words)]
        sender = wire.run_in(wire.server, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert sender.stdout is not None
        assert sender.stdout.readline() == b"listening\n"
        recorder = stack.enter_context(Recorder(directory, "feed", capacity=1 << 16))
        url = f"ws://{wire.server.ipv4}:{_PORT}/ws/btcusdt@trade?timeUnit=MICROSECOND"
        subscription = subscribe(url, "binance-spot")
        with wire.inside(wire.client):
            connection = open_connection(
                subscription, tls_context(None), recorder, feed="blame", reconnects=0, settings=ConnectSettings()
            )
        wire.arm()
        assert sender.stdin is not None
        sender.stdin.write(b"\n")
        sender.stdin.flush()
        with _on(own):
            _application(connection, subscription.reader(), recorder, stall)
        return _results([probe.path, tracing.path, recorder.ring.path], [probe.stop, tracing.stop])
