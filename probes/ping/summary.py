# SPDX-License-Identifier: Apache-2.0
"""What a run of pings came to, per target: exact counts, and RTTs apart by what they were taken with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np

from tickpath.event import PingSource
from tickpath.probes.ping.outcome import Outcome, milliseconds
from tickpath.probes.ping.parts import Parts, within
from tickpath.probes.ping.target import Target

_KEPT = 1_000_000
_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_WAYS = {"path": "out and back", "turn": "far end", "out": "out", "back": "back"}


def lesser(source: str, other: str) -> str:
    """Of two sources the worse, by which what both took is known."""
    return max(source, other, key=lambda name: PingSource[name.upper()])


class Rtt(msgspec.Struct, frozen=True, kw_only=True):
    """Of the replies of one source, late ones too, in whole nanoseconds; quantiles are values that occurred."""

    count: int
    min_ns: int
    avg_ns: int
    max_ns: int
    mdev_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    from_plan_p99_ns: int
    """From the planned moment: what was sent late waited, too."""
    kept: int
    """The figures but `count` are of the last so many."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Of the answers that the far end told its times of, in whole nanoseconds; quantiles are values that occurred."""

    count: int
    min_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    bound_most_ns: int | None
    """The widest bound there was; null where none is needed: of both ways together, and of the far end."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Of one target. `sent` = `received` + `lost` + `errors` + `waiting`; `late` ones are among the `lost`."""

    target: str
    proto: str
    address: str
    sent: int
    received: int
    lost: int
    late: int
    duplicates: int
    errors: dict[str, int]
    waiting: int
    no_stamp: int
    """Of all replies, late and double ones too, those that the kernel did not stamp on both ends."""
    disbelieved: int
    behind: int
    """Sent more than a millisecond later than planned."""
    behind_most_ns: int
    duration_ns: int
    rtt: dict[str, Rtt]
    ways: dict[str, dict[str, Way]]
    """"path" (both ways), "turn" (at the far end), "out", "back"; each by the lesser of both ends' sources."""
    unsplit: dict[str, int]
    """How often each way alone was not known, by why."""


class Values:
    """The last so many values; the memory grows with need, up to that."""

    def __init__(self) -> None:
        self._values = np.zeros((1024, 2), np.int64)
        self.count = 0

    def add(self, rtt_ns: int, behind_ns: int) -> None:
        """One more."""
        if self.count == len(self._values) < _KEPT:
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])[:_KEPT]
        self._values[self.count % len(self._values)] = rtt_ns, behind_ns
        self.count += 1

    def way(self, bound_most_ns: int | None) -> Way:
        """What they come to, of a part of the RTT."""
        values = np.sort(self._values[: min(self.count, len(self._values)), 0])
        return Way(
            count=self.count,
            min_ns=int(values[0]),
            p50_ns=_quantile(values, 0.5),
            p99_ns=_quantile(values, 0.99),
            max_ns=int(values[-1]),
            bound_most_ns=bound_most_ns,
        )

    def rtt(self) -> Rtt:
        """What they come to; there is one at least."""
        kept = self._values[: min(self.count, len(self._values))]
        values = np.sort(kept[:, 0])
        planned = np.sort(kept.sum(axis=1))
        p50, p90, p99, p999 = (_quantile(values, q) for q in _QUANTILES)
        return Rtt(
            count=self.count,
            min_ns=int(values[0]),
            avg_ns=round(float(values.mean())),
            max_ns=int(values[-1]),
            mdev_ns=round(float(values.std())),
            p50_ns=p50,
            p90_ns=p90,
            p99_ns=p99,
            p999_ns=p999,
            from_plan_p99_ns=_quantile(planned, 0.99),
            kept=len(values),
        )


def _quantile(values: np.ndarray[tuple[int], np.dtype[np.int64]], q: float) -> int:
    """The nearest rank: the least value that q of all do not exceed."""
    return int(values[max(0, int(np.ceil(q * len(values))) - 1)])


