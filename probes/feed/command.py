# SPDX-License-Identifier: Apache-2.0
"""`tickpath feed URL`: configuration to settings, signals to a graceful stop."""

from __future__ import annotations

import argparse
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from types import FrameType

import structlog

from tickpath import config, log
from tickpath.clock import StepWatch
from tickpath.command import Command
from tickpath.errors import ConfigError
from tickpath.probes.feed.config import FeedConfig
from tickpath.probes.feed.connection import ConnectSettings, tls_context
from tickpath.probes.feed.feed import Feed, FeedSettings
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.venues import subscribe
from tickpath.probes.feed.venues.venue import Subscription
from tickpath.recorder import Recorder

_SECTION = "feed"
_NAME_BYTES = 32


def _default_name(subscription: Subscription) -> str:
    first, *others = subscription.streams
    more = f"-and-{len(others)}" if others else ""
    name = re.sub(r"[^a-z0-9._]+", "-", first.lower()).strip("-.") or subscription.venue
    return name[: _NAME_BYTES - len(more)] + more


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws:// or wss://, in the venue's own form")
    config.add_flags(parser, FeedConfig)
    config.add_common_flags(parser)


def _settings(given: FeedConfig, subscription: Subscription) -> FeedSettings:
    return FeedSettings(
        name=given.name or _default_name(subscription),
        reconnect=given.reconnect,
        idle_timeout_s=given.idle_timeout,
        backoff_first_s=given.backoff_first,
        backoff_longest_s=max(given.backoff_first, given.backoff_longest),
        connect=ConnectSettings(
            timeout_s=given.connect_timeout,
            learn_irs=given.learn_irs == "auto",
            max_message_bytes=given.max_message_bytes,
        ),
    )


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError):
        allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise ConfigError(f"--cpu {cpu}: this process may run on {allowed}") from None


@contextmanager
def _stopping(feed: Feed) -> Iterator[None]:
    """SIGTERM and SIGINT end the feed after the message in hand."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        feed.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: argparse.Namespace) -> int:
    common = log.set_up(arguments)
    given = config.load(FeedConfig, _SECTION, arguments)
    logger = structlog.get_logger()
    subscription = subscribe(arguments.url, given.venue, tuple(given.subscribe))
    for warning in subscription.warnings:
        logger.warning("stream_misplaced", detail=warning)
    if given.cpu is not None:
        _pin(given.cpu)
    settings = _settings(given, subscription)
    context = tls_context(given.cafile)
    publishing = nullcontext() if given.publish == "none" else closing(Publisher(given.publish, given.high_water_mark))
    with (
        publishing as publisher,
        Recorder(common.directory, settings.name, capacity=given.capacity) as recorder,
        StepWatch() as watch,
    ):
        told = False

        def every_second() -> None:
            nonlocal told
            recorder.record_clocks(watch)
            if recorder.ring.truncated and not told:
                told = True
                logger.error("ring_cut_short", ring=str(recorder.ring.path), remedy="restart the feed to be measured")

        feed = Feed(
            subscription,
            settings,
            recorder,
            publisher,
            context=context,
            every_second=every_second,
        )
        with _stopping(feed):
            logger.info(
                "started",
                feed=settings.name,
                ring=str(recorder.ring.path),
                publish=publisher.address if publisher is not None else "none",
            )
            feed.run()
    return 0


COMMAND = Command("take a venue's WebSocket feed: stamped, parsed, published", _add_arguments, _run)
