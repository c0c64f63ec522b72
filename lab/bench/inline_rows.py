# SPDX-License-Identifier: Apache-2.0
"""What inline adds: round trips and bulk over two truth wires, by DPDK and TAP, beside the kernel alone."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tickpath.errors import TickpathError
from tickpath.lab.bench.host import for_a_loop, on_cpus
from tickpath.lab.bench.inline_host import addressed, given_up, port
from tickpath.lab.bench.measure import Pairs, alternate
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.shuttle import TruthWire

_TITLES = (
    Row(name="inline_trip_p50", what="inline: round trip of 300 bytes, P50", unit="us"),
    Row(name="inline_trip_p99", what="inline: round trip of 300 bytes, P99", unit="us"),
    Row(name="inline_bulk_in", what="inline: one connection's bulk, to this host", unit="MB/s"),
    Row(name="inline_bulk_out", what="inline: one connection's bulk, from this host", unit="MB/s"),
)
_YARDSTICK = "kernel alone, same wire"
_PORT = 443
_TRIP_BYTES = 300
_START_S = 60.0


class _Host:
    """The client's end of a wire and a server at the other one."""

    def __init__(self, wire: TruthWire) -> None:
        self._wire = wire

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It forwards meanwhile; what it needs for that is still at other times."""
        yield

    def round_trips_ns(self, count: int) -> list[int]:
        """Request and answer, one after the other, sorted by how long they took."""
        taken, payload = [], bytes(_TRIP_BYTES)
        with self.running(), self._wire.connection(_PORT) as (server, client):
            for _ in range(count):
                began_ns = time.perf_counter_ns()
                client.sendall(payload)
                server.sendall(server.recv(_TRIP_BYTES))
                client.recv(_TRIP_BYTES)
                taken.append(time.perf_counter_ns() - began_ns)
        return sorted(taken)

    def bytes_per_s(self, data: bytes, *, inward: bool) -> float:
        """Until the last byte is received."""
        with self.running(), self._wire.connection(_PORT) as (server, client):
            sender, receiver = (server, client) if inward else (client, server)
            sending = threading.Thread(target=sender.sendall, args=(data,), daemon=True)
            began_ns = time.perf_counter_ns()
            sending.start()
            left = len(data)
            while left:
                left -= len(receiver.recv(1 << 20))
            elapsed_ns = time.perf_counter_ns() - began_ns
            sending.join()
        return len(data) * 1e9 / elapsed_ns


class _Inline(_Host):
    """The same whose device DPDK has; who forwards is stopped while nothing is measured, for its loop never rests."""

    def __init__(self, wire: TruthWire, folder: Path, core: int) -> None:
        super().__init__(wire)
        self._log = folder / "inline.log"
        argv = [sys.executable, "-P", "-m", "tickpath", "capture", "dpdk", "--mode", "inline", "--device", port(wire)]
        argv += ["--memory", "none", "--cores", str(core), "--port", str(_PORT), "--log-format", "logfmt"]
        with self._log.open("wb") as log:
            self._process = wire.run_in(
                wire.client, [*argv, "--directory", str(folder / "inline")], stdin=subprocess.DEVNULL, stderr=log
            )
        self._wait_until_ready()
        addressed(wire)
        self._process.send_signal(signal.SIGSTOP)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while "event=ready" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed("it did not start")
            time.sleep(0.02)

    def _failed(self, what: object) -> TickpathError:
        last = self._log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
        return TickpathError(f"the inline capture: {what}; its last words: {last[0]}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self._process.send_signal(signal.SIGSTOP)


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    allowed = for_a_loop("tickpath.dpdk_capture._dpdk")
    core, others = allowed[-1], set(allowed[:-1])
    trips, bulk = (50, bytes(1_000_000)) if settings.quick else (1000, bytes(20_000_000))
    effort = settings.effort(least=6, most=20, budget_s=5, width=0.03)
    with contextlib.ExitStack() as stack:
        with on_cpus(others):
            wires = [stack.enter_context(made) for made in (given_up(), TruthWire())]
        inline, direct = _Inline(wires[0], settings.folder, core), _Host(wires[1])
        # Both ends and the shuttle share what the loop leaves, in either case.
        stack.enter_context(on_cpus(others))
        p99 = Pairs()

        def median_us(host: _Host, kept: list[float]) -> float:
            taken = host.round_trips_ns(trips)
            kept.append(taken[trips * 99 // 100] / 1e3)
            return taken[trips // 2] / 1e3

        p50 = alternate(partial(median_us, inline, p99.ours), partial(median_us, direct, p99.theirs), effort)
        for row, pairs in ((rows["inline_trip_p50"], p50), (rows["inline_trip_p99"], p99)):
            row.compared(pairs, _YARDSTICK)
            row.clocks = (row.value or 0) * 1e3 / settings.clock_ns
        for name, inward in (("inline_bulk_in", True), ("inline_bulk_out", False)):

            def rate(host: _Host, inward: bool = inward) -> float:
                return host.bytes_per_s(bulk, inward=inward) / 1e6

            rows[name].compared(alternate(partial(rate, inline), partial(rate, direct), effort), _YARDSTICK)


GROUP = Group("inline", _TITLES, _run)
