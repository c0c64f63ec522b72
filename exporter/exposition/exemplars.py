# SPDX-License-Identifier: Apache-2.0
"""What names the message behind an exemplar, within the 128 characters that OpenMetrics allows for it."""

from __future__ import annotations

from collections.abc import Sequence

from tickpath.exporter.exposition.label import label
from tickpath.exporter.snapshot import Exemplar

MAX_CHARACTERS = 128
"""Of all names and values of an exemplar's labels together (OpenMetrics 1.0)."""


def labels_of(exemplar: Exemplar) -> dict[str, str]:
    """Feed, connection (the socket's cookie as `ss -e` shows it) and ordinal: what finds the message again.

    A feed's name that is too long once escaped is left out: the series has it.
    """
    labels = {"feed": label(exemplar.feed), "ordinal": str(exemplar.ordinal)}
    if exemplar.connection:
        labels["connection"] = f"{exemplar.connection:x}"
    if sum(len(name) + len(value) for name, value in labels.items()) > MAX_CHARACTERS:
        del labels["feed"]
    return labels


def two(exemplars: Sequence[Exemplar]) -> list[Exemplar]:
    """The slowest, and the newest of the others, in the order of time: what a native histogram shows at one scrape.

    Scrape by scrape they spread over the tail; all of them each time would be a third of the page.
    """
    slowest = max(exemplars, key=lambda e: e.value_ns, default=None)
    others = [one for one in exemplars if one is not slowest]
    kept = [one for one in (slowest, max(others, key=lambda e: e.time_ns, default=None)) if one is not None]
    return sorted(kept, key=lambda e: e.time_ns)
