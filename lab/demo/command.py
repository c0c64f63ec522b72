# SPDX-License-Identifier: Apache-2.0
"""`tickpath demo`: runs the pipeline, shows its figures as they come, ends with the exact ones."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from tickpath import log
from tickpath.command import Command
from tickpath.exporter.exposition.summary import Figures, Summary
from tickpath.lab.demo.folder import demo_folder
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.demo.screen import render
from tickpath.lab.simulator.config import EventTimes

_REFRESH_S = 0.5


class _Signals:
    """SIGINT and SIGTERM: while the pipeline starts they break off what waits, then they ask for the final figures."""

    def __init__(self) -> None:
        self.starting = True
        self.stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        first = not self.stopping.is_set()
        self.stopping.set()
        # The second one must not break into the stopping that the first one began.
        if first and self.starting:
            raise KeyboardInterrupt


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to 65535")
    return int(text)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--duration", type=float, metavar="S", help="end after S seconds of messages (until Ctrl-C)")
    add("--replay", type=Path, metavar="FILE", help="recording to replay; without: generated messages")
    add("--speed", default="1", metavar="X", help="times the recorded pace, or max (%(default)s)")
    add("--tls", action=argparse.BooleanOptionalAction, default=False, help="wss in place of ws")
    add("--tls-version", choices=["1.2", "1.3"], default="1.3", help="with --tls (%(default)s)")
    add(
        "--event-times",
        choices=[e.value for e in EventTimes],
        default=EventTimes.NOW.value,
        help="now: fresh; recorded: the recorder's clock skew stays visible; original: bytes untouched (%(default)s)",
    )
    add("--json", action="store_true", help="the last line of standard output is one JSON object")
    add("--exporter-port", type=_port, default=18064, metavar="PORT", help="0: any free one (%(default)s)")
    add(
        "--publish-port",
        type=_port,
        default=5555,
        metavar="PORT",
        help="of the first feed, the next ones follow; 0: any free ones (%(default)s)",
    )


def _figures(table: dict[str, Figures]) -> dict[str, dict[str, int | None]]:
    return {
        name: {
            "count": one.count,
            "sum_ns": one.sum_ns,
            "p50_ns": one.p50_ns,
            "p99_ns": one.p99_ns,
            "p999_ns": one.p999_ns,
            "max_ns": one.max_ns,
        }
        for name, one in table.items()
    }


def report(summary: Summary, sent: int) -> dict[str, Any]:
    """The figures as the last line of --json gives them."""
    return {
        "messages": summary.messages,
        "sent": sent,
        "hops": _figures(summary.hops),
        "parts": _figures(summary.parts),
        "spans": _figures(summary.spans),
        "matched": summary.matched,
        "unmatched": summary.unmatched,
        "negative": summary.negative,
        "lost_records": summary.lost_records,
        "sources": summary.sources,
        "missing": summary.missing,
    }


def _run(arguments: argparse.Namespace) -> int:
    settings = DemoSettings(
        replay=arguments.replay,
        speed=arguments.speed,
        tls=arguments.tls_version if arguments.tls else None,
        event_times=EventTimes(arguments.event_times),
        exporter_port=arguments.exporter_port,
        publish_port=arguments.publish_port,
    )
    log.set_up()
    signals = _Signals()
    with demo_folder() as folder:
        return _play(settings, folder, signals, duration_s=arguments.duration, as_json=arguments.json)


def _play(settings: DemoSettings, folder: Path, signals: _Signals, *, duration_s: float | None, as_json: bool) -> int:
    told = Console(stderr=as_json)
    with Pipeline(settings, folder) as pipeline:
        signals.starting = False
        if pipeline.wire_refused:
            told.print(f"wire probe: {pipeline.wire_refused}", style="yellow", soft_wrap=True)
        if pipeline.kernel_refused:
            told.print(f"kernel probe: {pipeline.kernel_refused}", style="yellow", soft_wrap=True)
        # From here on, not from the first subscription: on a busy host the second feed may be seconds behind the first.
        started = time.monotonic()
        ends = math.inf if duration_s is None else started + duration_s

        def screen(summary: Summary, sent: int) -> Any:
            elapsed_s = time.monotonic() - started
            return render(summary, sent=sent, elapsed_s=elapsed_s, where=f"{pipeline.exporter_url}/metrics")

        with Live(console=told, auto_refresh=False, transient=True) as live:
            while pipeline.playing and time.monotonic() < ends and not signals.stopping.wait(_REFRESH_S):
                if told.is_terminal:
                    live.update(screen(pipeline.summary(), pipeline.sent()), refresh=True)
        summary, sent = pipeline.finish()
        told.print(screen(summary, sent))
        faults = pipeline.faults()
        if summary.messages + summary.lost_records != sent:
            faults.append(f"{sent} messages were sent, {summary.messages} counted, {summary.lost_records} records lost")
        for fault in faults:
            print(f"tickpath demo: {fault}", file=sys.stderr)
        if as_json:
            print(msgspec.json.encode(report(summary, sent)).decode(), flush=True)
        return 1 if faults else 0


COMMAND = Command(
    help="the whole pipeline on this host: simulator, feeds, probes, exporter, a live table of hops",
    add_arguments=_add_arguments,
    run=_run,
)
