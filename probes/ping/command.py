# SPDX-License-Identifier: Apache-2.0
"""`tickpath ping TARGET…`: pings until its count or Ctrl-C, a line for each, and what it came to."""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from tickpath import config, log
from tickpath.command import Command
from tickpath.event import RECORD, Kind
from tickpath.own_ring import own_ring
from tickpath.probes.ping.config import PingConfig
from tickpath.ring import RingReader
from tickpath.stopping import stop_pipe

if TYPE_CHECKING:
    from tickpath.probes.ping.session import Running
    from tickpath.probes.ping.summary import Account

_RECORDS = 1 << 16
_SHOW_MS = 20


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pings")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="HOST, or icmp://HOST, udp://HOST:PORT, tcp://HOST:PORT")
    add("-c", "--count", type=_count, default=0, metavar="N", help="so many to each target (default: until Ctrl-C)")
    add("-i", dest="PingConfig.interval", metavar="SECONDS", help="--interval")
    add("-W", dest="PingConfig.timeout", metavar="SECONDS", help="--timeout")
    add("-s", dest="PingConfig.size", metavar="BYTES", help="--size")
    add("-I", dest="PingConfig.interface", metavar="NAME", help="--interface")
    add("-p", dest="PingConfig.port", metavar="PORT", help="--port")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6, help="IPv6 only")
    add("-q", "--quiet", action="store_true", help="nothing but the summary")
    add("--linger", type=_seconds, default=0.0, metavar="SECONDS", help="listen on after the last, for late and double")
    add("--json", action="store_true", help="one JSON object per outcome and one per target at the end, in nanoseconds")
    add("--serve", action="store_true", help="be the echo server of UDP pings, at -p and -I, until Ctrl-C")
    add("--capabilities", action="store_true", help="say what this host offers a pinger, and ping nobody")
    config.add_flags(parser, PingConfig)
    config.add_common_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    common = log.set_up(arguments)
    chosen = config.load(PingConfig, "ping", arguments)
    # Imported here: `tickpath ping --help` needs no native code.
    if arguments.serve:
        from tickpath.probes.ping.serve import serve  # noqa: PLC0415

        return serve(chosen, arguments.family)
    if arguments.capabilities:
        from tickpath.probes.ping.capability import show  # noqa: PLC0415

        return show(as_json=arguments.json)
    return _ping(arguments, chosen, common.directory)


class _Shown:
    """Takes records from the ring, writes lines and keeps account."""

    def __init__(self, reader: RingReader, accounts: dict[int, Account], *, quiet: bool, as_json: bool) -> None:
        self._reader = reader
        self._accounts = accounts
        self._quiet = quiet
        self._encode = msgspec.json.Encoder().encode if as_json else None
        self._records = np.zeros(1024, RECORD)

    def take(self) -> None:
        """All that is new."""
        while count := self._reader.read(self._records.view("u1")):
            for record in self._records[:count]:
                if record["kind"] in (Kind.PING, Kind.PING_SPLIT):
                    self._show(record, self._accounts[int(record["row"])])
        sys.stdout.flush()

    def _show(self, record: np.void, account: Account) -> None:
        from tickpath.probes.ping.outcome import Outcome, line, outcome_of  # noqa: PLC0415
        from tickpath.probes.ping.parts import Parts, parts_line, parts_of  # noqa: PLC0415

        one: Outcome | Parts
        text: str | None
        if record["kind"] == Kind.PING:
            one = outcome_of(record, account.target)
            account.add(one)
            text = line(one, account.target.host)
        else:
            one = parts_of(record, account.target)
            account.add_parts(one)
            text = parts_line(one)
        if self._encode:
            text = self._encode(one).decode()
        if text is not None and not self._quiet:
            sys.stdout.write(text + "\n")


def _ping(arguments: argparse.Namespace, chosen: PingConfig, directory: Path) -> int:
    from tickpath.probes.ping.hardware import switch_on  # noqa: PLC0415
    from tickpath.probes.ping.session import Running, open_pinger, targets_of  # noqa: PLC0415
    from tickpath.probes.ping.summary import Account, render  # noqa: PLC0415

    family = arguments.family or socket.AF_UNSPEC
    targets = targets_of(arguments.targets or chosen.targets, chosen, family)
    stop_fd, stop = stop_pipe()
    with own_ring("ping", "ping", capacity=_RECORDS, rows=len(targets)) as (writer, reader):
        pinger, rows = open_pinger(targets, chosen, writer, count=arguments.count, linger_s=arguments.linger)
        try:
            accounts = {row: Account(target) for row, target in rows.items()}
            shown = _Shown(reader, accounts, quiet=arguments.quiet, as_json=arguments.json)
            if not arguments.json:
                for target in targets:
                    print(
                        f"PING {target.name} ({target.address[0]}) by {target.label}, {chosen.size} bytes", flush=True
                    )
            with ExitStack() as leases:
                stamping = switch_on(targets, chosen, directory, leases) if chosen.hardware else []
                running = Running(pinger, stop_fd)
                try:
                    _show(shown, running, stop_fd)
                finally:
                    os.write(stop, b"\0")
                    running.join()
            shown.take()
        finally:
            pinger.close()
        totals = [account.totals() for account in accounts.values()]
        for one in totals:
            print(msgspec.json.encode(one).decode() if arguments.json else "\n" + render(one))
        if stamping and not any("hw" in one.rtt for one in totals):
            print(f"{', '.join(stamping)}: hardware stamps were switched on, and none came", file=sys.stderr)
        _say_apart(reader)
    # As ping: 1 where a target never answered.
    return 0 if all(one.received for one in totals) else 1


def _show(shown: _Shown, running: Running, stop_fd: int) -> None:
    stopping = select.poll()
    stopping.register(stop_fd, select.POLLIN)
    while running.alive and not stopping.poll(_SHOW_MS):
        shown.take()


def _say_apart(reader: RingReader) -> None:
    """What belongs to no target's figures, and would be missed in silence."""
    from tickpath.event import Counter  # noqa: PLC0415

    totals = reader.counters()
    said = {
        "replies to nothing remembered": totals[Counter.PING_STRAY],
        "replies damaged or changed": totals[Counter.PING_MALFORMED],
        "planned and not sent, too far behind": totals[Counter.PING_SKIPPED],
        "records overwritten before they were shown": reader.lost,
    }
    for what, count in said.items():
        if count:
            print(f"{count} {what}", file=sys.stderr)


COMMAND = Command(
    help="ping by ICMP, UDP or TCP with the best stamps that this host has; --serve: the UDP echo server",
    add_arguments=_add_arguments,
    run=_run,
)
