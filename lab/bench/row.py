# SPDX-License-Identifier: Apache-2.0
"""One row of the bench: a figure, its yardstick, its bar and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from tickpath.errors import TickpathError
from tickpath.lab.bench.measure import Effort, Pairs, interval_of


class Verdict(Enum):
    """What became of the bar."""

    PASS = "pass"
    FAIL = "fail"
    HOST = "host"
    """Missed, and the yardstick missed it as well: what this host, now, cannot do at all."""
    SHOWN = "shown"
    """No bar is set for it."""
    SKIPPED = "skipped"
    """Not measured; the note says why."""


class Row(msgspec.Struct, kw_only=True):
    """`value`, `low` and `high` are the median and its 95 % interval in `unit`, `ratio…` the same of value to
    yardstick, pair by pair; `clocks` is value in calls of clock_gettime, where the unit is a time."""

    name: str
    what: str
    unit: str
    bar: str = ""
    verdict: Verdict = Verdict.SKIPPED
    value: float | None = None
    low: float | None = None
    high: float | None = None
    yardstick: str = ""
    yardstick_value: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    clocks: float | None = None
    repetitions: int = 0
    note: str = ""

    def measured(self, values: Sequence[float], scale: float = 1.0) -> None:
        """Take over the median of the repetitions and its interval, in `unit` after scaling."""
        found = interval_of(values).scaled(scale)
        self.value, self.low, self.high = found.median, found.low, found.high
        self.repetitions = len(values)
        self.verdict = Verdict.SHOWN

    def compared(self, pairs: Pairs, yardstick: str, scale: float = 1.0) -> None:
        """Take over both sides of the pairs."""
        self.measured(pairs.ours, scale)
        self.yardstick = yardstick
        self.yardstick_value = interval_of(pairs.theirs).median * scale
        self.ratio, self.ratio_low, self.ratio_high = pairs.ratio.median, pairs.ratio.low, pairs.ratio.high

    def judge(self, passed: bool) -> None:
        """Met its bar, or not."""
        self.verdict = Verdict.PASS if passed else Verdict.FAIL


@dataclass(frozen=True)
class Settings:
    """`quick`: as little as shows that everything runs; the figures then mean nothing. `folder`: on tmpfs, emptied
    afterwards. `clock_ns`: one clock_gettime in C."""

    quick: bool
    folder: Path
    clock_ns: float

    def effort(self, *, least: int, most: int, budget_s: float, width: float = 0.01) -> Effort:
        """As given, or once where it is to be quick."""
        return Effort(1, 1, 0, width) if self.quick else Effort(least, most, budget_s, width)


@dataclass(frozen=True)
class Group:
    """Rows that are measured together: `run` fills them. A row that it leaves alone says why in its note; a
    TickpathError says it for all that are not filled yet."""

    name: str
    titles: tuple[Row, ...]
    run: Callable[[Settings, dict[str, Row]], None]

    def measure(self, settings: Settings) -> list[Row]:
        """The rows, filled."""
        rows = {title.name: msgspec.structs.replace(title) for title in self.titles}
        try:
            self.run(settings, rows)
        except TickpathError as error:
            for row in rows.values():
                if row.verdict is Verdict.SKIPPED and not row.note:
                    row.note = str(error)
        return list(rows.values())
