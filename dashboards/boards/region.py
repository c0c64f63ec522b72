# SPDX-License-Identifier: Apache-2.0
"""Region: where the time goes in one region and on its hosts, its connections, and what runs short."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard

from boards import panels
from boards.fleet import HOPS
from boards.frame import (
    HERE,
    INSTANCE,
    NEVER_COUNTED,
    NO_MESSAGES,
    NO_WIRE,
    REGION,
    Frame,
    Name,
    Row,
    feeds,
    instances,
    messages,
    regions,
    span,
)
from boards.panels import ANY, BUSY, COUNT, PER_SECOND, SHARE, SOME, About, Query
from boards.queries import CONNECT, HOP, PART, PING, PING_PATH, PING_WAY, SPAN, over_window, per_second

_MESSAGES = messages()
_TOLD = "Needs `tickpath probe ping` with a target udp://HOST:PORT where `tickpath ping --serve` tells its times."
_QUANTILES = ((0.5, "P50"), (0.99, "P99"), (0.999, "P99.9"))


def _figures(frame: Frame) -> Row:
    of = frame.histograms
    matched = per_second("tickpath_messages_total", messages('method="offset"'))
    figures = [
        panels.number(
            About(title=title, meaning=meaning, empty=empty, unit=unit, levels=levels, width=4, height=4),
            Query(expr, title),
        )
        for title, meaning, expr, empty, unit, levels in (
            (
                "Messages",
                "Messages a second, matched or not.",
                per_second("tickpath_messages_total", _MESSAGES),
                NO_MESSAGES,
                PER_SECOND,
                panels.NONE,
            ),
            (
                "Matched by offset",
                "Share of messages whose own byte was seen on the wire; only these are in the histograms.",
                f"{matched} / {per_second('tickpath_messages_total', _MESSAGES)}",
                NO_WIRE,
                SHARE,
                ((0.0, "red"), (0.9, "yellow"), (0.99, "green")),
            ),
            *(
                (
                    f"In host {name}",
                    "NIC → published. No exchange clock is in it.",
                    of.quantile(quantile, SPAN, span("in_host"), ""),
                    NO_WIRE,
                    panels.SECONDS,
                    panels.LATENCY,
                )
                for quantile, name in _QUANTILES
            ),
            (
                "Exporters",
                "Exporters of the region that are scraped.",
                f"count(tickpath_build_info{HERE})",
                "No exporter of this region is scraped (tickpath_build_info): see targets/ and the label region.",
                COUNT,
                panels.NONE,
            ),
        )
    ]
    return Row("Now", figures)


def _hops(frame: Frame) -> Row:
    of = frame.histograms
    averages = panels.stacked(
        About(
            title="Average: where the time goes",
            meaning="Averages add up: each hop's, one on top of the other. The dashed line is the average of the "
            "whole way (span total). Where it does not lie on top of the stack, messages lack stamps for some hops: "
            "see tickpath_missing_hop_total. A negative bn_to_nic is clock error and hangs below zero.",
            empty=NO_WIRE,
            width=24,
            height=9,
        ),
        [Query(of.average(HOP, messages(f'hop="{hop}"'), "hop"), "{{hop}}") for hop in HOPS],
        Query(of.average(SPAN, span("total"), "span"), "{{span}}"),
    )
    quantiles = [
        panels.lines(
            About(
                title=f"{name} per hop",
                meaning=f"{name} of each hop, of its own slowest messages. Quantiles do not add up, so they are "
                "not stacked: one hop's slow messages are not another's.",
                empty=NO_WIRE,
                width=8,
                height=12,
            ),
            Query(of.quantile(quantile, HOP, _MESSAGES, "hop"), "{{hop}}", exemplar=quantile > 0.5),
            log=True,
        )
        for quantile, name in _QUANTILES
    ]
    return Row("Hops", [averages, *quantiles])


def _hosts(frame: Frame) -> Row:
    of = frame.histograms
    hosts: list[timeseries.Panel] = [
        panels.lines(
            About(title=title, meaning=meaning, empty=empty, unit=unit, levels=levels, width=8),
            Query(expr, "{{instance}}"),
            log=unit == panels.SECONDS,
        )
        for title, meaning, expr, empty, unit, levels in (
            (
                "In host P99 per host",
                "NIC → published on each host.",
                of.quantile(0.99, SPAN, span("in_host"), "instance"),
                NO_WIRE,
                panels.SECONDS,
                panels.LATENCY,
            ),
            (
                "kernel_to_user P99 per host",
                HOPS["kernel_to_user"][0],
                of.quantile(0.99, HOP, messages('hop="kernel_to_user"'), "instance"),
                HOPS["kernel_to_user"][1],
                panels.SECONDS,
                panels.LATENCY,
            ),
            (
                "Messages per host",
                "Messages a second.",
                per_second("tickpath_messages_total", _MESSAGES, "instance"),
                NO_MESSAGES,
                PER_SECOND,
                panels.NONE,
            ),
        )
    ]
    return Row("Hosts", hosts)


def _median_and_tail(frame: Frame, metric: str, by: str, legend: str) -> list[Query]:
    """P50 and P99 of a histogram."""
    return [
        Query(frame.histograms.quantile(quantile, metric, HERE, by), f"{name} {legend}")
        for quantile, name in _QUANTILES[:2]
    ]


def _connections(frame: Frame) -> Row:
    connect = panels.lines(
        About(
            title="Connect latency",
            meaning="SYN → established, as the kernel saw it, P50 and P99 by address family.",
            empty="Needs `tickpath probe kernel` and a connection opened meanwhile (tickpath_connect_latency_seconds).",
            width=8,
        ),
        *_median_and_tail(frame, CONNECT, "family", "{{family}}"),
        log=True,
    )
    connects = panels.lines(
        About(
            title="Connects",
            meaning="Attempts to connect in each step, by result. Every opened one after the first is a reconnect.",
            empty=NEVER_COUNTED,
            unit=COUNT,
            levels=panels.NONE,
            width=8,
        ),
        Query(over_window("tickpath_feed_connects_total", HERE, "result"), "{{result}}"),
    )
    gaps = panels.lines(
        About(
            title="Gaps",
            meaning="Sequence numbers that the venue skipped or a connection lost, and messages not read in time.",
            empty=NEVER_COUNTED,
            unit=COUNT,
            levels=ANY,
            width=8,
        ),
        Query(over_window("tickpath_feed_gaps_total", HERE, "instance"), "{{instance}} venue's sequence"),
        Query(over_window("tickpath_missed_messages_total", _MESSAGES, "instance"), "{{instance}} missed"),
    )
    return Row("Connections", [connect, connects, gaps])


def _pings(frame: Frame) -> Row:
    rtt = panels.lines(
        About(
            title="Ping round trip",
            meaning="P50 and P99 per target, protocol and source: what took both ends of it. Figures of different "
            "sources are not to be compared: app has the scheduler in it, sw and hw have not.",
            empty="Needs `tickpath probe ping` with targets (tickpath_ping_rtt_seconds).",
            width=12,
        ),
        *_median_and_tail(frame, PING, "target, proto, source", "{{proto}} {{target}} {{source}}"),
        log=True,
    )
    failed = panels.lines(
        About(
            title="Pings that came to no answer in time",
            meaning="Lost (late ones too), refused or unreachable, and double answers, in each step.",
            empty="Needs `tickpath probe ping` with targets.",
            unit=COUNT,
            levels=ANY,
            width=12,
        ),
        *(
            Query(
                over_window(f"tickpath_ping_{what}_total", HERE, "target, proto"),
                f"{{{{proto}}}} {{{{target}}}} {what}",
            )
            for what in ("lost", "late", "errors", "duplicates")
        ),
    )
    return Row("Pings", [rtt, failed, *_ways(frame)])


def _ways(frame: Frame) -> list[timeseries.Panel]:
    """What is known of a ping whose far end tells its times."""
    of = frame.histograms
    by = "target, direction, source"
    way = panels.bounded(
        About(
            title="Ping: each way alone",
            meaning="Average and P99 of the way out and of the way back. Averages add up to the path's where every "
            "ping has them. The dashed line is how far each way may be off by the clocks of both ends: what lies "
            "below it is not known. A way below 0 by more than that is clock error. No line of a bound: there is none.",
            empty=f"{_TOLD} And clocks whose bound is known and not wider than the round trip: 'Ways alone that are "
            "not known' has the reason (tickpath_ping_oneway_unknown_total).",
            width=8,
            height=12,
        ),
        [
            Query(of.average(PING_WAY, HERE, by), "{{direction}} {{target}} {{source}} average"),
            Query(of.quantile(0.99, PING_WAY, HERE, by), "{{direction}} {{target}} {{source}} P99"),
        ],
        Query(f"max by (target) (tickpath_ping_oneway_uncertainty_seconds{HERE} < Inf)", "bound {{target}}"),
    )
    path = panels.lines(
        About(
            title="Ping without the time at the far end",
            meaning="P50 and P99 of out and back together: the round trip without what the far end's host took to "
            "answer. The clocks need not agree for it. Beside the round trip it tells the network from the far end.",
            empty=_TOLD,
            width=8,
            height=12,
        ),
        *_median_and_tail(frame, PING_PATH, "target, source", "{{target}} {{source}}"),
        log=True,
    )
    unknown = panels.lines(
        About(
            title="Ways alone that are not known",
            meaning="Answered pings in each step whose far end told its times and whose ways alone are not known all "
            "the same. near_unbound, far_unbound: this or the far host's clock is synchronised by nobody; too_wide: "
            "the clocks' bound is wider than the round trip; nic: stamps of two NICs, which keep no host's time; "
            "unbelieved: the far end's times cannot be. docs/ping.md says what helps.",
            empty="Every ping whose far end told its times has both of its ways, or no far end told any.",
            unit=COUNT,
            levels=panels.NONE,
            width=8,
            height=12,
        ),
        Query(over_window("tickpath_ping_oneway_unknown_total", HERE, "target, reason"), "{{target}} {{reason}}"),
    )
    return [way, path, unknown]


def _saturation(frame: Frame) -> Row:
    of = frame.histograms
    queueing = messages('part=~"app_busy|backlog"')
    wake = messages('part="wake"')
    lines = (
        (
            "The application's own queueing, P99",
            "app_busy: readable while the application did other things. backlog: copied, and behind others. "
            "Both grow when a parser or a publisher is too slow; the kernel has no part in them.",
            (Query(of.quantile(0.99, PART, queueing, "part"), "{{part}}"),),
            HOPS["kernel_to_user"][1],
            panels.SECONDS,
            panels.LATENCY,
        ),
        (
            "The kernel's waking, P99",
            "wake: from when the application waited and there was something to read, to when it had it.",
            (Query(of.quantile(0.99, PART, wake, "instance"), "{{instance}}"),),
            HOPS["kernel_to_user"][1],
            panels.SECONDS,
            panels.LATENCY,
        ),
        (
            "Dropped, lost, evicted",
            "Messages not published (the queue was full), records overwritten before they were read, and what the "
            "correlator dropped to stay within its memory, in each step.",
            (
                Query(over_window("tickpath_publish_dropped_messages_total", HERE, "instance"), "{{instance}} full"),
                Query(over_window("tickpath_ring_lost_records_total", HERE, "instance"), "{{instance}} lost"),
                Query(
                    f"{over_window('tickpath_evicted_total', HERE, 'instance, what')} > 0",
                    "{{instance}} {{what}} evicted",
                ),
            ),
            NEVER_COUNTED,
            COUNT,
            ANY,
        ),
    )
    made = [
        panels.lines(
            About(title=title, meaning=meaning, empty=empty, unit=unit, levels=levels, width=8),
            *queries,
            log=unit == panels.SECONDS,
        )
        for title, meaning, queries, empty, unit, levels in lines
    ]
    own = "and on (instance) tickpath_build_info"
    for title, meaning, expr, unit, levels in (
        (
            "Exporter: CPU",
            "Share of one core. At 1 the correlator has no time left, and rings are lapped.",
            f"sum by (instance) (rate(process_cpu_seconds_total{HERE}[$__rate_interval]) {own})",
            SHARE,
            BUSY,
        ),
        (
            "Exporter: memory",
            "Resident memory. It is bounded: a line that goes on rising is a fault.",
            f"sum by (instance) (process_resident_memory_bytes{HERE} {own})",
            "bytes",
            ((500e6, "yellow"), (1e9, "red")),
        ),
        (
            "Messages that wait for stamps",
            "Messages received whose stamps are not all there yet; they are in no other figure. Some are normal.",
            f"sum by (instance) (tickpath_pending_messages{HERE})",
            COUNT,
            ((100_000, "yellow"), (1_000_000, "red")),
        ),
    ):
        made.append(
            panels.lines(
                About(
                    title=title,
                    meaning=meaning,
                    empty="No exporter of this region is scraped (tickpath_build_info).",
                    unit=unit,
                    levels=levels,
                    width=8,
                ),
                Query(expr, "{{instance}}"),
            )
        )
    return Row("Saturation", made)


def _missing() -> Row:
    missing = panels.lines(
        About(
            title="Hops that could not be recorded",
            meaning="Messages a second that lack a hop, part or span, with the reason; docs/matching.md explains each.",
            empty=NEVER_COUNTED,
            unit=PER_SECOND,
            levels=panels.NONE,
        ),
        Query(per_second("tickpath_missing_hop_total", _MESSAGES, "hop, reason"), "{{hop}}: {{reason}}"),
    )
    unmatched = panels.lines(
        About(
            title="Unmatched share",
            meaning="Share of messages without any wire stamp, by reason.",
            empty="Every message was matched, or there were none (tickpath_unmatched_messages_total).",
            unit=SHARE,
            levels=SOME,
        ),
        Query(
            f"{per_second('tickpath_unmatched_messages_total', _MESSAGES, 'reason')} / on () group_left () "
            f"{per_second('tickpath_messages_total', _MESSAGES)}",
            "{{reason}}",
        ),
    )
    return Row("What is missing, and why", [missing, unmatched])


def region(frame: Frame) -> dashboard.Dashboard:
    """One region; its hosts can be chosen."""
    return frame.make(
        Name.REGION,
        "One region and its hosts: averages that add up, quantiles that do not, connections, saturation.",
        [regions(multi=False), instances(), *feeds(REGION, INSTANCE)],
        [
            _figures(frame),
            _hops(frame),
            _hosts(frame),
            _connections(frame),
            _pings(frame),
            _saturation(frame),
            _missing(),
        ],
    )
