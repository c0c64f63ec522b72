# SPDX-License-Identifier: Apache-2.0
"""What a part registers under the entry-point group `tickpath.commands` to become `tickpath NAME`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

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
