# SPDX-License-Identifier: Apache-2.0
"""The page as Prometheus's protobuf messages, each behind its length: native histograms beside few classic buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Metric

from tickpath.exporter.exposition._protobuf import COUNTER, GAUGE, UNTYPED, Writer
from tickpath.exporter.exposition.buckets import FEW
from tickpath.exporter.exposition.exemplars import labels_of, two
from tickpath.exporter.exposition.families import COUNTED_ELSEWHERE, families
from tickpath.exporter.exposition.latencies import UNIT, latencies
from tickpath.exporter.exposition.observation import Observation

_KINDS = {"counter": COUNTER, "gauge": GAUGE, "info": GAUGE}
_NOT_CREATED = -1


def _labels(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """A label that is empty is the same to Prometheus as one that is not there."""
    return [pair for pair in labels.items() if pair[1]]


def _write(writer: Writer, metric: Metric, created_ns: int) -> None:
    """A family without samples is left out; when a counter was created is a field here, not a sample."""
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    if samples:
        values = [(_labels(sample.labels), sample.value) for sample in samples]
        kind = _KINDS.get(metric.type, UNTYPED)
        writer.numbers(samples[0].name, metric.documentation, kind, metric.unit, created_ns, values)


def render(observation: Observation, process: Iterable[Metric]) -> bytes:
    """The page: what was observed, then the process's own metrics."""
    writer = Writer(FEW)
    for family in latencies(observation):
        if family.series:
            writer.histograms(
                family.name,
                family.help,
                UNIT,
                observation.started_ns,
                [
                    (
                        _labels(dict(zip(family.labels, values, strict=True))),
                        one.histogram,
                        [(labels_of(e).items(), e.value_ns, e.time_ns) for e in two(one.exemplars)],
                    )
                    for values, one in family.series.items()
                ],
            )
    for metric in families(observation):
        elsewhere = metric.name in COUNTED_ELSEWHERE
        _write(writer, metric, _NOT_CREATED if elsewhere else observation.started_ns)
    for metric in process:
        _write(writer, metric, _NOT_CREATED)
    return writer.bytes()
