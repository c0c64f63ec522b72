# SPDX-License-Identifier: Apache-2.0
"""The /metrics page: one observation, rendered in the format that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from tickpath.exporter.exposition import protobuf
from tickpath.exporter.exposition.families import families
from tickpath.exporter.exposition.latencies import classic, latencies
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation


class _TextCollector(Collector):
    """Yields the families of a fresh observation at every scrape, as the text formats show them."""

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._observe = observe

    def describe(self) -> list[Metric]:
        """Nothing: a registry would otherwise collect once when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Latencies first, in the order in which docs/metrics.md lists them."""
        observation = self._observe()
        yield from classic(latencies(observation))
        yield from families(observation)


class MetricsPage:
    """Renders the observation that `observe` returns, and the process's own metrics."""

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._observe = observe
        self._registry = CollectorRegistry()
        self._registry.register(_TextCollector(observe))
        self._process = ProcessCollector(registry=self._registry)

    def render(self, chosen: Format) -> bytes:
        """The page in that format, not compressed."""
        if chosen is Format.PROTOBUF:
            return protobuf.render(self._observe(), self._process.collect())
        if chosen is Format.OPENMETRICS:
            rendered: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call] # ships no types
            return rendered
        return generate_latest(self._registry)
