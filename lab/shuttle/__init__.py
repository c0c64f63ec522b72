# SPDX-License-Identifier: Apache-2.0
"""The truth wire: a test network whose every frame is known. The shuttle itself is a C program beside this package."""

from tickpath.lab.shuttle.config import ALWAYS, NEVER, Faults, When, WireConfig
from tickpath.lab.shuttle.log import RECORD, Direction, Fate, Log, frame_hash, has
from tickpath.lab.shuttle.wire import ShuttleError, Side, TruthWire

__all__ = [
    "ALWAYS",
    "NEVER",
    "RECORD",
    "Direction",
    "Fate",
    "Faults",
    "Log",
    "ShuttleError",
    "Side",
    "TruthWire",
    "When",
    "WireConfig",
    "frame_hash",
    "has",
]
