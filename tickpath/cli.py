# SPDX-License-Identifier: Apache-2.0
"""The command `tickpath`: finds the parts' subcommands and hands over; knows none of them by name."""

from __future__ import annotations

import argparse
import gc
import sys
from importlib.metadata import EntryPoint, entry_points

from tickpath import __version__
from tickpath.command import GROUP, Command
from tickpath.errors import TickpathError


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tickpath", description="Where the time of every WebSocket market-data message went."
    )
    parser.add_argument("--version", action="version", version=f"tickpath {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    registered = _registered()
    # Loading every part costs a second of imports: the one that is named is enough.
    for name in [wanted] if wanted in registered else registered:
        command: Command = registered[name].load()
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def run(arguments: list[str]) -> int:
    """Run one subcommand; returns its exit code, 2 for wrong usage."""
    name = f"tickpath {arguments[0]}" if arguments else "tickpath"
    try:
        parsed = _parser(arguments[0] if arguments else None).parse_args(arguments)
        gc.freeze()
        gc.enable()
        return int(parsed.run(parsed))
    except TickpathError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error, but the interpreter must not say so either.
        sys.stderr.close()
        return 0
    except OSError as error:
        # A disk that is full, a file that is not ours: the system's own words are what an operator needs.
        what = f"{error.filename}: " if error.filename is not None else ""
        print(f"{name}: {what}{error.strerror or error}", file=sys.stderr)
        return 1
