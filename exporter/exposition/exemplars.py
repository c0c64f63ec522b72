# SPDX-License-Identifier: Apache-2.0
"""What names the message behind an exemplar, within the 128 characters that OpenMetrics allows for it."""

from __future__ import annotations

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
