# SPDX-License-Identifier: Apache-2.0
"""Clocks and probes: how far the figures can be trusted, which probes run, how, and at what cost."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from boards import panels
from boards.frame import HERE, INSTANCE, NO_WIRE, REGION, Frame, Name, Row, instances, regions
from boards.panels import ANY, COUNT, PER_SECOND, SHARE, SOME, About, Query
from boards.queries import HOP, over_window, per_second, selector

_NO_CLOCK = (
    "No clock is read on these hosts: a wire, kernel or feed probe publishes readings (tickpath_clock_offset_seconds)."
)
_NO_PROBE = "No probe's ring is there (tickpath_producer_up): start one, or see the exporter's --directory."
# An unbounded clock is +Inf, which no axis can show.
_FINITE = "< Inf"


def _clocks(frame: Frame) -> Row:
    of = frame.histograms
    unbounded = panels.number(
        About(
            title="Clocks that nothing bounds",
            meaning="Clocks whose error against UTC has no known bound (tickpath_clock_uncertainty_seconds is +Inf): "
            "the host does not synchronise them. bn_to_nic is then worth what the clock is worth, which nobody knows.",
            empty=_NO_CLOCK,
            unit=COUNT,
            levels=((1, "red"),),
            width=6,
        ),
        Query(f"sum by (instance) (tickpath_clock_uncertainty_seconds{HERE} == bool Inf)", "{{instance}}"),
    )
    bound = panels.lines(
        About(
            title="Bound on the clock's error",
            meaning="How far a clock may be from UTC, as the kernel says. A change of bn_to_nic that is smaller "
            "than this is no evidence. The venue's own error is not in it, and known to nobody.",
            empty="No clock of these hosts has a known bound (see the figure to the left), or none is read.",
            levels=((0.001, "yellow"), (0.1, "red")),
            width=9,
        ),
        Query(f"tickpath_clock_uncertainty_seconds{HERE} {_FINITE}", "{{instance}} {{clock}}"),
    )
    drift = panels.lines(
        About(
            title="Drift against CLOCK_MONOTONIC",
            meaning="Microseconds that a clock gains on CLOCK_MONOTONIC per second (parts per million). "
            "realtime stays at 0 but for steps: both are steered alike.",
            empty=_NO_CLOCK,
            unit="ppm",
            levels=((100, "yellow"), (1000, "red")),
            width=9,
        ),
        Query(f"1e6 * deriv(tickpath_clock_offset_seconds{HERE}[$__rate_interval])", "{{instance}} {{clock}}"),
    )
    steps = panels.lines(
        About(
            title="Steps",
            meaning="Times a clock was set, in each step of this graph. Stamps next to a step are not used.",
            empty=_NO_CLOCK,
            unit=COUNT,
            levels=ANY,
        ),
        Query(over_window("tickpath_clock_steps_total", HERE, "instance, clock"), "{{instance}} {{clock}}"),
    )
    negative = panels.lines(
        About(
            title="Negative bn_to_nic",
            meaning="Share of messages that arrived before the exchange says it sent them: a clock is wrong.",
            empty=NO_WIRE,
            unit=SHARE,
            levels=SOME,
        ),
        Query(of.share_negative(HOP, selector(REGION, INSTANCE, 'hop="bn_to_nic"'), "instance"), "{{instance}}"),
    )
    return Row("Clocks", [unbounded, bound, drift, steps, negative])


def _probes() -> Row:
    up = panels.states(
        About(
            title="Producers",
            meaning="Whether each ring's producer is alive: it holds the ring's lock.",
            empty=_NO_PROBE,
            unit="none",
            levels=((1, "green"),),
        ),
        Query(f"min by (instance, kind, ring) (tickpath_producer_up{HERE})", "{{instance}} {{ring}}"),
    )
    modes = panels.rows(
        About(
            title="How each probe works here",
            meaning="The hook and the mode that a probe found on its host: its rung of the ladder.",
            empty="No probe says how it works (tickpath_probe_mode): needs `tickpath probe wire` or `probe kernel`.",
            unit="none",
            levels=panels.NONE,
        ),
        ("region", "instance", "probe", "hook", "mode"),
        panels.Column("On", f"max by (region, instance, probe, hook, mode) (tickpath_probe_mode{HERE})", COUNT),
    )
    cost = panels.lines(
        About(
            title="What probes cost",
            meaning="Share of one core that a probe's hooks take.",
            empty="No probe measures its cost (tickpath_probe_cost_seconds_total): the kernel probe does where "
            "the host keeps BPF statistics.",
            unit=SHARE,
            levels=((0.02, "yellow"), (0.1, "red")),
        ),
        Query(
            per_second("tickpath_probe_cost_seconds_total", HERE, "instance, probe, hook"),
            "{{instance}} {{probe}} {{hook}}",
        ),
    )
    records = panels.lines(
        About(
            title="Records read",
            meaning="Records a second that the exporter reads from all rings.",
            empty=_NO_PROBE,
            unit=PER_SECOND,
            levels=panels.NONE,
        ),
        Query(per_second("tickpath_exporter_records_total", HERE, "instance"), "{{instance}}"),
    )
    return Row("Probes", [up, modes, cost, records])


def _losses() -> Row:
    rings = panels.lines(
        About(
            title="Records lost and skipped",
            meaning="Records overwritten before the exporter read them, and those written while no exporter ran, "
            "in each step.",
            empty=_NO_PROBE,
            unit=COUNT,
            levels=ANY,
            width=12,
        ),
        Query(over_window("tickpath_ring_lost_records_total", HERE, "instance, ring"), "{{instance}} {{ring}} lost"),
        Query(
            over_window("tickpath_ring_skipped_records_total", HERE, "instance, ring"), "{{instance}} {{ring}} skipped"
        ),
    )
    unusable = panels.lines(
        About(
            title="Rings that cannot be used",
            meaning="Ring files that are there and cannot be read; the exporter's log says why. And connections that "
            "found no free row in their ring's table, in each step.",
            empty="None: every ring file is usable, and no table was ever full (tickpath_ring_unreadable).",
            unit=COUNT,
            levels=ANY,
            width=6,
        ),
        Query(f"sum by (instance, ring) (tickpath_ring_unreadable{HERE})", "{{instance}} {{ring}} unreadable"),
        Query(over_window("tickpath_rows_exhausted_total", HERE, "instance, ring"), "{{instance}} {{ring}} rows full"),
    )
    kernel = panels.lines(
        About(
            title="Kernel events",
            meaning="Kernel events that could not be handed on (their intervals are gaps), runs of a program that the "
            "kernel left out amid another, for whichever socket, and connections whose bytes the kernel probe cannot "
            "tell, in each step.",
            empty="Never counted: no kernel probe runs, or it lost nothing (tickpath_kernel_events_lost_total).",
            unit=COUNT,
            levels=ANY,
            width=6,
        ),
        Query(over_window("tickpath_kernel_events_lost_total", HERE, "instance"), "{{instance}} lost"),
        Query(over_window("tickpath_kernel_runs_left_out_total", HERE, "instance"), "{{instance}} left out"),
        Query(
            over_window("tickpath_kernel_unsupported_connections_total", HERE, "instance"), "{{instance}} unsupported"
        ),
    )
    return Row("What was lost on the way", [rings, unusable, kernel])


def clocks(frame: Frame) -> dashboard.Dashboard:
    """Clocks and probes of one or more regions."""
    return frame.make(
        Name.CLOCKS,
        "How far the figures can be trusted: clocks and their bounds, probes, how they work and what they lost.",
        [regions(multi=True), instances()],
        [_clocks(frame), _probes(), _losses()],
    )
