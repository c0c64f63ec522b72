# SPDX-License-Identifier: Apache-2.0
"""Plays a scenario: simulator and feeds in their namespaces, the wire probe beside the feeds, the correlator last."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kernel.tracing import CAN_TRACE, Tracing
from netns import Namespace
from tickpath.event import RECORD, Counter, Kind
from tickpath.exporter.correlator import JOINED, Correlator
from tickpath.exporter.snapshot import Snapshot
from tickpath.lab.shuttle import Log, TruthWire, WireConfig
from tickpath.lab.shuttle.namespace import run_inside
from tickpath.lab.simulator.config import Faults, SimulatorConfig, Venue
from tickpath.lab.simulator.server import Simulator
from tickpath.lab.simulator.truth import Sent
from tickpath.probes.feed.connection import ConnectError, ConnectSettings, tls_context
from tickpath.probes.feed.feed import Feed, FeedSettings
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.venues import subscribe
from tickpath.probes.wire.config import WireConfig as ProbeConfig
from tickpath.probes.wire.probe import InterfaceProbe
from tickpath.recorder import Recorder
from tickpath.ring import RingReader
from tickpath.selector import Selector
from traffic import wait_until
from truth.scenario import Scenario

_PORT = 18065
_STREAMS = "btcusd_perp@bookTicker/btcusd_perp@trade/btcusd_perp@depth@0ms"
_PATIENCE_S = 60.0
_POLL_S = 0.002
# The kernel's clock of initial sequence numbers: one every 64 ns, added to a number that the addresses decide.
_ISN_NS = 64
_CYCLE_S = 0.25
_SQUEEZE_S = 0.04
_LATE_S = 0.06
_START_NS = 4_000_000_000


_Inside = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass
class Evidence:
    """Everything that was seen of one session."""

    log: Log
    sent: list[Sent]
    joined: Any
    ports: dict[tuple[int, int], int]
    """The client's port by the ring and row of a result."""
    segments: Any
    """What the wire probe wrote: records of kind SEGMENT."""
    kernel: Any
    """What the kernel probe wrote: records of kinds READABLE and COPIED; None where it did not run."""
    events_lost: int
    """Events that the kernel probe could not hand on."""
    snapshot: Snapshot
    received: int
    """Messages that the feeds counted."""
    dropped: int
    """Frames that the wire probe's socket could not hold."""
    pruned: int
    """Segments that the client's TCP threw away for want of room."""
    seconds: float


def _masquerade(wire: TruthWire, inner: Namespace) -> None:
    """Put a namespace behind the client's: the wire then shows another address and port than its sockets have."""
    inner.ip("link", "add", "veth0", "type", "veth", "peer", "name", "tpnat", "netns", str(wire.client.namespace))
    inner.address("veth0", "10.79.0.2/24")
    rules = "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100 ; }; "
    rules += f"add rule ip nat post oifname {wire.client.device} masquerade random"
    for command in ("ip address add 10.79.0.1/24 dev tpnat", "ip link set tpnat up"):
        run_inside(wire.client.namespace, command.split())
    _client_sysctl(wire, "ip_forward", "1")
    run_inside(wire.client.namespace, ["nft", rules])
    inner.ip("route", "add", "default", "via", "10.79.0.1")


class _Slow(Publisher):
    """Takes its time for every message, as a slow application would."""

    def __init__(self, pause_ns: int) -> None:
        super().__init__(f"inproc://truth-{id(self)}", 1000)
        self._pause_s = pause_ns / 1e9

    def send(self, topic: bytes, payload: bytes, record: bytes) -> bool:
        if self._pause_s:
            time.sleep(self._pause_s)
        return super().send(topic, payload, record)


