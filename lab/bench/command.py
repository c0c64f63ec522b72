# SPDX-License-Identifier: Apache-2.0
"""`tickpath bench`: measures every row, prints the table, writes the JSON."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console

from tickpath.command import Command
from tickpath.errors import ConfigError
from tickpath.lab.bench import (
    correlator_rows,
    dpdk_rows,
    feed_rows,
    histogram_rows,
    inline_rows,
    kernel_rows,
    observer_rows,
    process_rows,
    ring_rows,
    scrape_rows,
)
from tickpath.lab.bench._bench import clock_ns
from tickpath.lab.bench.row import Row, Settings
from tickpath.lab.bench.table import table

GROUPS = {
    group.name: group
    for group in (
        ring_rows.GROUP,
        histogram_rows.GROUP,
        correlator_rows.GROUP,
        scrape_rows.GROUP,
        feed_rows.GROUP,
        process_rows.WIRE,
        process_rows.IDLE,
        process_rows.MEMORY,
        observer_rows.GROUP,
        kernel_rows.GROUP,
        dpdk_rows.GROUP,
        inline_rows.GROUP,
    )
}
_SHARED_MEMORY = Path("/dev/shm")
_RESULT = Path("build/bench.json")
_WIDTH = 170  # of the table in a file


class Report(msgspec.Struct):
    """What a run of the bench came to. `load` is the host's load average as it began and ended."""

    rows: list[Row]
    clock_gettime_ns: float
    cpus: int
    load: tuple[float, float]
    seconds: float
    quick: bool


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", metavar="GROUP,…", help=f"of: {', '.join(GROUPS)}")
    add("--quick", action="store_true", help="show that everything runs; the figures mean nothing")
    add("--json", action="store_true", help="the last line of standard output is one JSON object")
    add("--output", type=Path, default=_RESULT, metavar="FILE", help="where the JSON is written (%(default)s)")


def _chosen(only: str | None) -> list[str]:
    names = list(GROUPS) if only is None else only.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise ConfigError(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    return names


def _measure(names: list[str], *, quick: bool, told: Console) -> Report:
    began_s, load = time.monotonic(), os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="tickpath-bench-", dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None))
    try:
        settings = Settings(quick=quick, folder=folder, clock_ns=min(clock_ns(200_000) for _ in range(5)))
        rows: list[Row] = []
        for name in names:
            with told.status(f"measuring: {name}"):
                rows += GROUPS[name].measure(settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Report(
        rows=rows,
        clock_gettime_ns=settings.clock_ns,
        cpus=len(os.sched_getaffinity(0)),
        load=(load, os.getloadavg()[0]),
        seconds=time.monotonic() - began_s,
        quick=quick,
    )


def _run(arguments: argparse.Namespace) -> int:
    told = Console(stderr=arguments.json)
    if not told.is_terminal:
        told.width = _WIDTH
    report = _measure(_chosen(arguments.only), quick=arguments.quick, told=told)
    told.print(table(report.rows))
    told.print(
        f"one clock_gettime: {report.clock_gettime_ns:.1f} ns; load average {report.load[0]:.1f} to "
        f"{report.load[1]:.1f} on {report.cpus} CPUs; {report.seconds:.0f} s",
        highlight=False,
    )
    line = msgspec.json.encode(report)
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_bytes(line + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot write {arguments.output}: {error.strerror}; name another with --output") from None
    if arguments.json:
        sys.stdout.write(line.decode() + "\n")
    return 0


COMMAND = Command(
    help="measure tickpath's own costs, each beside its yardstick", add_arguments=_add_arguments, run=_run
)
