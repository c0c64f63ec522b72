# SPDX-License-Identifier: Apache-2.0
"""Every family but the latencies, made of an observation: the names, labels and meanings that docs/metrics.md lists.

A new family is added in families(), at the end; all formats follow from what it yields.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from tickpath import __version__
from tickpath.exporter.exposition.cost import COUNTED_BY_PROBES, cost
from tickpath.exporter.exposition.dpdk import COUNTED_BY_LOOPS, dpdk
from tickpath.exporter.exposition.label import label
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.snapshot import RingState, Snapshot

# (metric, help, fixed labels, counter of the producer)
_PRODUCER_COUNTERS: tuple[tuple[str, str, tuple[tuple[str, str], ...], str], ...] = (
    ("feed_messages", "Messages that feed probes received.", (), "messages"),
    ("parse_failures", "Messages whose JSON could not be read.", (), "parse_failed"),
    ("publish_dropped_messages", "Messages not published because the queue was full.", (), "publish_dropped"),
    ("feed_connects", "Attempts of feeds to connect to their venue, by result.", (("result", "opened"),), "connects"),
    ("feed_connects", "", (("result", "failed"),), "connect_failed"),
    ("protocol_errors", "Connections ended by what the peer sent.", (), "protocol_errors"),
    ("feed_gaps", "Sequence numbers of the venue that were skipped.", (), "feed_gaps"),
    ("control_frames", "WebSocket pings, pongs and closes received.", (), "control_frames"),
    ("subscription_replies", "Replies to subscriptions, which are not messages.", (), "replies"),
    ("wire_frames", "Frames that passed the wire probe's filter.", (), "frames"),
    ("wire_frames_discarded", "Frames that gave no record, by reason.", (("reason", "dropped"),), "frames_dropped"),
    ("wire_frames_discarded", "", (("reason", "dropped"),), "dpdk_missed"),
    ("wire_frames_discarded", "", (("reason", "malformed"),), "frames_malformed"),
    ("wire_frames_discarded", "", (("reason", "fragment"),), "frames_fragment"),
    (
        "wire_frames_unstamped",
        "Frames that the kernel had not stamped: stamped by the capture, later.",
        (),
        "frames_unstamped",
    ),
    (
        "wire_hardware_unstamped_frames",
        "Frames without a stamp of a NIC that was to stamp all: the kernel's was taken, source sw.",
        (),
        "hw_missing",
    ),
    (
        "wire_hardware_given_up",
        "Times that a NIC was found to stamp nothing, whatever its driver had said.",
        (),
        "hw_given_up",
    ),
    ("wire_clock_read_failures", "Readings of a NIC's clock that failed.", (), "phc_read_failed"),
    ("wire_interface_lost", "Times a captured interface went down or away.", (), "interface_lost"),
    ("kernel_events_lost", "Kernel events that could not be handed on: gaps.", (), "events_lost"),
    (
        "kernel_runs_left_out",
        "Runs of a BPF program that the kernel left out amid another, for any socket of the host.",
        (),
        "runs_left_out",
    ),
    (
        "kernel_unsupported_connections",
        "Connections whose bytes the kernel probe cannot tell by sequence numbers.",
        (),
        "unsupported_transport",
    ),
    (
        "kernel_out_of_order_segments",
        "Segments that came before bytes that precede theirs, on connections that kernel probes watch.",
        (),
        "out_of_order",
    ),
    (
        "kernel_retransmitted_segments",
        "Segments that this host sent again, on connections that kernel probes watch.",
        (),
        "retransmits",
    ),
    ("kernel_nameless_events", "Kernel events of sockets that have no cookie: not told.", (), "no_cookie"),
    ("ping_unknown_replies", "Answers to no ping that is remembered, by reason.", (("reason", "stray"),), "ping_stray"),
    ("ping_unknown_replies", "", (("reason", "malformed"),), "ping_malformed"),
    ("ping_skipped", "Pings planned and not sent, having fallen too far behind.", (), "ping_skipped"),
    ("ping_unpaired_stamps", "Stamps of sending that belong to no ping that is remembered.", (), "ping_unpaired"),
    ("rows_exhausted", "Connections that found no free row in their ring's table.", (), "rows_exhausted"),
)

COUNTED_ELSEWHERE = (
    frozenset(f"tickpath_{name}" for name, *_ in _PRODUCER_COUNTERS) | COUNTED_BY_PROBES | COUNTED_BY_LOOPS
)
"""Counters that producers keep: they did not begin when this exporter did."""


def _counter(
    name: str, help_text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    """A counter; values whose labels are alike once encoded are added, for one series may only be written once."""
    totals: dict[tuple[str, ...], int] = defaultdict(int)
    for key, value in values:
        totals[tuple(map(label, key))] += value
    family = CounterMetricFamily(f"tickpath_{name}", help_text, labels=labels)
    for key, value in totals.items():
        family.add_metric(key, value)
    return family


def _messages(snapshot: Snapshot) -> Iterator[Metric]:
    matched = (((v, f, tier, method), n) for (v, f, tier, method, _), n in snapshot.matched.items())
    # An unmatched message counts here too, so that the sum over the metric is the number of messages.
    unmatched = (((v, f, "", "none"), n) for (v, f, _), n in snapshot.unmatched.items())
    yield _counter(
        "messages",
        "Messages, by how their end is known (tier) and how they were matched with the wire.",
        ("venue", "feed", "tier", "method"),
        (*matched, *unmatched),
    )
    yield _counter(
        "unmatched_messages",
        "Messages that no wire stamp could be found for, by reason.",
        ("venue", "feed", "reason"),
        snapshot.unmatched.items(),
    )
    yield _counter(
        "missing_hop",
        "Messages for which a hop could not be recorded, by reason.",
        ("hop", "venue", "feed", "reason"),
        (((hop, v, f, reason), n) for (v, f, hop, reason), n in snapshot.missing.items()),
    )
    yield _counter(
        "negative_latencies",
        "Messages whose time in a hop, part or span is below zero: evidence of clock error.",
        ("hop", "venue", "feed"),
        (((hop, v, f), n) for (v, f, hop), n in snapshot.negative.items()),
    )
    for name, help_text, values in (
        ("head_of_line_blocked_messages", "Messages that waited for earlier bytes.", snapshot.hol_blocked),
        ("missed_messages", "Messages whose records were overwritten before they were read.", snapshot.missed),
        ("retransmitted_messages", "Messages of which a byte arrived more than once.", snapshot.retransmitted),
        ("merged_messages", "Messages whose own arrival was a frame merged by GRO.", snapshot.merged),
    ):
        yield _counter(name, help_text, ("venue", "feed"), values.items())
    yield GaugeMetricFamily("tickpath_pending_messages", "Messages that wait for their stamps.", value=snapshot.pending)
    yield _counter(
        "evicted",
        "What the correlator dropped to stay within bounded memory.",
        ("what",),
        (((what,), n) for what, n in snapshot.evicted.items()),
    )


def _producer_counters(rings: tuple[RingState, ...]) -> Iterator[Metric]:
    values: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    described: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, help_text, fixed, counter in _PRODUCER_COUNTERS:
        described.setdefault(name, (help_text, ("ring", *(key for key, _ in fixed))))
        values[name] += (
            ((ring.name, *(value for _, value in fixed)), ring.counters[counter])
            for ring in rings
            if counter in ring.counters
        )
    for name, (help_text, labels) in described.items():
        yield _counter(name, help_text, labels, values[name])


def _per_ring(values: Mapping[str, int]) -> Iterable[tuple[tuple[str, ...], int]]:
    return (((name,), count) for name, count in values.items())


def _rings(observation: Observation) -> Iterator[Metric]:
    snapshot = observation.snapshot
    up = GaugeMetricFamily(
        "tickpath_producer_up", "Whether the ring's producer is alive: it holds the lock.", labels=("ring", "kind")
    )
    stopped = GaugeMetricFamily(
        "tickpath_producer_stopped",
        "Whether the ring's last producer ended of its own will, and no other came.",
        labels=("ring", "kind"),
    )
    alive: dict[tuple[str, str], bool] = defaultdict(bool)
    ended: dict[tuple[str, str], bool] = defaultdict(lambda: True)
    for ring in snapshot.rings:
        alive[label(ring.name), label(ring.kind)] |= ring.alive
        ended[label(ring.name), label(ring.kind)] &= ring.stopped
    for key, value in alive.items():
        up.add_metric(key, value)
        stopped.add_metric(key, ended[key])
    yield up
    yield stopped
    yield _counter(
        "ring_lost_records", "Records overwritten before they were read.", ("ring",), _per_ring(observation.lost)
    )
    yield _counter(
        "ring_skipped_records",
        "Records written since the exporter's predecessor had read, before this one did.",
        ("ring",),
        _per_ring(observation.skipped),
    )
    unreadable = GaugeMetricFamily(
        "tickpath_ring_unreadable", "Ring files that are there and cannot be used.", labels=("ring",)
    )
    for name in sorted({label(name) for name in observation.unreadable}):
        unreadable.add_metric((name,), 1)
    yield unreadable
    yield _counter(
        "ring_unreadable_files", "Ring files that could not be used.", (), [((), observation.unreadable_total)]
    )
    yield from _producer_counters(snapshot.rings)


def _clocks(snapshot: Snapshot) -> Iterator[Metric]:
    offset = GaugeMetricFamily(
        "tickpath_clock_offset_seconds", "The clock minus CLOCK_MONOTONIC.", labels=("clock",), unit="seconds"
    )
    uncertainty = GaugeMetricFamily(
        "tickpath_clock_uncertainty_seconds",
        "Bound on the clock's error against UTC; +Inf where nothing bounds it.",
        labels=("clock",),
        unit="seconds",
    )
    for clock in snapshot.clocks:
        key = (label(clock.clock),)
        offset.add_metric(key, clock.offset_ns / 1e9)
        uncertainty.add_metric(key, float("inf") if clock.bound_ns is None else clock.bound_ns / 1e9)
    yield offset
    yield uncertainty
    yield _uncertainties(snapshot)
    yield _counter(
        "clock_steps", "Times the clock was set.", ("clock",), (((c.clock,), c.steps) for c in snapshot.clocks)
    )


def _uncertainties(snapshot: Snapshot) -> GaugeMetricFamily:
    """Hops that a wire stamp begins or ends: with the other end on the host's clock, and with the venue's on UTC."""
    family = GaugeMetricFamily(
        "tickpath_hop_uncertainty_seconds",
        "How far a hop may be off by the clocks of this host: the largest of the last half minute or more.",
        labels=("hop", "source"),
        unit="seconds",
    )
    utc_ns = next((clock.bound_ns for clock in snapshot.clocks if clock.clock == "realtime"), None)
    for source, bound_ns in snapshot.stamp_bounds.items():
        family.add_metric(("nic_to_kernel", label(source)), bound_ns / 1e9)
        family.add_metric(("bn_to_nic", label(source)), float("inf") if utc_ns is None else (bound_ns + utc_ns) / 1e9)
    return family


def _modes(observation: Observation) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "tickpath_probe_mode", "How a probe sees, by hook: 1 for the mode in use.", labels=("probe", "hook", "mode")
    )
    for key in sorted({(label(probe), label(hook), label(mode)) for probe, hook, mode in observation.modes}):
        family.add_metric(key, 1)
    yield family


# (metric, help, result)
_PING_COUNTERS = (
    ("ping_sent", "Pings sent.", "sent"),
    ("ping_received", "Pings answered in time.", "reply"),
    ("ping_lost", "Pings not answered in time.", "lost"),
    ("ping_late", "Pings answered after they had been counted as lost.", "late"),
    ("ping_duplicates", "Answers beyond the first.", "duplicate"),
    ("ping_errors", "Pings refused, unreachable, or not sent.", "error"),
)


def _pings(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ("target", "proto")
    for name, help_text, result in _PING_COUNTERS:
        yield _counter(
            name, help_text, labels, (((one.target, one.proto), one.results[result]) for one in snapshot.pings)
        )
    yield _counter(
        "ping_no_stamp",
        "Answers without the kernel's stamps of both ends.",
        labels,
        (((one.target, one.proto), one.no_stamp) for one in snapshot.pings),
    )
    yield _counter(
        "ping_disbelieved_stamps",
        "Answers whose stamps could not be, and were left out.",
        labels,
        (((one.target, one.proto), one.disbelieved) for one in snapshot.pings),
    )
    yield _counter(
        "ping_oneway_unknown",
        "Answered pings whose ways alone are not known though the far end told its times, by why.",
        ("target", "reason"),
        (((one.target, why), count) for one in snapshot.pings for why, count in one.unsplit.items() if count),
    )
    uncertainty = GaugeMetricFamily(
        "tickpath_ping_oneway_uncertainty_seconds",
        "How far each way of the last ping may be off by the clocks of both ends; +Inf where nothing bounds it.",
        labels=("target",),
        unit="seconds",
    )
    bounds = {label(one.target): one.split_bound_ns for one in snapshot.pings if one.split_bound_ns is not None}
    for target, bound_ns in bounds.items():
        uncertainty.add_metric((target,), bound_ns / 1e9)
    yield uncertainty


def families(observation: Observation) -> Iterator[Metric]:
    """The families, in the order in which docs/metrics.md lists them: counters, gauges and infos."""
    yield from _messages(observation.snapshot)
    yield from _rings(observation)
    yield from _clocks(observation.snapshot)
    yield _counter(
        "connects",
        "Attempts to connect that kernel probes saw, by result.",
        ("result",),
        (((result,), count) for result, count in observation.snapshot.connects.items()),
    )
    yield from _pings(observation.snapshot)
    yield from cost(observation.snapshot.rings)
    yield from dpdk(observation.snapshot.rings)
    yield _counter("exporter_records", "Records read from all rings.", (), [((), observation.snapshot.records)])
    yield InfoMetricFamily("tickpath_build", "The build that serves this page.", value={"version": __version__})
    yield from _modes(observation)
