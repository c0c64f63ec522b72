# SPDX-License-Identifier: Apache-2.0
"""What a part registers under the entry-point group `tickpath.commands` to become `tickpath NAME`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

GROUP = "tickpath.commands"


@dataclass(frozen=True)
class Command:
    """One subcommand.

    `help` is one line. `add_arguments` fills the subcommand's own parser. `run` gets the parsed flags and returns the
    exit code; a TickpathError that leaves it is printed as one line.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def family(group: str, *, metavar: str, help: str) -> Command:  # noqa: A002 - argparse's own word
    """A command whose subcommands are the Commands of an entry-point group: it knows none of them by name."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        members = parser.add_subparsers(dest=metavar.lower(), metavar=metavar, required=True)
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            member: Command = entry.load()
            subparser = members.add_parser(entry.name, help=member.help, description=member.help)
            member.add_arguments(subparser)
            subparser.set_defaults(run_member=member.run)

    def run(arguments: argparse.Namespace) -> int:
        return int(arguments.run_member(arguments))

    return Command(help=help, add_arguments=add_arguments, run=run)
