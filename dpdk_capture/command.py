# SPDX-License-Identifier: Apache-2.0
"""`tickpath capture dpdk`."""

from __future__ import annotations

import argparse

from tickpath import config, log
from tickpath.command import Command
from tickpath.dpdk_capture.config import DpdkConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_flags(parser, DpdkConfig)
    config.add_common_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be set up, and end")


def _run(args: argparse.Namespace) -> int:
    common = log.set_up(args)
    dpdk = config.load(DpdkConfig, "dpdk", args)
    # Imported here: `tickpath capture --help` needs no native code.
    from tickpath.dpdk_capture.capture import run  # noqa: PLC0415

    return run(dpdk, common.directory, dry=args.dry_run)


command = Command(
    help="record when each TCP segment of the watched peers came out of a NIC that DPDK owns (needs root)",
    add_arguments=_add_arguments,
    run=_run,
)
