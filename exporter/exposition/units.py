# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds as a person reads them: signed, three significant digits, ns to s."""

from __future__ import annotations

_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))


def human(ns: int | None) -> str:
    """`-1.27 s`, `18.3 µs`, `940 ns`; `-` where there is none. Rounded to three digits, whole nanoseconds exact."""
    if ns is None:
        return "-"
    magnitude = abs(ns)
    sign = "-" if ns < 0 else ""
    for size, unit in _UNITS:
        # 999.5 of a unit would round to 1000: the next larger one says it shorter.
        if magnitude >= size or magnitude * 2000 >= size * 1999:
            value = magnitude / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{sign}{value:,.{digits}f} {unit}"
    return f"{sign}{magnitude} ns"
