# SPDX-License-Identifier: Apache-2.0
"""Observer effect: the P99 of a measured application with tickpath's probes running beside it, and without."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import structlog

from tickpath.lab.bench.exchange import Exchange, Plan, sent_ns
from tickpath.lab.bench.host import Probes, on_cpus, undisturbed
from tickpath.lab.bench.measure import interval_of
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.probes.feed.connection import ConnectSettings, open_connection, tls_context
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.session import ConnectionEnded, Session, Stop
from tickpath.probes.feed.venues import subscribe
from tickpath.recorder import Recorder

_GAP_NS = 600_000
_LEAST = 1.02


def titles(prefix: str, probe: str) -> tuple[Row, Row]:
    """The rows that observe() fills in."""
    return (
        Row(
            name=f"{prefix}observer_effect",
            what=f"application's P99, sent to published: {probe} probe and exporter on vs off",
            unit="x",
            bar=f"interval <= max({_LEAST}, off/off)",
        ),
        Row(name=f"{prefix}observer_load", what="application's load meanwhile", unit="% of a core", bar="<= 30"),
    )


@dataclass(frozen=True)
class _Sample:
    """One connection of the application: what it took and how busy it was."""

    p99_ns: float
    load: float


class _Stopwatch(Publisher):
    """In the publisher's place: notes when a message would have been handed on."""

    def __init__(self) -> None:
        self.taken_ns: list[int] = []

    def send(self, topic: bytes, payload: bytes, record: bytes) -> bool:  # noqa: ARG002 - the publisher's face
        self.taken_ns.append(time.monotonic_ns() - sent_ns(payload))
        return True


def _application(told: Pipe, url: str, folder: Path, cpu: int) -> None:
    """A feed handler that is measured: stamped socket, JSON, recorder; one connection for each word it hears."""
    os.sched_setaffinity(0, {cpu})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    subscription = subscribe(url)
    with Recorder(folder, "application") as recorder:
        while told.recv():
            connection = open_connection(
                subscription, tls_context(None), recorder, feed="application", reconnects=0, settings=ConnectSettings()
            )
            stopwatch = _Stopwatch()
            session = Session(
                connection, subscription.reader(), recorder, stopwatch, idle_timeout_s=10, every_second=lambda: None
            )
            began_ns, busy_ns = time.monotonic_ns(), time.process_time_ns()
            with undisturbed(), suppress(ConnectionEnded):
                session.run(Stop())
            busy_ns, elapsed_ns = time.process_time_ns() - busy_ns, time.monotonic_ns() - began_ns
            connection.websocket.close(timeout=1)
            connection.sock.close()
            # The first ones wait for what the handshake left behind.
            taken_ns = sorted(stopwatch.taken_ns[len(stopwatch.taken_ns) // 10 :])
            told.send(_Sample(float(taken_ns[len(taken_ns) * 99 // 100]), 100 * busy_ns / elapsed_ns))


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    observe(settings, "wire", rows["observer_effect"], rows["observer_load"])


def observe(settings: Settings, kind: str, effect: Row, load: Row) -> None:
    """Both rows, of an exporter and a probe of that kind. TickpathError where it is not permitted."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        effect.note = load.note = "one CPU alone: the probes cannot be kept off the application's"
        return
    folder = settings.folder / f"observer-{kind}"
    rings = folder / "rings"
    messages = 100 if settings.quick else 1_200
    spawn = multiprocessing.get_context("spawn")
    with on_cpus(set(cpus[1:])), Exchange(Plan(messages, _GAP_NS, None, None)) as exchange:
        ours, theirs = spawn.Pipe()
        application = spawn.Process(target=_application, args=(theirs, exchange.url, rings, cpus[0]))
        application.start()
        theirs.close()
        samples: list[_Sample] = []

        def sample() -> float:
            ours.send(True)
            samples.append(ours.recv())
            return samples[-1].p99_ns

        on_off: list[float] = []
        off_off: list[float] = []
        effort = settings.effort(least=20, most=20, budget_s=0)
        began_s = time.monotonic()
        try:
            sample()
            while not effort.enough(on_off, began_s):
                first = sample()
                with Probes(folder, exchange.port, kind):
                    on = sample()
                second = sample()
                on_off.append(on / first)
                off_off.append(second / first)
            ours.send(False)
        finally:
            ours.close()
            application.join(5)
            application.terminate()
    effect.measured(on_off)
    between = interval_of(off_off)
    effect.yardstick, effect.yardstick_value = "off/off", between.median
    effect.note = (
        f"off/off [{between.low:.3f} … {between.high:.3f}]; P99 "
        f"{interval_of([one.p99_ns for one in samples]).median / 1e3:.0f} us"
    )
    effect.judge((effect.high or 0) <= max(_LEAST, between.high))
    load.measured([one.load for one in samples])
    load.judge((load.value or 0) <= 30)


GROUP = Group("observer", titles("", "wire"), _run)
