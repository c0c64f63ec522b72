# SPDX-License-Identifier: Apache-2.0
"""Capture: what the wire probes see, what they lose, and whose stamps the messages got."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from boards import panels
from boards.frame import (
    HERE,
    INSTANCE,
    NEVER_COUNTED,
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
from boards.panels import ANY, COUNT, PER_SECOND, SHARE, About, Query
from boards.queries import HOP, SPAN, over_window, per_second, selector

_WIRE = selector(REGION, INSTANCE, 'kind="wire"')
_NO_CAPTURE = "No wire probe counts frames here (tickpath_wire_frames_total): needs `tickpath probe wire` on the host."


def _frames() -> Row:
    frames = panels.lines(
        About(
            title="Frames",
            meaning="Frames a second that passed the capture's filter.",
            empty=_NO_CAPTURE,
            unit=PER_SECOND,
            levels=panels.NONE,
            width=8,
        ),
        Query(per_second("tickpath_wire_frames_total", HERE, "instance, ring"), "{{instance}} {{ring}}"),
    )
    discarded = panels.lines(
        About(
            title="Frames without a record",
            meaning="Frames in each step that gave no record. dropped: the kernel had no room for it, and messages "
            "will lack their stamp (wire_gap). malformed and fragment: not to be read as a TCP segment.",
            empty=f"None was ever discarded, or: {_NO_CAPTURE}",
            unit=COUNT,
            levels=ANY,
            width=8,
        ),
        Query(
            over_window("tickpath_wire_frames_discarded_total", HERE, "instance, ring, reason"),
            "{{instance}} {{ring}} {{reason}}",
        ),
    )
    unstamped = panels.lines(
        About(
            title="Frames stamped late",
            meaning="Share of frames that the kernel had not stamped, so that the capture did, a little later. All of "
            "them on loopback; none is expected on a NIC.",
            empty=f"None was ever stamped late, or: {_NO_CAPTURE}",
            unit=SHARE,
            levels=((0.01, "yellow"), (0.5, "red")),
            width=8,
        ),
        Query(
            f"{per_second('tickpath_wire_frames_unstamped_total', HERE, 'instance, ring')} "
            f"/ {per_second('tickpath_wire_frames_total', HERE, 'instance, ring')}",
            "{{instance}} {{ring}}",
        ),
    )
    return Row("Frames", [frames, discarded, unstamped])


def _stamps(frame: Frame) -> Row:
    of = frame.histograms
    sources = panels.lines(
        About(
            title="Messages by source of their stamp",
            meaning="hw: the NIC. sw: the kernel. poll: DPDK's loop. hw_gro, sw_gro: the same on a frame merged by "
            "GRO, a bound. sock: the socket's own.",
            empty=NO_WIRE,
            unit=PER_SECOND,
            levels=panels.NONE,
        ),
        Query(of.count(SPAN, span("in_host"), "instance, source"), "{{instance}} {{source}}"),
    )
    by_source = panels.lines(
        About(
            title="bn_to_nic P50 and P99 by source",
            meaning="Stamps of different sources mean different moments and are never mixed in one histogram.",
            empty=NO_WIRE,
        ),
        *(
            Query(of.quantile(quantile, HOP, messages('hop="bn_to_nic"'), "source"), f"{{{{source}}}} {name}")
            for quantile, name in ((0.5, "P50"), (0.99, "P99"))
        ),
        log=True,
    )
    merged = panels.lines(
        About(
            title="Merged by GRO",
            meaning="Share of messages whose own arrival was a merged frame: their stamp is a bound, not a time.",
            empty=NO_WIRE,
            unit=SHARE,
            levels=((0.01, "yellow"), (0.5, "red")),
            width=8,
        ),
        Query(
            f"{per_second('tickpath_merged_messages_total', messages(), 'instance')} "
            f"/ {per_second('tickpath_messages_total', messages(), 'instance')}",
            "{{instance}}",
        ),
    )
    missing = panels.lines(
        About(
            title="No stamp, by reason",
            meaning="Messages a second without a stamp from the wire, by reason: wire_gap is a capture that lost "
            "bytes, no_flow one that looks elsewhere, no_wire that there is none.",
            empty="Every message was matched, or there were none (tickpath_unmatched_messages_total).",
            unit=PER_SECOND,
            levels=panels.NONE,
            width=8,
        ),
        Query(
            per_second("tickpath_unmatched_messages_total", messages(), "instance, reason"), "{{instance}}: {{reason}}"
        ),
    )
    interface = panels.lines(
        About(
            title="Interface lost",
            meaning="Times a captured interface went down or away, in each step; what came meanwhile is not known.",
            empty=f"{NEVER_COUNTED} Or: {_NO_CAPTURE}",
            unit=COUNT,
            levels=ANY,
            width=8,
        ),
        Query(over_window("tickpath_wire_interface_lost_total", HERE, "instance, ring"), "{{instance}} {{ring}}"),
    )
    return Row("Stamps", [sources, by_source, merged, missing, interface])


def _probe() -> Row:
    lost = panels.lines(
        About(
            title="Wire records lost",
            meaning="Segments that the exporter did not read in time, in each step: messages will lack their stamps.",
            empty=_NO_CAPTURE,
            unit=COUNT,
            levels=ANY,
        ),
        Query(
            f"sum by (instance, ring) (increase(tickpath_ring_lost_records_total{HERE}[$__rate_interval]) "
            f"and on (instance, ring) tickpath_producer_up{_WIRE})",
            "{{instance}} {{ring}}",
        ),
    )
    up = panels.states(
        About(
            title="Captures",
            meaning="Whether each capture is alive.",
            empty=_NO_CAPTURE,
            unit="none",
            levels=((1, "green"),),
        ),
        Query(
            f"min by (instance, ring) (tickpath_producer_up{_WIRE})",
            "{{instance}} {{ring}}",
        ),
    )
    return Row("The probe", [up, lost])


def capture(frame: Frame) -> dashboard.Dashboard:
    """The wire probes of one or more regions."""
    return frame.make(
        Name.CAPTURE,
        "What the wire probes see and lose, and whose stamps the messages got. AF_PACKET captures; poll is DPDK's.",
        [regions(multi=True), instances(), *feeds(REGION, INSTANCE)],
        [_frames(), _stamps(frame), _probe()],
    )
