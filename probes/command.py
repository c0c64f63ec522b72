# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe NAME`: finds the probes by their entry points and hands over; knows none of them by name."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points

from tickpath.command import Command

GROUP = "tickpath.probes"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    probes = parser.add_subparsers(dest="probe", metavar="PROBE", required=True)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        probe: Command = entry.load()
        subparser = probes.add_parser(entry.name, help=probe.help, description=probe.help)
        probe.add_arguments(subparser)
        subparser.set_defaults(run_probe=probe.run)


def _run(args: argparse.Namespace) -> int:
    return int(args.run_probe(args))


command = Command(help="watch from outside the measured application", add_arguments=_add_arguments, run=_run)
