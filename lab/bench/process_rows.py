# SPDX-License-Identifier: Apache-2.0
"""Processes as an operator runs them: CPU of the wire probe per segment, of all when idle, and their private memory."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial
from pathlib import Path

from tickpath.event import Counter
from tickpath.lab.bench.exchange import Exchange, Plan
from tickpath.lab.bench.host import Probes, busy_percent, cpu_ns, private_bytes
from tickpath.lab.bench.measure import repeat
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.demo.processes import Child
from tickpath.lab.simulator.config import EventTimes
from tickpath.ring import SUFFIX, RingReader

_IDLE = ("feed", "wire", "exporter")
_IDLE_TITLES = tuple(Row(name=f"idle_{name}", what=f"{name}: CPU when idle", unit="% of a core") for name in _IDLE)
_WIRE_TITLES = (
    Row(name="wire_blast", what="wire probe: CPU per captured segment, blast", unit="ns"),
    Row(name="wire_paced", what="wire probe: CPU per captured segment, 2000 a second", unit="ns"),
)
_MEMORY_BAR_BYTES = 80 * 10**6
_MEMORY_TITLES = tuple(
    Row(name=f"memory_{name}", what=f"{name}: private memory under the demo's load", unit="MB", bar="<= 80")
    for name in _IDLE
)
_SEGMENT = bytes(300)


def _frames(rings: Path) -> int:
    [path] = rings.glob(f"wire-*{SUFFIX}")
    with RingReader(path) as reader:
        return reader.counters()[Counter.FRAMES]


def _transmit(port: int, seconds: float, gap_s: float, listener: socket.socket) -> None:
    """Segments of 300 bytes from the watched port to a client that throws them away."""
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = listener.accept()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: client.recv(1 << 16), b"")])
    reader.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        server.send(_SEGMENT)
        if gap_s:
            time.sleep(gap_s)
    server.close()
    reader.join()
    client.close()


def _cost_ns(probes: Probes, listener: socket.socket, seconds: float, gap_s: float) -> float:
    frames, spent_ns = _frames(probes.rings), cpu_ns(probes.probe.pid)
    _transmit(listener.getsockname()[1], seconds, gap_s, listener)
    time.sleep(0.15)  # a block of frames that is not full is handed over after a moment
    return (cpu_ns(probes.probe.pid) - spent_ns) / max(1, _frames(probes.rings) - frames)


def _run_wire(settings: Settings, rows: dict[str, Row]) -> None:
    seconds = 0.2 if settings.quick else 0.7
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Probes(settings.folder / "wire", listener.getsockname()[1]) as probes,
    ):
        for name, gap_s in (("wire_blast", 0.0), ("wire_paced", 0.0004)):
            effort = settings.effort(least=5, most=5, budget_s=0)
            row = rows[name]
            row.measured(repeat(partial(_cost_ns, probes, listener, seconds, gap_s), effort))
            row.clocks = (row.value or 0) / settings.clock_ns


def _run_idle(settings: Settings, rows: dict[str, Row]) -> None:
    folder = settings.folder / "idle"
    silence = Plan(messages=1, gap_ns=3_600 * 10**9, certificate=None, key=None)
    with Exchange(silence) as exchange, Probes(folder, exchange.port) as probes:
        feed = Child(
            "feed",
            ["feed", exchange.url, "--publish", "tcp://127.0.0.1:0"],
            folder,
            {"TICKPATH_DIRECTORY": str(probes.rings)},
        )
        try:
            feed.wait_until(lambda: "connected" in feed.log.read_text(), 30, "connection")
            time.sleep(0.2 if settings.quick else 1)
            pids = [feed.pid, probes.probe.pid, probes.exporter.pid]
            shares = [busy_percent(pids, 0.2 if settings.quick else 1) for _ in range(1 if settings.quick else 4)]
        finally:
            feed.stop()
    for name, measured in zip(_IDLE, zip(*shares, strict=True), strict=True):
        rows[f"idle_{name}"].measured(measured)


def _run_memory(settings: Settings, rows: dict[str, Row]) -> None:
    folder = settings.folder / "memory"
    folder.mkdir()
    demo = DemoSettings(
        replay=None,
        speed="4",
        tls=None,
        event_times=EventTimes.NOW,
        exporter_port=0,
        publish_port=0,
    )
    with Pipeline(demo, folder) as pipeline:
        time.sleep(1 if settings.quick else 5)
        pids = {"feed": pipeline.feeds[0].pid, "exporter": pipeline.exporter.pid}
        if pipeline.wire_refused is None:
            pids["wire"] = pipeline.wire.pid
        else:
            rows["memory_wire"].note = pipeline.wire_refused
        for name, pid in pids.items():
            row = rows[f"memory_{name}"]
            held = private_bytes(pid)
            row.measured([held], 1e-6)
            row.judge(held <= _MEMORY_BAR_BYTES)


WIRE = Group("wire", _WIRE_TITLES, _run_wire)
IDLE = Group("idle", _IDLE_TITLES, _run_idle)
MEMORY = Group("memory", _MEMORY_TITLES, _run_memory)
