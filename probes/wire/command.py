# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe wire`."""

from __future__ import annotations

import argparse

from tickpath import config, log
from tickpath.command import Command
from tickpath.probes.wire.config import WireConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_flags(parser, WireConfig)
    config.add_common_flags(parser)


def _run(args: argparse.Namespace) -> int:
    common = log.set_up(args)
    wire = config.load(WireConfig, "wire", args)
    # Imported here: `tickpath probe --help` needs no native code.
    from tickpath.probes.wire.probe import run  # noqa: PLC0415

    return run(wire, common.directory)


command = Command(
    help="record when each TCP segment of the watched peers reached this host (AF_PACKET; needs CAP_NET_RAW)",
    add_arguments=_add_arguments,
    run=_run,
)
