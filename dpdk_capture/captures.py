# SPDX-License-Identifier: Apache-2.0
"""`tickpath capture NAME`: finds the captures by their entry points and hands over; knows none of them by name."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points

from tickpath.command import Command

GROUP = "tickpath.captures"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    captures = parser.add_subparsers(dest="capture", metavar="CAPTURE", required=True)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        capture: Command = entry.load()
        subparser = captures.add_parser(entry.name, help=capture.help, description=capture.help)
        capture.add_arguments(subparser)
        subparser.set_defaults(run_capture=capture.run)


def _run(args: argparse.Namespace) -> int:
    return int(args.run_capture(args))


command = Command(help="take a NIC's frames without the kernel", add_arguments=_add_arguments, run=_run)
