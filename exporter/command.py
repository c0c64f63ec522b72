# SPDX-License-Identifier: Apache-2.0
"""`tickpath exporter`: joins the records of every ring and serves what comes of it until told to stop."""

from __future__ import annotations

import argparse
import signal
import socket

import structlog

from tickpath import config, log
from tickpath.command import Command
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.service import Service
from tickpath.exporter.settings import ExporterConfig, parse_listen
from tickpath.exporter.web.application import Application
from tickpath.exporter.web.guard import Guard
from tickpath.exporter.web.server import Server
from tickpath.ring import make_directory


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_common_flags(parser)
    config.add_flags(parser, ExporterConfig)
    # As every other exporter spells it.
    parser.add_argument("--web.config.file", dest="ExporterConfig.web_config_file", help=argparse.SUPPRESS)


def _run(arguments: argparse.Namespace) -> int:
    # Not needed for --help, and the slowest import of this command.
    from tickpath.exporter.correlator import Correlator, Match  # noqa: PLC0415

    common = log.set_up(arguments)
    settings = config.load(ExporterConfig, "exporter", arguments)
    host, port = parse_listen(settings.listen)
    guard = Guard(settings.web_config_file) if settings.web_config_file else None
    make_directory(common.directory)
    correlator = Correlator(window_ns=settings.window_ms * 1_000_000, match=Match[settings.match.upper()])
    # Two exporters may read one directory; each has predecessors of its own.
    service = Service(correlator, common.directory, CursorFile(common.directory / f"exporter-{port}.cursors"))
    server = Server((host, port), Application(service), guard)
    # Written in whichever thread the kernel gave the signal to: an Event would wait for this one to be woken.
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    service.start()
    server.start()
    logger = structlog.get_logger()
    logger.info("serving", url=server.url, directory=str(common.directory), match=settings.match)
    told.recv(1)
    service.stop()
    server.stop()
    logger.info("stopped", records=service.observe().snapshot.records)
    return 0


COMMAND = Command(
    help="join the records of all rings and serve the figures to Prometheus",
    add_arguments=_add_arguments,
    run=_run,
)