class _Client:
    """One feed in a thread of its own, inside the client's namespace."""

    def __init__(self, inside: _Inside, scenario: Scenario, simulator: Simulator, directory: Path, number: int) -> None:
        self._inside = inside
        self._scenario = scenario
        self.failure: BaseException | None = None
        self._recorder = Recorder(directory, f"feed-{number}", capacity=1 << 14)
        self.path = self._recorder.ring.path
        self._publisher = _Slow(scenario.slow_ns)
        self._feed = Feed(
            subscribe(f"{simulator.url}/stream?streams={_STREAMS}", "binance-coinm"),
            FeedSettings(
                f"truth-{number}",
                reconnect=scenario.reconnects > 0,
                backoff_first_s=0.01,
                backoff_longest_s=0.02,
                connect=ConnectSettings(timeout_s=20, learn_irs=not scenario.late_probe),
            ),
            self._recorder,
            self._publisher,
            context=tls_context(simulator.ca_path),
            every_second=lambda: None,
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.reader = RingReader(self.path, from_start=True)
        self.ring = -1

    def _run(self) -> None:
        try:
            with self._inside():
                self._feed.run()
        except ConnectError:
            if not self._scenario.reconnects:
                raise
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self._feed.stop()

    def close(self) -> None:
        self._recorder.close()
        self._publisher.close()
        self.reader.close()


class WireSource(Protocol):
    """What captures on the client's side; may be stopped and started again, as one process after the other."""

    @property
    def path(self) -> Path: ...

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class WireProbe:
    """The wire probe in a thread; may be stopped and started again, as one process after the other."""

    def __init__(self, wire: TruthWire, directory: Path) -> None:
        self._wire = wire
        self._directory = directory
        self._stop_fd = -1
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path:
        return self._directory / f"wire-{self._wire.client.device}.ring"

    def start(self) -> None:
        self._stop_fd = os.eventfd(0)
        with self._wire.inside(self._wire.client):
            probe = InterfaceProbe(
                self._wire.client.device, [Selector(_PORT)], ProbeConfig(buffer_bytes=1 << 24), self._directory, None
            )
        self._thread = threading.Thread(target=self._run, args=(probe, self._stop_fd), daemon=True)
        self._thread.start()

    def _run(self, probe: InterfaceProbe, stop_fd: int) -> None:
        with self._wire.inside(self._wire.client):
            probe.run(stop_fd)

    def stop(self) -> None:
        if self._thread is None:
            return
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join()
        os.close(self._stop_fd)
        self._thread = None

    @property
    def running(self) -> bool:
        return self._thread is not None


def _client_sysctl(wire: TruthWire, name: str, value: str) -> None:
    with wire.inside(wire.client):
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value)


def _pruned(wire: TruthWire) -> int:
    """How many segments the client's TCP threw away for want of memory (net/ipv4/proc.c)."""
    with wire.inside(wire.client):
        names, values = (
            line.split()
            for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()
            if line.startswith("TcpExt:")
        )
    counted = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return counted["OfoPruned"] + counted["RcvPruned"] + counted["TCPRcvQDrop"] + counted["TCPBacklogDrop"]


def _isn(wire: TruthWire, address: str, port: int) -> tuple[int, int]:
    """Connect from `port`, reset at once: the server's initial sequence number, and when the kernel chose it."""
    with wire.inside(wire.client):
        sock = socket.socket(socket.AF_INET)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((str(wire.client.ipv4), port))
        sock.connect((address, _PORT))
    wait_until(lambda: len(_handshakes(wire, port)) > 0, "the handshake in the log")
    answer = _handshakes(wire, port)[-1]
    return int(answer["seq"]), int(answer["before_realtime_ns"])


def _handshakes(wire: TruthWire, port: int) -> Any:
    log = wire.log()
    return log[(log["direction"] == 0) & (log["destination_port"] == port) & (log["tcp_flags"] & 0x12 == 0x12)]


def _prepare_wrap(wire: TruthWire) -> int:
    """Have the next connection come from a port whose numbers soon pass 2^32; when that is (realtime).

    The kernel adds a clock to a number that depends on the addresses alone, so each client port has its own moment at
    which a connection from it begins there. Of many ports the one is taken whose moment comes next.
    """
    with wire.inside(wire.server):
        listening = socket.create_server((str(wire.server.ipv4), _PORT), backlog=4096)
    best = None
    with listening:
        for port in range(20000, 21200):
            isn, at_ns = _isn(wire, str(wire.server.ipv4), port)
            due_ns = at_ns + ((1 << 32) - isn) * _ISN_NS
            # Not at once: simulator and probes have yet to start.
            if due_ns > time.time_ns() + _START_NS and (best is None or due_ns < best[0]):
                best = (due_ns, port)
    assert best is not None
    _client_sysctl(wire, "ip_local_port_range", f"{best[1]} {best[1]}")
    return best[0]


