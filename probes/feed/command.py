# SPDX-License-Identifier: Apache-2.0
"""`tickpath feed URL`: flags to settings, signals to a graceful stop."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from pathlib import Path

import structlog

from tickpath.command import Command
from tickpath.errors import ConfigError
from tickpath.probes.feed.connection import ConnectSettings, tls_context
from tickpath.probes.feed.feed import Feed, FeedSettings
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.venues import VENUES, subscribe
from tickpath.probes.feed.venues.venue import Subscription
from tickpath.recorder import Recorder

_NAME_BYTES = 32


def _default_name(subscription: Subscription) -> str:
    first, *others = subscription.streams
    name = re.sub(r"[^a-z0-9._]+", "-", first.lower()).strip("-") or subscription.venue
    if others:
        name += f"-and-{len(others)}"
    return name[:_NAME_BYTES]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws:// or wss://, in the venue's own form")
    parser.add_argument("--name", help="the feed's name in records and metrics (default: from the stream)")
    parser.add_argument("--venue", help=f"{', '.join(VENUES)} (default: by host, else by path)")
    parser.add_argument(
        "--subscribe", metavar="STREAM", action="append", default=[], help="ask for it after connecting"
    )
    parser.add_argument("--directory", type=Path, help="of rings (default: $TICKPATH_DIRECTORY, /dev/shm/tickpath)")
    parser.add_argument("--capacity", type=int, default=1 << 16, help="records that the ring keeps, a power of two")
    parser.add_argument("--publish", metavar="ADDRESS", default="tcp://127.0.0.1:5555", help="ZeroMQ PUB, or none")
    parser.add_argument("--high-water-mark", type=int, default=10_000, help="messages queued for a slow subscriber")
    parser.add_argument("--cafile", type=Path, help="PEM certificates to trust instead of the host's")
    parser.add_argument("--reconnect", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--idle-timeout", type=float, default=240.0, metavar="S", help="reconnect after such a silence")
    parser.add_argument("--connect-timeout", type=float, default=10.0, metavar="S")
    parser.add_argument("--max-message-bytes", type=int, default=64 * 1024 * 1024, metavar="N")
    parser.add_argument("--learn-irs", choices=("auto", "off"), default="auto", help="initial sequence by TCP_REPAIR")
    parser.add_argument("--cpu", type=int, metavar="N", help="pin the feed to this core")


def _run(arguments: argparse.Namespace) -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    log = structlog.get_logger()
    subscription = subscribe(arguments.url, arguments.venue, tuple(arguments.subscribe))
    for warning in subscription.warnings:
        log.warning("stream_misplaced", detail=warning)
    if arguments.cpu is not None:
        try:
            os.sched_setaffinity(0, {arguments.cpu})
        except OSError:
            allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            raise ConfigError(f"--cpu {arguments.cpu}: this process may run on {allowed}") from None
    name = arguments.name or _default_name(subscription)
    settings = FeedSettings(
        name=name,
        reconnect=arguments.reconnect,
        idle_timeout_s=arguments.idle_timeout,
        connect=ConnectSettings(
            timeout_s=arguments.connect_timeout,
            learn_irs=arguments.learn_irs == "auto",
            max_message_bytes=arguments.max_message_bytes,
        ),
    )
    directory = arguments.directory or Path(os.environ.get("TICKPATH_DIRECTORY", "/dev/shm/tickpath"))
    context = tls_context(arguments.cafile)
    publisher = None if arguments.publish == "none" else Publisher(arguments.publish, arguments.high_water_mark)
    try:
        with Recorder(directory, name, capacity=arguments.capacity) as recorder:
            feed = Feed(subscription, settings, recorder, publisher, context=context, every_second=lambda: None)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: feed.stop())
            log.info("started", feed=name, ring=str(recorder.ring.path), publish=publisher and publisher.address)
            feed.run()
    finally:
        if publisher is not None:
            publisher.close()
    return 0


COMMAND = Command("take a venue's WebSocket feed: stamped, parsed, published", _add_arguments, _run)
