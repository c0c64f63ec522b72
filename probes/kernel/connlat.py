# SPDX-License-Identifier: Apache-2.0
"""`tickpath connlat`: every attempt to connect on this host, how long it took and what it came to."""

from __future__ import annotations

import argparse
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import structlog

from tickpath import config, log
from tickpath.command import Command
from tickpath.errors import TickpathError
from tickpath.event import RECORD, Counter, Kind
from tickpath.own_ring import own_ring
from tickpath.probes.kernel.attempt import Attempt, Table, attempt_of
from tickpath.probes.kernel.containers import Containers, mounted
from tickpath.probes.kernel.programs import load
from tickpath.probes.kernel.selection import cgroup_id, check_pids, peers
from tickpath.ring import RingReader
from tickpath.selector import parse_port
from tickpath.stopping import stop_pipe

# At 20,000 attempts a second these hold more than half a second of them.
_RECORDS = 1 << 14
_BUFFER_BYTES = 1 << 22
_FETCH_MS = 5
_SHOW_MS = 50


@dataclass(frozen=True)
class Wanted:
    """What is shown of what was seen."""

    least_ns: int
    failed: bool

    def __call__(self, attempt: Attempt) -> bool:
        """Whether this one is."""
        return attempt.latency_ns >= self.least_ns and (attempt.failed or not self.failed)


class Shown:
    """Takes records from a ring and writes lines; counts what it saw and what escaped it."""

    def __init__(self, reader: RingReader, wanted: Wanted, render: Callable[[Attempt], str]) -> None:
        self._reader = reader
        self._wanted = wanted
        self._render = render
        self._containers = Containers(mounted())
        self._records = np.zeros(1024, RECORD)
        self.seen = 0
        self.shown = 0

    def take(self) -> None:
        """All that is new."""
        while count := self._reader.read(self._records.view("u1")):
            records = self._records[:count]
            for record in records[records["kind"] == Kind.CONNECT]:
                row = self._reader.row(int(record["row"]))
                attempt = attempt_of(record, row, self._containers.of(int(record["connect"]["cgroup"])))
                self.seen += 1
                if self._wanted(attempt):
                    self.shown += 1
                    sys.stdout.write(self._render(attempt) + "\n")
        sys.stdout.flush()

    @property
    def lost(self) -> int:
        """What this, or the programs in the kernel, had no room for or were left out of: attempts, or parts of one."""
        totals = self._reader.counters()
        return totals[Counter.EVENTS_LOST] + totals[Counter.RUNS_LEFT_OUT] + self._reader.lost


def _milliseconds(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds")
    return round(value * 1e6)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
    return int(text)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "least_ns", nargs="?", default=0, type=_milliseconds, metavar="MS", help="only attempts that took so long"
    )
    parser.add_argument(
        "--pid", action="append", default=[], type=_pid, help="only this process, as the host counts them; repeatable"
    )
    parser.add_argument(
        "--port", action="append", default=[], type=parse_port, help="only this remote port; repeatable"
    )
    parser.add_argument(
        "--remote",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="only this peer; an address selects itself and the port, a name the port alone; repeatable",
    )
    parser.add_argument(
        "--cgroup", type=Path, metavar="FOLDER", help="only sockets made in this version 2 cgroup or below it"
    )
    parser.add_argument("--failed", action="store_true", help="only attempts of which no connection came")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, times in nanoseconds")
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="stop by itself (default: at Ctrl-C)")
    config.add_common_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    log.set_up(arguments)
    wanted = Wanted(arguments.least_ns, arguments.failed)
    check_pids(arguments.pid)
    selectors = peers(arguments.remote, arguments.port, default_ports=False)
    stop_fd, stop = stop_pipe()
    tracer = load(
        selectors,
        cgroup=cgroup_id(arguments.cgroup),
        pids=arguments.pid,
        buffer_bytes=_BUFFER_BYTES,
        connects_only=True,
    )
    table = Table()
    encode = msgspec.json.Encoder().encode
    try:
        with own_ring("connlat", "kernel", capacity=_RECORDS, rows=_RECORDS) as (ring, reader):
            tracer.write_to(ring, rows=_RECORDS - 1)
            shown = Shown(reader, wanted, (lambda a: encode(a).decode()) if arguments.json else table.line)
            structlog.get_logger().info("ready", mode=tracer.modes["state"])
            if not arguments.json:
                print(table.header(), flush=True)
            ended: list[int] = []
            fetching = threading.Thread(target=lambda: ended.append(tracer.run(stop_fd, _FETCH_MS)))
            fetching.start()
            try:
                _show(shown, stop_fd, arguments.duration)
            finally:
                os.write(stop, b"\0")
                fetching.join()
            shown.take()
            print(_closing(shown), file=sys.stderr)
    finally:
        tracer.close()
    if ended[0]:
        raise TickpathError(f"fetching records from the kernel failed: {os.strerror(ended[0])}")
    return 0


def _show(shown: Shown, stop_fd: int, seconds: float | None) -> None:
    ends = float("inf") if seconds is None else time.monotonic() + seconds
    stopping = select.poll()
    stopping.register(stop_fd, select.POLLIN)
    while (left := ends - time.monotonic()) > 0 and not stopping.poll(min(_SHOW_MS, left * 1000)):
        shown.take()


def _closing(shown: Shown) -> str:
    words = f"{shown.shown} of {shown.seen} attempts shown"
    return f"{words}, {shown.lost} events lost" if shown.lost else words


COMMAND = Command(
    help="print every attempt to connect: who, to whom, how long, what came of it (eBPF; needs CAP_BPF, CAP_PERFMON)",
    add_arguments=_add_arguments,
    run=_run,
)
