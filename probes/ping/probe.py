# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe ping`: pings its targets for as long as it runs, into a ring that the exporter reads."""

from __future__ import annotations

import argparse
import contextlib
import socket
from pathlib import Path

import structlog

from tickpath import config, log
from tickpath.command import Command
from tickpath.errors import NotHereError
from tickpath.probes.ping.config import PingConfig
from tickpath.ring import RingWriter


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_flags(parser, PingConfig)
    config.add_common_flags(parser)


def run(chosen: PingConfig, directory: Path) -> int:
    """Ping until SIGTERM or SIGINT, then 0. TickpathError: a target cannot be pinged from here at all."""
    # Imported here: `tickpath probe --help` needs no native code.
    from tickpath.probes.ping.hardware import switch_on  # noqa: PLC0415
    from tickpath.probes.ping.session import Running, open_pinger, targets_of  # noqa: PLC0415
    from tickpath.stopping import stop_pipe  # noqa: PLC0415

    if not chosen.targets:
        raise NotHereError("nothing to ping: name targets in TICKPATH_PING_TARGETS, [ping] targets or --targets")
    targets = targets_of(chosen.targets, chosen, socket.AF_UNSPEC)
    stop_fd, _ = stop_pipe()
    with RingWriter(directory, chosen.name, "ping", capacity=chosen.capacity, rows=len(targets)) as ring:
        pinger, _ = open_pinger(targets, chosen, ring)
        try:
            with contextlib.ExitStack() as leases:
                stamping = switch_on(targets, chosen, directory, leases) if chosen.hardware else []
                running = Running(pinger, stop_fd)
                structlog.get_logger().info(
                    "ready", ring=str(ring.path), targets=len(targets), hardware=",".join(stamping) or "as it is"
                )
                running.join()
        finally:
            pinger.close()
        structlog.get_logger().info("stopped", records=ring.head)
    return 0


def _run(args: argparse.Namespace) -> int:
    common = log.set_up(args)
    return run(config.load(PingConfig, "ping", args), common.directory)


command = Command(
    help="ping targets all the time, for the exporter (ICMP needs a ping socket or CAP_NET_RAW)",
    add_arguments=_add_arguments,
    run=_run,
)
