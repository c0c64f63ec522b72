# SPDX-License-Identifier: Apache-2.0
"""What the kernel probe's programs cost where it was told to count that: families over its ring's counters."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from tickpath.exporter.exposition.label import label
from tickpath.exporter.snapshot import RingState

_HOOKS = ("readable", "copied", "state", "asked")
# (metric, help, counter of a hook, in one of them how many of the metric's unit)
_FAMILIES = (
    ("probe_cost_seconds", "Time that a probe's BPF programs ran.", "cost_{}_ns", 1e-9),
    ("probe_runs", "Runs of a probe's BPF programs, for sockets that are not selected too.", "runs_{}", 1),
    ("probe_records", "Records that a probe's BPF programs gave.", "told_{}", 1),
)

COUNTED_BY_PROBES = frozenset(f"tickpath_{name}" for name, *_ in _FAMILIES)
"""These did not begin when the exporter did."""


def cost(rings: tuple[RingState, ...]) -> Iterator[Metric]:
    """By probe, which is its ring's name, and hook. Nothing of a ring whose probe counts none."""
    for name, help_text, counter, unit in _FAMILIES:
        family = CounterMetricFamily(f"tickpath_{name}", help_text, labels=("probe", "hook"))
        totals: dict[tuple[str, str], float] = {}
        for ring in rings:
            for hook in _HOOKS:
                if ring.counters.get(f"runs_{hook}"):
                    key = (label(ring.name), hook)
                    totals[key] = totals.get(key, 0) + ring.counters.get(counter.format(hook), 0) * unit
        for key, value in totals.items():
            family.add_metric(key, value)
        yield family
