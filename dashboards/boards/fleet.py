# SPDX-License-Identifier: Apache-2.0
"""Fleet: the regions side by side, and which of them to look into."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from boards import panels
from boards.frame import (
    FEED,
    NEVER_COUNTED,
    NO_KERNEL,
    NO_MESSAGES,
    NO_WIRE,
    REGION,
    VENUE,
    Frame,
    Name,
    Row,
    feeds,
    regions,
)
from boards.panels import ANY, COUNT, PER_SECOND, SHARE, SOME, About, Column, Query
from boards.queries import HOP, SPAN, over_window, per_second, selector

HOPS = {
    "bn_to_nic": ("exchange's event time → NIC. Negative values are clock error, and shown as they are.", NO_WIRE),
    "nic_to_kernel": ("NIC → readable on the socket.", NO_KERNEL),
    "kernel_to_user": ("readable → in the application's hands, its own queueing included.", NO_KERNEL),
    "cpu": ("received → JSON parsed.", NO_MESSAGES),
    "msk": ("parsed → the publish call returned.", NO_MESSAGES),
}
_MESSAGES = selector(REGION, VENUE, FEED)
_ALL = selector(REGION)
_FIRING = selector('alertstate="firing"', REGION)


def _span(name: str) -> str:
    return selector(REGION, VENUE, FEED, f'span="{name}"')


def fleet(frame: Frame) -> dashboard.Dashboard:
    """One line per region in every panel; a click leads to the region."""
    of = frame.histograms
    to = (frame.uid(Name.REGION),)
    unmatched = selector(REGION, VENUE, FEED, 'method="none"')
    table = panels.rows(
        About(
            title="Regions",
            meaning="Each region now. In host: from the NIC to the publish call, free of the exchange's clock. "
            "Unmatched: messages without a wire stamp of their own byte. A click on a region opens it.",
            empty=NO_MESSAGES,
            width=24,
            height=7,
        ),
        ("region",),
        Column("Exporters", f"count by (region) (tickpath_build_info{_ALL})", COUNT),
        Column("Messages/s", per_second("tickpath_messages_total", _MESSAGES, "region"), PER_SECOND),
        Column("In host P50", of.quantile(0.5, SPAN, _span("in_host"), "region"), panels.SECONDS, panels.LATENCY),
        Column("In host P99", of.quantile(0.99, SPAN, _span("in_host"), "region"), panels.SECONDS, panels.LATENCY),
        Column("Total P99", of.quantile(0.99, SPAN, _span("total"), "region"), panels.SECONDS),
        Column(
            "Unmatched",
            f"(({per_second('tickpath_messages_total', unmatched, 'region')}) "
            f"or 0 * {per_second('tickpath_messages_total', _MESSAGES, 'region')}) "
            f"/ {per_second('tickpath_messages_total', _MESSAGES, 'region')}",
            SHARE,
            SOME,
        ),
        Column(
            "Producers down",
            f"sum by (region) (1 - tickpath_producer_up{_ALL} - tickpath_producer_stopped{_ALL})",
            COUNT,
            ANY,
        ),
        links=to,
    )
    alerts = panels.rows(
        About(
            title="Alerts that fire",
            meaning="Alerts of dashboards/rules, now; each one's annotations name its runbook.",
            empty="No alert fires.",
            unit=COUNT,
            levels=ANY,
            width=24,
            height=5,
        ),
        ("region", "instance", "alertname", "severity"),
        Column("Alerts", f"count by (region, instance, alertname, severity) (ALERTS{_FIRING})", COUNT, ANY),
        links=to,
    )
    spans = [
        panels.lines(
            About(title=title, meaning=meaning, empty=NO_WIRE),
            Query(of.quantile(0.99, SPAN, _span(span), "region"), "{{region}}", exemplar=True),
            log=True,
            links=to,
        )
        for span, title, meaning in (
            ("in_host", "In host, P99", "NIC → published. What a region's hosts do with a message; no exchange clock."),
            ("total", "Total, P99", "Exchange's event time → published. As true as the clocks of both sides."),
        )
    ]
    hops = [
        panels.lines(
            About(
                title=f"{hop}, P99",
                meaning=f"P99 of {meaning} P99s of hops do not add up.",
                empty=empty,
                width=8,
            ),
            Query(of.quantile(0.99, HOP, selector(REGION, VENUE, FEED, f'hop="{hop}"'), "region"), "{{region}}"),
            log=True,
            links=to,
        )
        for hop, (meaning, empty) in HOPS.items()
    ]
    rate = panels.lines(
        About(
            title="Messages",
            meaning="Messages a second, matched or not.",
            empty=NO_MESSAGES,
            unit=PER_SECOND,
            levels=panels.NONE,
            width=8,
        ),
        Query(per_second("tickpath_messages_total", _MESSAGES, "region"), "{{region}}"),
        links=to,
    )
    losses = [
        panels.lines(
            About(title=title, meaning=meaning, empty=NEVER_COUNTED, unit=COUNT, levels=ANY, width=8),
            Query(over_window(metric, where, "region"), "{{region}}"),
            links=to,
        )
        for title, metric, where, meaning in (
            (
                "Gaps in the venue's sequence",
                "tickpath_feed_gaps_total",
                _ALL,
                "Sequence numbers that the venue skipped or a connection lost, in each step.",
            ),
            (
                "Records lost",
                "tickpath_ring_lost_records_total",
                _ALL,
                "Records overwritten before the exporter read them: their messages are in no other figure.",
            ),
            (
                "Failed connects",
                "tickpath_feed_connects_total",
                selector(REGION, 'result="failed"'),
                "Attempts to connect to a venue that failed, in each step.",
            ),
        )
    ]
    return frame.make(
        Name.FLEET,
        "Regions side by side: where the time goes, how sure it is, and which region to open.",
        [regions(multi=True), *feeds(REGION)],
        [Row("Now", [table, alerts]), Row("Ends", spans), Row("Hops", [*hops, rate]), Row("What is missing", losses)],
    )
