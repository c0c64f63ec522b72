# SPDX-License-Identifier: Apache-2.0
"""What the poll loops of the DPDK capture count: families over the counters of their rings."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tickpath.exporter.exposition.label import label
from tickpath.exporter.snapshot import RingState

# (metric, help, label, ((its value, counter of the ring), ...), how many of the metric's unit in one of them)
_COUNTERS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...], float], ...] = (
    ("received_frames", "Frames that a poll loop took from its queue.", "", (("", "dpdk_received"),), 1),
    ("published_frames", "Of the received frames: those recorded.", "", (("", "dpdk_published"),), 1),
    ("other_frames", "Of the received frames: not TCP, or of peers not watched.", "", (("", "dpdk_other"),), 1),
    (
        "forwarded_frames",
        "Frames that a loop passed on between its port and the kernel.",
        "direction",
        (("to_kernel", "dpdk_to_kernel"), ("from_kernel", "dpdk_from_kernel")),
        1,
    ),
    (
        "dropped_frames",
        "Frames that were lost, by where: in the port (missed, errors), or on the way to or from the kernel.",
        "reason",
        (
            ("missed", "dpdk_missed"),
            ("errors", "dpdk_errors"),
            ("to_kernel", "dpdk_to_kernel_dropped"),
            ("from_kernel", "dpdk_from_kernel_dropped"),
        ),
        1,
    ),
    ("sequence_gaps", "Segments that began behind bytes nobody saw.", "", (("", "dpdk_holes"),), 1),
    ("unstamped_frames", "Frames without the port's stamp; the poll's was taken.", "", (("", "dpdk_unstamped"),), 1),
    ("polls", "Polls of the queue.", "", (("", "dpdk_polls"),), 1),
    ("idle_polls", "Polls that brought nothing.", "", (("", "dpdk_polls_idle"),), 1),
    ("held_polls", "Polls after which frames of the kernel waited for room in the port.", "", (("", "dpdk_held"),), 1),
    ("busy_seconds", "Time that a loop spent on polls that brought frames.", "", (("", "dpdk_busy_ns"),), 1e-9),
)
_GAUGES = (
    ("residence", "P99 over the last second of how long a burst was in the loop.", "dpdk_residence_ns"),
    ("stamp_bound", "P99 over the last second of what a stamp may be off by.", "dpdk_bound_ns"),
)

COUNTED_BY_LOOPS = frozenset(f"tickpath_dpdk_{name}" for name, *_ in _COUNTERS)
"""These did not begin when the exporter did."""


def dpdk(rings: tuple[RingState, ...]) -> Iterator[Metric]:
    """By ring, which is a queue. Nothing of rings that no poll loop writes."""
    polled = [ring for ring in rings if ring.counters.get("dpdk_polls")]
    for name, help_text, more, counters, unit in _COUNTERS:
        family = CounterMetricFamily(f"tickpath_dpdk_{name}", help_text, labels=("ring", *((more,) if more else ())))
        totals: dict[tuple[str, ...], float] = {}
        for ring in polled:
            for value, counter in counters:
                key = (label(ring.name), *((value,) if more else ()))
                totals[key] = totals.get(key, 0) + ring.counters.get(counter, 0) * unit
        for key, total in totals.items():
            family.add_metric(key, total)
        yield family
    for name, help_text, counter in _GAUGES:
        gauge = GaugeMetricFamily(f"tickpath_dpdk_{name}_seconds", help_text, labels=("ring",), unit="seconds")
        for queue, ns in {label(ring.name): ring.counters.get(counter, 0) for ring in polled if ring.alive}.items():
            gauge.add_metric((queue,), ns / 1e9)
        yield gauge