def _await_wrap(due_ns: int) -> None:
    """Until 14 ms (219 KB of the 234 KB to come) before the sequence numbers pass 2^32: a busy host connects late."""
    left_ns = due_ns - 14_000_000 - time.time_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)


def _simulator(scenario: Scenario, wire: TruthWire) -> Simulator:
    sessions = scenario.feeds * (scenario.reconnects + 1)
    return Simulator(
        SimulatorConfig(
            host=str(wire.server.ipv4 if scenario.version == 4 else wire.server.ipv6),
            port=_PORT,
            tls=scenario.tls,
            venue=Venue.COINM,
            speed=scenario.speed,
            messages=scenario.messages // sessions,
            connections=sessions,
            shape=scenario.shape,
            faults=Faults(abort_after=scenario.aborted_after),
            keep_log=True,
            linger_ns=20_000_000_000,
        )
    )


class _Collector:
    """Polls the correlator and keeps all that comes out; reads the rings once more, for itself."""

    def __init__(self, probe: WireSource, clients: list[_Client], tracing: Tracing | None) -> None:
        self.correlator = Correlator(joined_capacity=1 << 16)
        self._probe = probe
        self._tracing = tracing
        self._clients = clients
        self._wire_reader: RingReader | None = None
        self._joined: list[Any] = []
        self._segments: list[Any] = []
        self.ports: dict[tuple[int, int], int] = {}
        self._wire_ring = -1

    def attach(self) -> None:
        self._wire_reader = RingReader(self._probe.path, from_start=True)
        self._wire_ring = self.correlator.attach(self._probe.path, from_start=True)
        if self._tracing:
            self.correlator.attach(self._tracing.path, from_start=True)
        for client in self._clients:
            client.ring = self.correlator.attach(client.path, from_start=True)

    def poll(self) -> None:
        self.correlator.poll()
        out = np.zeros(4096, JOINED)
        while count := self.correlator.joined(out):
            self._joined.append(out[:count].copy())
        records = np.zeros(4096, RECORD)
        assert self._wire_reader is not None
        while count := self._wire_reader.read(records.view("u1")):
            kept = records[:count]
            self._segments.append(kept[kept["kind"] == Kind.SEGMENT].copy())
        if self._tracing:
            self._tracing.reader.all()
        for client in self._clients:
            while count := client.reader.read(records.view("u1")):
                for row in records["row"][:count][records["kind"][:count] == Kind.OPENED].tolist():
                    found = client.reader.row(row)
                    assert found is not None, "a row was used again before it was read"
                    self.ports[client.ring, row] = int(found["local_port"])
            assert client.reader.lost == 0

    def finish(self) -> tuple[Any, Any]:
        if self._tracing:
            self._tracing.stop()
            self.poll()
        self.correlator.flush()
        self.poll()
        assert self._wire_reader is not None
        assert self._wire_reader.lost == 0
        self._wire_reader.close()
        empty = [np.zeros(0, JOINED)]
        return np.concatenate(empty + self._joined), np.concatenate([np.zeros(0, RECORD), *self._segments])

    def counted(self, counter: Counter) -> int:
        assert self._wire_reader is not None
        return self._wire_reader.counters()[counter]