@dataclass
class Account:
    """Counts the outcomes of one target."""

    target: Target
    results: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Values] = field(default_factory=dict)
    ways: dict[tuple[str, str], Values] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)
    unsplit: Counter[str] = field(default_factory=Counter)
    no_stamp: int = 0
    disbelieved: int = 0
    behind: int = 0
    behind_most_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, one: Outcome) -> None:
        """One more."""
        self.results[one.result] += 1
        self.first_ns = self.first_ns or one.time_ns
        self.last_ns = max(self.last_ns, one.time_ns)
        self.no_stamp += one.no_stamp
        self.disbelieved += one.disbelieved
        if one.result == "sent":
            self.behind += one.behind_ns > 1_000_000
            self.behind_most_ns = max(self.behind_most_ns, one.behind_ns)
        elif one.result == "error":
            self.errors[one.reason or ""] += 1
        elif one.result in ("reply", "late"):
            assert one.rtt_ns is not None
            self.sources.setdefault(one.source or "", Values()).add(one.rtt_ns, one.behind_ns)

    def add_parts(self, one: Parts) -> None:
        """Where the time of one of the answers went."""
        source = lesser(one.source, one.far_source)
        if one.unknown:
            self.unsplit[one.unknown] += 1
        elif one.bound_ns is not None:
            self.bounds[source] = max(self.bounds.get(source, 0), one.bound_ns)
        found = {"path": one.path_ns, "turn": one.turn_ns, "out": one.out_ns, "back": one.back_ns}
        for way, value_ns in found.items():
            if value_ns is not None:
                self.ways.setdefault((way, source), Values()).add(value_ns, 0)

    def _ways(self) -> dict[str, dict[str, Way]]:
        found: dict[str, dict[str, Way]] = {}
        for (way, source), values in self.ways.items():
            bound_ns = self.bounds.get(source) if way in ("out", "back") else None
            found.setdefault(way, {})[source] = values.way(bound_ns)
        return found

    def totals(self) -> Totals:
        """What it came to up to now."""
        r = self.results
        return Totals(
            target=self.target.name,
            proto=self.target.label,
            address=self.target.address[0],
            sent=r["sent"],
            received=r["reply"],
            lost=r["lost"],
            late=r["late"],
            duplicates=r["duplicate"],
            errors=dict(self.errors),
            waiting=r["sent"] - r["reply"] - r["lost"] - r["error"],
            no_stamp=self.no_stamp,
            disbelieved=self.disbelieved,
            behind=self.behind,
            behind_most_ns=self.behind_most_ns,
            duration_ns=self.last_ns - self.first_ns,
            rtt={source: values.rtt() for source, values in self.sources.items()},
            ways=self._ways(),
            unsplit=dict(self.unsplit),
        )


def _split(source: str, ways: dict[str, Way]) -> list[str]:
    """The parts of the RTT, one below the other in 80 columns."""
    bound_ns = ways["out"].bound_most_ns if "out" in ways else None
    each = f", each way {within(bound_ns)}" if bound_ns is not None else ""
    lines = [f"of which min/p50/p99/max in ms, source={source}{each}"]
    width = max(map(len, _WAYS.values()))
    for way, one in ways.items():
        four = "/".join(milliseconds(v) for v in (one.min_ns, one.p50_ns, one.p99_ns, one.max_ns))
        lines.append(f"  {_WAYS[way]:{width}} = {four} ({one.count} answers)")
    return lines


def render(t: Totals) -> str:
    """The lines that ping ends with, and what it does not know."""
    failed = sum(t.errors.values())
    settled = t.sent - t.waiting
    loss = f"{100 * t.lost / settled:.4g}%" if settled else "no"
    lines = [
        f"--- {t.target} {t.proto} ping statistics ---",
        f"{t.sent} packets transmitted, {t.received} received, "
        + (f"+{t.duplicates} duplicates, " if t.duplicates else "")
        + (f"+{failed} errors, " if failed else "")
        + (f"{t.waiting} still waited for, " if t.waiting else "")
        + f"{t.lost} lost ({loss} packet loss), time {t.duration_ns // 1_000_000}ms",
        f"late {t.late} (counted as lost before), duplicates {t.duplicates}, without stamp {t.no_stamp}"
        + (f", stamps disbelieved {t.disbelieved}" if t.disbelieved else ""),
    ]
    lines += [f"  {count} times {reason}" for reason, count in sorted(t.errors.items())]
    for source, rtt in sorted(t.rtt.items()):
        of = f" (of the last {rtt.kept})" if rtt.kept < rtt.count else ""
        four = "/".join(milliseconds(v) for v in (rtt.min_ns, rtt.avg_ns, rtt.max_ns, rtt.mdev_ns))
        tail = "/".join(milliseconds(v) for v in (rtt.p50_ns, rtt.p90_ns, rtt.p99_ns, rtt.p999_ns))
        lines.append(f"rtt min/avg/max/mdev = {four} ms source={source} ({rtt.count} replies){of}")
        lines.append(f"rtt p50/p90/p99/p99.9 = {tail} ms source={source}")
        if t.behind:
            lines.append(f"from the planned moment p99 = {milliseconds(rtt.from_plan_p99_ns)} ms source={source}")
    for source in sorted({source for by_source in t.ways.values() for source in by_source}):
        lines += _split(source, {way: t.ways[way][source] for way in _WAYS if source in t.ways.get(way, {})})
    lines += [f"out and back alone not known {count} times: {why}" for why, count in sorted(t.unsplit.items())]
    if t.behind:
        lines.append(f"sent more than 1 ms behind plan: {t.behind}, at most {milliseconds(t.behind_most_ns)} ms")
    return "\n".join(lines)
