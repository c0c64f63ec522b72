# SPDX-License-Identifier: Apache-2.0
"""Feed: the distributions behind the quantiles, the parts of hops, and what the slow messages have in common."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from boards import panels
from boards.fleet import HOPS
from boards.frame import (
    HERE,
    INSTANCE,
    NEVER_COUNTED,
    NO_KERNEL,
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
from boards.panels import COUNT, PER_SECOND, SHARE, SOME, About, Query
from boards.queries import HOP, PART, SPAN, per_second

# The classic threshold next to a millisecond: both dialects count there exactly.
_SLOW_S = 0.0009765625
_ALL = messages()
# In the order of time.
_PARTS = ("hol_wait", "stack", "app_busy", "wake", "backlog", "decode")


def _heatmaps(frame: Frame) -> Row:
    of = frame.histograms
    in_host = panels.heat(
        About(
            title="In host",
            meaning="NIC → published: every message. Brighter cells hold more. "
            + (
                "Cells are the histogram's own buckets, sixteen to each factor of two."
                if of.native
                else "Cells are the classic buckets, a factor of four each."
            ),
            empty=NO_WIRE,
            width=24,
            height=9,
        ),
        of.heat(SPAN, span("in_host")),
    )
    hops = [
        panels.heat(
            About(title=hop, meaning=f"Every message's {meaning}", empty=empty, width=8),
            of.heat(HOP, messages(f'hop="{hop}"')),
        )
        for hop, (meaning, empty) in HOPS.items()
    ]
    hol = panels.heat(
        About(
            title="hol_wait",
            meaning="Messages' wait for bytes before their own, which came late: loss or reordering. Those that waited "
            "for none (0) have no place on this scale.",
            empty=f"No message waited for bytes before its own. Or: {NO_WIRE}",
            width=8,
        ),
        of.heat_above_zero(PART, messages('part="hol_wait"')),
    )
    return Row("Distributions", [in_host, *hops, hol])


def _parts(frame: Frame) -> Row:
    of = frame.histograms
    hops = messages('hop=~"nic_to_kernel|kernel_to_user"')
    average = panels.stacked(
        About(
            title="Parts, average",
            meaning="hol_wait and stack make up nic_to_kernel; app_busy, wake, backlog and decode make up "
            "kernel_to_user. The dashed line is the average of both hops together.",
            empty=NO_KERNEL,
        ),
        [Query(of.average(PART, messages(f'part="{part}"'), "hop, part"), "{{hop}} {{part}}") for part in _PARTS],
        Query(f"sum ({of.average(HOP, hops, 'hop')})", "both hops"),
    )
    quantile = panels.lines(
        About(
            title="Parts, P99",
            meaning="Of each part's own slowest messages: they do not add up. wake is the kernel's; app_busy and "
            "backlog are the application's own queueing. hol_wait, most often 0, is shown below.",
            empty=NO_KERNEL,
        ),
        Query(of.quantile(0.99, PART, messages('part!="hol_wait"'), "hop, part"), "{{hop}} {{part}}"),
        log=True,
    )
    return Row("Parts", [average, quantile])


def _tail(frame: Frame) -> Row:
    of = frame.histograms
    # Those whose parts are shown in place of themselves are left out.
    whole = messages('hop!~"nic_to_kernel|kernel_to_user"')
    excess = panels.lines(
        About(
            title="Tail over median, per part and hop",
            meaning="P99 less P50: how much longer a hop takes for its slowest hundredth than usual. The largest one "
            "is where a tail of the whole is most likely made; a part that adds nothing is not shown. It is no proof: "
            "histograms do not say that the same messages were slow everywhere. The dots on 'In host P99' and "
            "`tickpath tail` name single messages.",
            empty=NO_MESSAGES,
            width=24,
        ),
        Query(
            f"{of.quantile(0.99, HOP, whole, 'hop')} - {of.quantile(0.5, HOP, whole, 'hop')}",
            "{{hop}}",
        ),
        Query(
            f"{of.quantile(0.99, PART, _ALL, 'hop, part')} - {of.quantile(0.5, PART, _ALL, 'hop, part')} > 0",
            "{{hop}} {{part}}",
        ),
        log=True,
    )
    slow = panels.lines(
        About(
            title="Messages over 0.98 ms, per hop",
            meaning="Share of messages for which this hop alone took longer than 0.98 ms (2⁻¹⁰ s, a bound of the "
            "histogram's buckets, so the count is exact).",
            empty=NO_MESSAGES,
            unit=SHARE,
            levels=SOME,
            width=12,
        ),
        Query(of.share_above(_SLOW_S, HOP, _ALL, "hop"), "{{hop}}"),
    )
    ends = panels.lines(
        About(
            title="In host P50, P99, P99.9",
            meaning="NIC → published. A dot is one message of the tail (exemplar): its feed, connection and ordinal "
            "are those that `tickpath tail` prints.",
            empty=NO_WIRE,
            width=12,
        ),
        *(
            Query(of.quantile(quantile, SPAN, span("in_host"), ""), name, exemplar=quantile > 0.5)
            for quantile, name in ((0.5, "P50"), (0.99, "P99"), (0.999, "P99.9"))
        ),
        log=True,
    )
    return Row("The tail", [ends, slow, excess])


def _network(frame: Frame) -> Row:
    of = frame.histograms
    hol = panels.lines(
        About(
            title="hol_wait P99, P99.9",
            meaning="Wait for bytes before the message's own. Above zero where segments were lost or reordered.",
            empty=NO_WIRE,
            width=8,
        ),
        *(
            Query(of.quantile(quantile, PART, messages('part="hol_wait"'), "feed"), f"{name} {{{{feed}}}}")
            for quantile, name in ((0.99, "P99"), (0.999, "P99.9"))
        ),
    )
    shares = panels.lines(
        About(
            title="Blocked, retransmitted, merged",
            meaning="Shares of messages that waited for bytes before theirs, whose segment came more than once, and "
            "whose arrival was a frame merged by GRO (a bound, kept under its own source).",
            empty=NO_MESSAGES,
            unit=SHARE,
            levels=SOME,
            width=8,
        ),
        *(
            Query(
                f"{per_second(metric, _ALL)} / {per_second('tickpath_messages_total', _ALL)}",
                name,
            )
            for name, metric in (
                ("head-of-line blocked", "tickpath_head_of_line_blocked_messages_total"),
                ("retransmitted", "tickpath_retransmitted_messages_total"),
                ("merged by GRO", "tickpath_merged_messages_total"),
            )
        ),
    )
    negative = panels.lines(
        About(
            title="Negative times",
            meaning="Share of messages whose bn_to_nic came out negative: the host's clock is behind the exchange's.",
            empty=NO_WIRE,
            unit=SHARE,
            levels=SOME,
            width=8,
        ),
        Query(of.share_negative(HOP, messages('hop="bn_to_nic"'), "feed"), "{{feed}}"),
    )
    return Row("The network", [hol, shares, negative])


def _matching(frame: Frame) -> Row:
    of = frame.histograms
    methods = panels.lines(
        About(
            title="Messages by method and tier",
            meaning="How messages were matched with the wire: offset (its own byte), socket, window, none. "
            "Tier: how the message's end is known; A is exact.",
            empty=NO_MESSAGES,
            unit=PER_SECOND,
            levels=panels.NONE,
            width=8,
        ),
        Query(per_second("tickpath_messages_total", _ALL, "method, tier"), "{{method}} {{tier}}"),
    )
    reasons = panels.lines(
        About(
            title="Unmatched by reason",
            meaning="Messages a second without a wire stamp; docs/matching.md explains each reason.",
            empty="Every message was matched, or there were none (tickpath_unmatched_messages_total).",
            unit=PER_SECOND,
            levels=panels.NONE,
            width=8,
        ),
        Query(per_second("tickpath_unmatched_messages_total", _ALL, "feed, reason"), "{{feed}}: {{reason}}"),
    )
    parse = panels.lines(
        About(
            title="Trouble in the feed",
            meaning="Messages that could not be parsed, connections ended by what the peer sent, and messages not "
            "published because the queue was full, a second. By ring, for feeds count there themselves.",
            empty=NEVER_COUNTED,
            unit=PER_SECOND,
            levels=panels.ANY,
            width=8,
        ),
        *(
            Query(per_second(metric, HERE, "ring"), f"{{{{ring}}}} {name}")
            for name, metric in (
                ("not parsed", "tickpath_parse_failures_total"),
                ("protocol errors", "tickpath_protocol_errors_total"),
                ("not published", "tickpath_publish_dropped_messages_total"),
            )
        ),
    )
    per_feed = panels.rows(
        About(
            title="Feeds",
            meaning="Each feed now.",
            empty=NO_MESSAGES,
            width=24,
            height=7,
        ),
        ("region", "instance", "venue", "feed"),
        panels.Column(
            "Messages/s",
            per_second("tickpath_messages_total", _ALL, "region, instance, venue, feed"),
            PER_SECOND,
        ),
        *(
            panels.Column(
                f"{title} {name}",
                of.quantile(quantile, metric, messages(more), "region, instance, venue, feed"),
                panels.SECONDS,
                panels.LATENCY,
            )
            for title, metric, more in (
                ("In host", SPAN, 'span="in_host"'),
                ("CPU", HOP, 'hop="cpu"'),
            )
            for quantile, name in ((0.5, "P50"), (0.99, "P99"))
        ),
        panels.Column(
            "Missed",
            f"sum by (region, instance, venue, feed) (increase(tickpath_missed_messages_total{_ALL}[$__range]))",
            COUNT,
            panels.ANY,
        ),
    )
    return Row("Matching", [methods, reasons, parse, per_feed])


def feed(frame: Frame) -> dashboard.Dashboard:
    """One or more feeds of a region."""
    return frame.make(
        Name.FEED,
        "The distributions of a feed's messages, the parts of its hops, its tail and its losses.",
        [regions(multi=False), instances(), *feeds(REGION, INSTANCE)],
        [_heatmaps(frame), _parts(frame), _tail(frame), _network(frame), _matching(frame)],
    )