def play(
    scenario: Scenario,
    directory: Path,
    seed: int = 1,
    source: Callable[[TruthWire, Path], WireSource] = WireProbe,
) -> Evidence:
    """One session from the first SYN to the last FIN."""
    config = WireConfig(
        seed=seed,
        to_client=scenario.to_client,
        to_server=scenario.to_server,
        gro=scenario.gro_flush_ns is not None,
        gro_flush_ns=scenario.gro_flush_ns or 0,
        armed=False,
    )
    created = time.monotonic()
    with TruthWire(config) as wire, contextlib.ExitStack() as stack:
        due_ns = _prepare_wrap(wire) if scenario.wraps else 0
        simulator = _simulator(scenario, wire)
        with wire.inside(wire.server):
            stack.enter_context(simulator)
        probe = source(wire, directory)
        probe.start()
        stack.callback(probe.stop)
        if scenario.late_probe:
            probe.stop()
        inside: _Inside = lambda: wire.inside(wire.client)  # noqa: E731 - one of two
        if scenario.nat:
            inner = stack.enter_context(Namespace())
            _masquerade(wire, inner)
            inside = inner.entered
        clients = [_Client(inside, scenario, simulator, directory, number) for number in range(scenario.feeds)]
        for client in clients:
            stack.callback(client.close)
        tracing = None
        if scenario.kernel and CAN_TRACE:
            # As many rows as there are sockets: the server's own ends have another peer.
            buffer_bytes, interval_ms = (4096, 100) if scenario.kernel_starved else (1 << 22, 2)
            tracing = stack.enter_context(
                Tracing(directory, [Selector(_PORT)], rows=1024, buffer_bytes=buffer_bytes, interval_ms=interval_ms)
            )
        collector = _Collector(probe, clients, tracing)
        collector.attach()
        wire.arm()
        began = time.monotonic()
        if scenario.wraps:
            _await_wrap(due_ns)
        for client in clients:
            client.thread.start()
        for _ in _rounds(scenario, simulator, clients):
            _capture_or_not(scenario, probe, began)
            if scenario.squeezed:
                _squeeze(began)
            collector.poll()
        _drain(collector, clients)
        pruned = _pruned(wire)
        dropped = collector.counted(Counter.FRAMES_DROPPED)
        joined, segments = collector.finish()
        received = sum(client.reader.counters()[Counter.MESSAGES] for client in clients)
        snapshot = collector.correlator.snapshot()
        kernel = tracing.reader.all() if tracing else None
        events_lost = tracing.count(Counter.EVENTS_LOST) if tracing else 0
        sent = simulator.log
        assert wire.queue_drops() == 0
    return Evidence(
        log=wire.log(),
        sent=sent,
        joined=joined,
        ports=dict.fromkeys(collector.ports, sent[0].peer_port) if scenario.nat else collector.ports,
        segments=segments,
        kernel=kernel,
        events_lost=events_lost,
        snapshot=snapshot,
        received=received,
        dropped=dropped,
        pruned=pruned,
        seconds=time.monotonic() - created,
    )


def _rounds(scenario: Scenario, simulator: Simulator, clients: list[_Client]) -> Iterator[None]:
    """Yields now and then until the session is over."""
    deadline = time.monotonic() + _PATIENCE_S
    while any(client.thread.is_alive() for client in clients):
        assert time.monotonic() < deadline, f"{scenario.name} does not end"
        for client in clients:
            if client.failure is not None:
                raise client.failure
        if scenario.reconnects and simulator.ended.is_set():
            for client in clients:
                client.stop()
        time.sleep(_POLL_S)
        yield


def _capture_or_not(scenario: Scenario, probe: WireSource, began: float) -> None:
    if scenario.late_probe and not probe.running and time.monotonic() - began > _LATE_S:
        probe.start()
    if scenario.captured == 1.0:
        return
    phase = (time.monotonic() - began) / _CYCLE_S % 1.0
    if probe.running and phase > scenario.captured:
        probe.stop()
    elif not probe.running and phase < scenario.captured:
        probe.start()


def _squeeze(began: float) -> None:
    """Half of the time the clients' receive buffers are as small as the kernel makes them: it drops what came."""
    small = (time.monotonic() - began) / _SQUEEZE_S % 1.0 < 0.5
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if name.readlink().name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name.name))) as sock:
                    if sock.getpeername()[1:2] == (_PORT,):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 if small else 1 << 18)


def _drain(collector: _Collector, clients: list[_Client]) -> None:
    """Until no message waits any more."""
    deadline = time.monotonic() + 60
    collector.poll()
    while collector.correlator.totals()["pending"]:
        assert time.monotonic() < deadline, "messages wait for ever"
        time.sleep(_POLL_S)
        collector.poll()
    for client in clients:
        if client.failure is not None:
            raise client.failure
