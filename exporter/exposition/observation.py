# SPDX-License-Identifier: Apache-2.0
"""What one scrape is rendered from: the correlator's snapshot and what the service knows of its rings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tickpath.exporter.snapshot import Polls, Snapshot


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of the exporter at one moment.

    `lost` and `skipped` are records per ring name since the exporter started, rings that were replaced or removed
    included. `skipped` counts from where the predecessor of this reader stopped. `unreadable` holds, per ring name,
    why a file that is there now cannot be used; `unreadable_total` counts such files, also those that are gone.
    `started_ns` is when this exporter began to count (since 1970). `polls` is what its thread did; None: there is none.
    `modes` holds (probe, hook, mode) of the living probes that say how they see.
    """

    snapshot: Snapshot
    lost: Mapping[str, int]
    skipped: Mapping[str, int]
    unreadable: Mapping[str, str]
    unreadable_total: int
    started_ns: int
    polls: Polls | None = None
    modes: frozenset[tuple[str, str, str]] = frozenset()
