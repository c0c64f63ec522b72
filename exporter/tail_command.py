# SPDX-License-Identifier: Apache-2.0
"""`tickpath tail`: one line per message, from a reader of its own beside the exporter's."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from tickpath import config, log
from tickpath.command import Command
from tickpath.errors import ConfigError
from tickpath.event import Source, Tier
from tickpath.exporter.correlator import JOINED, Correlator, Leg, Match, Reason
from tickpath.exporter.rings import Rings
from tickpath.exporter.tail import Message, parse_duration_ns, render_json, render_text
from tickpath.ring import make_directory

_JOINED_CAPACITY = 1 << 14
_BATCH = 1024
_SCAN_SECONDS = 0.25
_PAUSE_SECONDS = 0.01


def message_of(joined: np.void, names: Sequence[tuple[str, str]]) -> Message:
    """A result of the correlator with its numbers as names. `names`: (venue, feed) by label."""
    venue, feed = names[joined["label"]]
    known = int(joined["legs"])
    method = int(joined["method"])
    source = Source(int(joined["source"]))
    tier = int(joined["tier"])
    return Message(
        venue=venue,
        feed=feed,
        connection=int(joined["cookie"]),
        ordinal=int(joined["ordinal"]),
        tcp_seq=int(joined["tcp_seq"]) or None,
        tier=Tier(tier).name if tier in list(Tier) else "",
        source="" if source is Source.NONE else source.name.lower(),
        method=Match(method).name.lower() if method else "",
        legs={leg.name.lower(): int(joined["leg_ns"][leg]) for leg in Leg if known >> leg & 1},
        missing={
            leg.name.lower(): Reason(int(joined["missing"][leg])).name.lower() for leg in Leg if not known >> leg & 1
        },
    )


class Tail:
    """Which messages are shown, how, and how many there were. `write` gets whole lines."""

    def __init__(
        self,
        write: Callable[[str], object],
        render: Callable[[Message], str],
        *,
        feeds: frozenset[str] = frozenset(),
        slower_than_ns: int | None = None,
        count: int | None = None,
    ) -> None:
        self._write = write
        self._render = render
        self._feeds = feeds
        self._slower_than_ns = slower_than_ns
        self._count = count
        self.seen = 0
        self.shown = 0
        self.without_span = 0
        """Messages that could not be compared with --slower-than."""

    @property
    def done(self) -> bool:
        """Whether as many as wanted were shown."""
        return self._count is not None and self.shown >= self._count

    def add(self, message: Message) -> None:
        """One finalised message."""
        if self.done or (self._feeds and message.feed not in self._feeds):
            return
        self.seen += 1
        if self._slower_than_ns is not None:
            longest_ns = message.longest_ns
            if longest_ns is None:
                self.without_span += 1
                return
            if longest_ns <= self._slower_than_ns:
                return
        self.shown += 1
        self._write(self._render(message) + "\n")

    def closing(self, lost: int, overrun: int) -> str:
        """What was not shown, in one line."""
        words = [f"{self.shown} of {self.seen} messages shown"]
        if self.without_span:
            words.append(f"{self.without_span} had no span to compare")
        if overrun:
            words.append(f"{overrun} came faster than they could be shown")
        if lost:
            words.append(f"{lost} records lost")
        return ", ".join(words)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_common_flags(parser)
    parser.add_argument("--feed", action="append", default=[], metavar="NAME", help="only this feed; may be repeated")
    parser.add_argument(
        "--slower-than",
        metavar="TIME",
        help="only messages whose longest known span (Total, as a rule) is above, e.g. 5ms",
    )
    parser.add_argument("--count", type=_positive, metavar="N", help="stop after N lines")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, every hop, part and span in it")


def _run(arguments: argparse.Namespace) -> int:
    common = log.set_up(arguments)
    slower_than_ns = None if arguments.slower_than is None else parse_duration_ns(arguments.slower_than)
    if any(not feed for feed in arguments.feed):
        raise ConfigError("--feed needs the name of a feed")
    make_directory(common.directory)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    tail = Tail(
        sys.stdout.write,
        render_json if arguments.json else lambda message: render_text(message, colour=colour),
        feeds=frozenset(arguments.feed),
        slower_than_ns=slower_than_ns,
        count=arguments.count,
    )
    # Whatever way a message was matched is worth a line; histograms are not looked at.
    correlator = Correlator(joined_capacity=_JOINED_CAPACITY, match=Match.WINDOW)
    rings = Rings(correlator, common.directory, {})
    try:
        _follow(correlator, rings, tail)
    finally:
        snapshot = correlator.snapshot()
        lost = sum(rings.totals(snapshot).lost.values())
        print(tail.closing(lost, snapshot.evicted.get("joined", 0)), file=sys.stderr)
    return 0


def _follow(correlator: Correlator, rings: Rings, tail: Tail) -> None:
    out = np.zeros(_BATCH, dtype=JOINED)
    names: list[tuple[str, str]] = []
    scan_at = 0.0
    while not tail.done:
        now = time.monotonic()
        if now >= scan_at:
            rings.scan()
            scan_at = now + _SCAN_SECONDS
        correlator.poll()
        while taken := correlator.joined(out):
            for joined in out[:taken]:
                if joined["label"] >= len(names):
                    names = correlator.labels()
                tail.add(message_of(joined, names))
        sys.stdout.flush()
        if not tail.done:
            time.sleep(_PAUSE_SECONDS)


COMMAND = Command(
    help="print one line per message: where its time went",
    add_arguments=_add_arguments,
    run=_run,
)
