# SPDX-License-Identifier: Apache-2.0
"""What a part registers under the entry-point group `tickpath.capabilities`: what this host offers, for doctor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

GROUP = "tickpath.capabilities"


@dataclass(frozen=True)
class Capability:
    """One way in which this host can (or cannot) serve a hop or a clock.

    subject: a hop, part, span or clock by its DESIGN name, e.g. "nic_to_user", "clock.utc".
    source:  how it would be had, e.g. "af_packet sw", "sock", "adjtimex".
    rank:    0 is best; among the available ones of a subject the lowest rank is the one used.
    detail:  what was found, with figures.
    remedy:  what an operator can do to have it (a command where there is one), or None where nothing helps.
    """

    subject: str
    source: str
    rank: int
    available: bool
    detail: str
    remedy: str | None = None


Provider = Callable[[], list[Capability]]
