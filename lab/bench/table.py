# SPDX-License-Identifier: Apache-2.0
"""The rows as a table for people."""

from __future__ import annotations

from rich.table import Table

from tickpath.lab.bench.row import Row, Verdict

_COLOUR = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.HOST: "yellow"}


def figure(value: float | None) -> str:
    """Three significant digits, large numbers whole."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None or low == high else f" [{figure(low)} … {figure(high)}]"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
        return ""
    if row.ratio <= 0.05:
        return f"1/{figure(1 / row.ratio)} [1/{figure(1 / row.ratio_low)} … 1/{figure(1 / row.ratio_high)}]"
    return f"{row.ratio:.3f} [{row.ratio_low:.3f} … {row.ratio_high:.3f}]"


def table(rows: list[Row]) -> Table:
    """One line per row, its note below."""
    shown = Table(header_style="bold", pad_edge=False)
    for title in ("row", "measured [95 %]", "unit", "bar", "yardstick", "ratio [95 %]", "n", ""):
        shown.add_column(title, justify="right" if title == "n" else "left")
    for row in rows:
        yardstick = f"{row.yardstick}: {figure(row.yardstick_value)}" if row.yardstick else ""
        if row.clocks is not None:
            yardstick += f"{'; ' if yardstick else ''}{figure(row.clocks)} clock_gettime"
        colour = _COLOUR.get(row.verdict, "dim")
        shown.add_row(
            row.what + (f"\n[dim]{row.note}[/dim]" if row.note else ""),
            figure(row.value) + _between(row.low, row.high),
            row.unit,
            row.bar,
            yardstick,
            _ratio(row),
            str(row.repetitions or ""),
            f"[{colour}]{row.verdict.value}[/{colour}]",
        )
    return shown
