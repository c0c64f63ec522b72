# SPDX-License-Identifier: Apache-2.0
"""The /metrics page: one registry, rendered in the format that was asked for."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tickpath.exporter.exposition.families import ObservationCollector
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation


class MetricsPage:
    """Renders the observation that `observe` returns, and the process's own metrics."""

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ObservationCollector(observe))
        ProcessCollector(registry=self._registry)

    def render(self, chosen: Format) -> bytes:
        """The page in that format, not compressed."""
        if chosen is Format.OPENMETRICS:
            rendered: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call] # ships no types
            return rendered
        return generate_latest(self._registry)
