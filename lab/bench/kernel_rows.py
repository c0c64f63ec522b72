# SPDX-License-Identifier: Apache-2.0
"""The kernel probe: what its hooks cost, by the kernel's own statistics, and what the measured application feels."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tickpath.lab.bench.empty_program import EmptyProgram
from tickpath.lab.bench.host import undisturbed
from tickpath.lab.bench.measure import alternate
from tickpath.lab.bench.observer_rows import observe, titles
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.probes.kernel.programs import load
from tickpath.ring import RingWriter
from tickpath.selector import Selector

_TITLES = (
    Row(
        name="kernel_hook",
        what="each READABLE and COPIED of a selected socket, run time of all programs",
        unit="ns",
        bar="<= 250",
    ),
    Row(name="kernel_hook_unselected", what="the same hooks, of a socket that is not selected", unit="ns"),
    *titles("kernel_", "kernel"),
)
_BAR_NS = 250
_MESSAGE = b"x" * 300
_HOOKS = {"readable": "sk_data_ready", "copied": "tcp_rcv_space_adjust"}


class _Stream:
    """A connection over loopback, read by who sends: each message is one READABLE and one COPIED."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port: int = listening.getsockname()[1]
            self._near = socket.create_connection(("127.0.0.1", self.port))
            self._far, _ = listening.accept()
        self._far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, messages: int) -> None:
        for _ in range(messages):
            self._far.send(_MESSAGE)
            self._near.recv(len(_MESSAGE))

    def close(self) -> None:
        self._near.close()
        self._far.close()


class _Measured:
    """The programs, selecting one port, with programs that do nothing on the same tracepoints."""

    def __init__(self, settings: Settings, port: int, stream: _Stream) -> None:
        self._stream = stream
        self._tracer = load([Selector(port)], buffer_bytes=1 << 22)
        self._tracer.count_cost()
        self._ring = RingWriter(settings.folder / "kernel", "kernel", "kernel", rows=65)
        self._tracer.write_to(self._ring, rows=64)
        self._empty = [EmptyProgram(tracepoint) for tracepoint in _HOOKS.values()]
        self._messages = 200 if settings.quick else 10_000
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._tracer.run, args=(self._stop, 5))

    @contextmanager
    def running(self) -> Iterator[_Measured]:
        self._thread.start()
        try:
            for empty in self._empty:
                empty.__enter__()
            yield self
        finally:
            for empty in self._empty:
                empty.__exit__(None, None, None)
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            self._tracer.close()
            self._ring.close()
            os.close(self._stop)

    def _totals(self) -> tuple[int, int, int, int]:
        ours = [self._tracer.costs[hook] for hook in _HOOKS]
        theirs = [empty.cost for empty in self._empty]
        return (*map(sum, zip(*ours, strict=True)), *map(sum, zip(*theirs, strict=True)))  # type: ignore[return-value]

    def round(self) -> tuple[float, float]:
        """Nanoseconds of one run: of ours, of nothing."""
        before = self._totals()
        with undisturbed():
            self._stream.send(self._messages)
        ns, runs, empty_ns, empty_runs = (b - a for a, b in zip(before, self._totals(), strict=True))
        return ns / runs, empty_ns / empty_runs


def _hooks(settings: Settings, row: Row, *, selected: bool) -> None:
    stream = _Stream()
    try:
        with _Measured(settings, stream.port if selected else stream.port ^ 1, stream).running() as measured:
            measured.round()
            latest = [0.0, 0.0]

            def both() -> None:
                latest[:] = measured.round()

            pairs = alternate(
                lambda: latest[0], lambda: latest[1], settings.effort(least=10, most=30, budget_s=10), before=both
            )
    finally:
        stream.close()
    row.compared(pairs, "empty tp_btf program")
    row.note = "with the kernel's own statistics, once in theirs and once in each of our programs: READABLE has two"


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    _hooks(settings, rows["kernel_hook"], selected=True)
    rows["kernel_hook"].judge((rows["kernel_hook"].value or 0) <= _BAR_NS)
    _hooks(settings, rows["kernel_hook_unselected"], selected=False)
    observe(settings, "kernel", rows["kernel_observer_effect"], rows["kernel_observer_load"])


GROUP = Group("kernel", _TITLES, _run)
