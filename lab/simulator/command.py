# SPDX-License-Identifier: Apache-2.0
"""`tickpath simulate`: the flags of the simulator, its ready line, its summary."""

from __future__ import annotations

import argparse
import gc
import select
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec

from tickpath import log
from tickpath.command import Command
from tickpath.lab.simulator.config import (
    DEFAULT_PORT,
    AtEnd,
    Coalesce,
    EventTimes,
    Faults,
    Garbage,
    KeyUpdate,
    Shape,
    SimulatorConfig,
    Venue,
)
from tickpath.lab.simulator.server import Simulator
from tickpath.stopping import stop_pipe

_LOOK_S = 0.1  # how often it is looked whether the messages have ended


def _speed(text: str) -> Fraction | None:
    if text == "max":
        return None
    try:
        speed = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a factor nor max") from None
    return speed


def _scaled(unit_ns: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            return int(Fraction(text) * unit_ns)
        except (ValueError, ZeroDivisionError):
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None

    return number


_seconds = _scaled(1_000_000_000)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=DEFAULT_PORT, help="port, 0 for any free one (%(default)s)")
    add("--tls", choices=["1.2", "1.3"], help="wss with this TLS version alone; without: ws")
    add("--ca", type=Path, metavar="FILE", help="where the throw-away CA's certificate is written")
    add("--name", action="append", default=[], help="further host name or address for the server's certificate")
    add("--venue", choices=[v.value for v in Venue], help="URL forms and keep-alive; default: as the recording shows")
    add("--replay", type=Path, metavar="FILE", help="recording to replay; without: generated messages")
    add("--seed", type=int, default=1, help="of the generated messages (%(default)s)")
    add("--speed", type=_speed, default=Fraction(1), metavar="X", help="times the recorded pace, or max (1)")
    add(
        "--event-times",
        choices=[e.value for e in EventTimes],
        default=EventTimes.NOW.value,
        help="now: fresh; recorded: the recorder's clock skew stays visible; original: bytes untouched (%(default)s)",
    )
    add("--exchange-delay-ms", type=_scaled(1_000_000), default=2_000_000, metavar="MS", help="event to sending (2)")
    add("--messages", type=int, metavar="N", help="end each connection after N messages")
    add("--duration", type=_seconds, metavar="S", help="end S seconds after the first subscription")
    add("--connections", type=int, metavar="N", help="end after N connections have ended")
    add(
        "--at-end",
        choices=[a.value for a in AtEnd],
        default=AtEnd.CLOSE.value,
        help="after the last message: %(choices)s",
    )
    add("--shared-clock", action="store_true", help="one clock for all connections, as on a live exchange")
    add("--ping-interval", type=_seconds, metavar="S", help="default: the venue's (spot 20, futures 180)")
    add("--linger", type=_seconds, default=5_000_000_000, metavar="S", help="wait for the clients at the end (5)")
    add("--log", type=Path, metavar="FILE", help="a JSON line per message: offsets, times")
    add("--status", type=Path, metavar="FILE", help="replaced continuously with what was sent so far")
    add("--json", action="store_true", help="at the end print one JSON line with what was sent")
    shape = parser.add_argument_group("shape on the wire")
    add = shape.add_argument
    add("--coalesce", type=int, default=1, metavar="N", help="messages put together")
    add("--coalesce-into", choices=[c.value for c in Coalesce], default="record", help="one TLS record, or one send()")
    add("--split", type=int, default=1, metavar="N", help="parts per message, a TLS record and a send() each")
    add("--split-pause-us", type=_scaled(1_000), default=0, metavar="US", help="pause between the parts")
    add("--fragments", type=int, default=1, metavar="N", help="WebSocket frames per message")
    add("--ping-between", action="store_true", help="a ping between the fragments")
    add("--key-update", choices=[k.value for k in KeyUpdate], help="send TLS 1.3 KeyUpdate")
    add("--key-update-every", type=int, default=100, metavar="N", help="messages between two (%(default)s)")
    add("--pad", type=int, default=0, metavar="BYTES", help="pad TLS 1.3 records to a multiple")
    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    add("--refuse", type=int, metavar="STATUS", help="answer the handshake with this HTTP status")
    add("--silent", action="store_true", help="accept, and never send a message")
    add("--abort-after", type=int, metavar="N", help="reset (RST) the connection after N messages")
    add("--garbage-after", type=int, metavar="N", help="send garbage after N messages")
    add("--garbage", choices=[g.value for g in Garbage], default="frame", help="the layer that breaks (%(default)s)")
    add("--huge", type=int, default=0, metavar="BYTES", help="begin with a message of this size")


def config_of(flags: argparse.Namespace) -> SimulatorConfig:
    """The configuration that the flags ask for. Raises ConfigError where they contradict each other."""
    return SimulatorConfig(
        host=flags.host,
        port=flags.port,
        tls=flags.tls,
        ca=flags.ca,
        names=tuple(flags.name),
        venue=Venue(flags.venue) if flags.venue else None,
        replay=flags.replay,
        seed=flags.seed,
        speed=flags.speed,
        event_times=EventTimes(flags.event_times),
        exchange_delay_ns=flags.exchange_delay_ms,
        messages=flags.messages,
        duration_ns=flags.duration,
        connections=flags.connections,
        at_end=AtEnd(flags.at_end),
        shared_clock=flags.shared_clock,
        ping_interval_ns=flags.ping_interval,
        linger_ns=flags.linger,
        log=flags.log,
        status=flags.status,
        shape=Shape(
            coalesce=flags.coalesce,
            coalesce_into=Coalesce(flags.coalesce_into),
            split=flags.split,
            split_pause_ns=flags.split_pause_us,
            fragments=flags.fragments,
            ping_between=flags.ping_between,
            key_update=KeyUpdate(flags.key_update) if flags.key_update else None,
            key_update_every=flags.key_update_every,
            pad_bytes=flags.pad,
        ),
        faults=Faults(
            refuse_status=flags.refuse,
            silent=flags.silent,
            abort_after=flags.abort_after,
            garbage_after=flags.garbage_after,
            garbage=Garbage(flags.garbage),
            huge_bytes=flags.huge,
        ),
    )


def _run(flags: argparse.Namespace) -> int:
    log.set_up()
    simulator = Simulator(config_of(flags))
    stop_fd, _ = stop_pipe()
    with simulator:
        if simulator.ca_path is not None:
            print(f"certificate authority {simulator.ca_path}")
        # A collection that walks the whole recording would hold up the replay for tens of milliseconds.
        gc.freeze()
        # The line that who started us waits for.
        print(f"listening on {simulator.url}", flush=True)
        while not (simulator.ended.is_set() or select.select([stop_fd], [], [], _LOOK_S)[0]):
            pass
    summary = simulator.summary()
    if flags.json:
        print(msgspec.json.encode(summary).decode(), flush=True)
    else:
        print(
            f"sent {summary.messages} messages in {summary.bytes} bytes on {len(summary.connections)} connections",
            file=sys.stderr,
        )
    return 0


simulate = Command(
    help="a simulated exchange: Binance-shaped ws and wss feeds, replayed or generated",
    add_arguments=_add_arguments,
    run=_run,
)
