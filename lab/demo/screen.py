# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: hops and parts with their figures; for one that is missing, why, and what would bring it."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickpath.exporter.exposition.summary import HOPS, PARTS, Figures, Summary

_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))
_REMEDIES = {
    "no_kernel": "needs the kernel probe, which this version does not have; nic_to_user stands for both",
    "no_wire": "needs the wire probe: run as root, or grant CAP_NET_RAW",
    "no_exchange_time": "the venue sends no event time on this stream",
}


def duration(value_ns: int | None) -> str:
    """A signed duration with three significant digits and its unit."""
    if value_ns is None:
        return "-"
    size = abs(value_ns)
    for unit_ns, unit in _UNITS:
        if size >= unit_ns:
            scaled = value_ns / unit_ns
            digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{value_ns} ns"


def _why(reasons: Mapping[str, int]) -> str:
    said = [
        f"{reason} ({count:,}): {_REMEDIES[reason]}" if reason in _REMEDIES else f"{reason} ({count:,})"
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return "; ".join(said)


def _row(table: Table, name: str, figures: Figures | None, missing: Mapping[str, int], indent: str = "") -> None:
    if figures is None:
        why = _why(missing)
        if why:
            table.add_row(Text(indent + name, style="dim"), "", "0", "", "", "", "", Text(why, style="yellow"))
        return
    table.add_row(
        indent + name,
        figures.source,
        f"{figures.count:,}",
        duration(figures.p50_ns),
        duration(figures.p99_ns),
        duration(figures.p999_ns),
        duration(figures.max_ns),
        Text(_why(missing), style="dim"),
    )


def _hops(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("hop")
    table.add_column("source")
    for heading in ("count", "p50", "p99", "p99.9", "max"):
        table.add_column(heading, justify="right")
    table.add_column("missing", overflow="fold")
    for hop in HOPS:
        _row(table, hop, summary.hops.get(hop), summary.missing.get(hop, {}))
        for part in PARTS.get(hop, ()):
            if part in summary.parts:
                _row(table, part, summary.parts[part], {}, indent="  ")
    table.add_section()
    for span in sorted(summary.spans, key=lambda name: name != "nic_to_user"):
        _row(table, span, summary.spans[span], summary.missing.get(span, {}))
    return table


def _counted(title: str, counts: Mapping[str, int]) -> str:
    told = [f"{name} {count:,}" for name, count in counts.items() if count]
    return f"{title}: {', '.join(told) if told else 'none'}"


def render(summary: Summary, *, sent: int, elapsed_s: float, where: str) -> RenderableType:
    """The whole screen for one moment; `sent` is the simulator's own count of messages."""
    lines = [
        f"tickpath demo   {elapsed_s:5.1f} s   sent {sent:,}   messages {summary.messages:,}   "
        f"waiting {summary.pending:,}   records lost {summary.lost_records:,}   {where}",
        _counted("matched", summary.matched)
        + "   "
        + _counted("unmatched", summary.unmatched)
        + "   "
        + _counted("negative", summary.negative),
    ]
    return Group(Text(lines[0], style="bold"), _hops(summary), Text(lines[1]))
