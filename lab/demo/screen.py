# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: hops and parts with their figures; for one that is missing, why, and what would bring it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickpath.exporter.exposition.summary import HOPS, PARTS, SPANS, Figures, Summary
from tickpath.exporter.exposition.units import human

_REMEDIES = {
    "no_kernel": "needs the kernel probe: run as root (tickpath doctor says more); nic_to_user spans both",
    "no_wire": "needs the wire probe: run as root, or grant CAP_NET_RAW",
    "sock_not_last": "the socket's stamp is of a later segment of its read; the wire probe, run as root, knows each",
}


def _missing(summary: Summary) -> list[Text]:
    """A line per reason: which hops lack it, for how many messages, and what would bring them."""
    by_reason: dict[str, dict[str, int]] = {}
    for name in (*HOPS, *SPANS):
        for reason, count in summary.missing.get(name, {}).items():
            by_reason.setdefault(reason, {})[name] = count
    return [
        Text(f"not known: {', '.join(f'{name} of {count:,}' for name, count in hops.items())} ({reason})")
        + Text(f"  {_REMEDIES[reason]}" if reason in _REMEDIES else "", style="yellow")
        for reason, hops in by_reason.items()
    ]


def _row(table: Table, name: str, figures: Figures | None, indent: str = "") -> None:
    if figures is None:
        table.add_row(Text(indent + name, style="dim"), *([Text("-", style="dim")] * 6))
        return
    table.add_row(
        indent + name,
        figures.source or "-",
        f"{figures.count:,}",
        human(figures.p50_ns),
        human(figures.p99_ns),
        human(figures.p999_ns),
        human(figures.max_ns),
    )
    # Stamps of different sources never meet in one histogram.
    for source, other in figures.other_sources.items():
        _row(table, "", msgspec.structs.replace(other, source=source))


def _hops(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("hop", "source"):
        table.add_column(heading, no_wrap=True)
    for heading in ("count", "p50", "p99", "p99.9", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for hop in HOPS:
        _row(table, hop, summary.hops.get(hop))
        for part in PARTS.get(hop, ()):
            if part in summary.parts:
                _row(table, part, summary.parts[part], indent="  ")
    table.add_section()
    for span in reversed(SPANS):
        _row(table, span, summary.spans.get(span))
    return table


def _counted(title: str, counts: Mapping[str, int]) -> str:
    told = [f"{name} {count:,}" for name, count in counts.items() if count]
    return f"{title} {', '.join(told) if told else 'none'}"


def render(summary: Summary, *, sent: int, elapsed_s: float, where: str) -> RenderableType:
    """The whole screen for one moment; `sent` is the simulator's own count of messages."""
    head = (
        f"tickpath demo {elapsed_s:.0f} s: sent {sent:,}, counted {summary.messages:,}, waiting {summary.pending:,}, "
        f"records lost {summary.lost_records:,}"
    )
    counted = ", ".join((_counted("matched", summary.matched), _counted("unmatched", summary.unmatched)))
    return Group(
        Text(head, style="bold"),
        Text(where, style="dim"),
        _hops(summary),
        Text(counted),
        Text(_counted("negative", summary.negative)),
        *_missing(summary),
    )
