# SPDX-License-Identifier: Apache-2.0
"""The correlator for the exporter, the demo and `tickpath tail`: rings in, snapshots and per-message results out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tickpath.errors import RingError
from tickpath.event import Clock, ConnectResult, Counter, PingProto, PingResult, PingSource, PingSplit, Source, Tier
from tickpath.exporter.correlator._correlator import PING_WAYS, CorrelatorCore
from tickpath.exporter.correlator.joined import HOPS, JOINED, PARTS, Leg, Match, Reason
from tickpath.exporter.snapshot import ClockState, Exemplar, Pings, Polls, RingState, Series, SeriesKind, Snapshot
from tickpath.histogram import Histogram

if TYPE_CHECKING:
    from tickpath.exporter.correlator._correlator import ClockView, LabelView, PingView, RingView

# A ring holds 65,536 records by default: at a pause of 2 ms it would take 33 M records a second to lap this reader.
BUSY_PAUSE_NS = 1_000_000
IDLE_PAUSE_NS = 2_000_000
# A drain that brought this much was not the last: go on without a pause.
BEHIND_RECORDS = 8192
_UNKNOWN_NS = (1 << 63) - 1
_COUNTERS = {counter.value: counter.name.lower() for counter in Counter}


class Correlator:
    """Joins messages with the wire and kernel records of all attached rings.

    `poll` is to be called again and again, by one thread or several; everything may be called from any thread. Nothing
    grows without bound: `memory_bytes` is for all maps and queues together.

    window_ns: how long a message waits for records that may still come; it is finished earlier when none can.
    match: the least method whose results go into histograms.
    joined_capacity: how many results are kept for `joined`; 0: none.
    read_clock: take readings of this host's realtime clock at every poll, beside those that producers publish.
    """

    def __init__(
        self,
        *,
        window_ns: int = 1_000_000_000,
        match: Match = Match.OFFSET,
        joined_capacity: int = 0,
        max_connections: int = 4096,
        max_segments: int = 4096,
        max_pending: int = 16384,
        max_labels: int = 256,
        max_series: int = 2048,
        memory_bytes: int = 32 << 20,
        read_clock: bool = True,
    ) -> None:
        self._core = CorrelatorCore(
            window_ns=window_ns,
            match=int(match),
            max_connections=max_connections,
            max_segments=max_segments,
            max_pending=max_pending,
            max_labels=max_labels,
            max_series=max_series,
            joined_capacity=joined_capacity,
            memory_bytes=memory_bytes,
            read_clock=read_clock,
        )

    def attach(self, path: Path, *, from_start: bool = False) -> int:
        """Read the ring from its head on, or `from_start` (for one made after this correlator); return its id.

        Raises RingError when the file cannot be trusted.
        """
        return self._core.attach(path, from_start)

    def detach(self, ring: int) -> None:
        """Let go of a ring. Its feed's messages are finished with what is known of them."""
        self._core.detach(ring)

    def alive(self, ring: int) -> bool:
        """Return whether the ring's producer lives."""
        return self._core.alive(ring)

    def stale(self, ring: int) -> bool:
        """Return whether the ring's path holds another file, or none: detach it and attach the new one."""
        path = self._core.paths.get(ring)
        if path is None:
            raise RingError(f"no ring {ring} is attached")
        try:
            return path.stat().st_ino != self._core.inode(ring)
        except OSError:
            return True

    def poll(self, now_ns: int | None = None) -> int:
        """Drain all rings once and finish what need not wait; return the records handled. Lets go of the GIL."""
        return self._core.poll(-1 if now_ns is None else now_ns)

    def start(self) -> None:
        """Poll from a thread of its own, which no interpreter holds up, until stop(). Raises OSError: no thread."""
        self._core.start(BUSY_PAUSE_NS, IDLE_PAUSE_NS, BEHIND_RECORDS)

    def stop(self) -> None:
        """End that thread, once its poll is done. Nothing when there is none."""
        self._core.stop()

    def polls(self) -> Polls | None:
        """Return what that thread did; None while there is none."""
        found = self._core.polls()
        return None if found is None else Polls(*found)

    def flush(self, now_ns: int | None = None) -> None:
        """Finish everything that still waits."""
        self._core.flush(-1 if now_ns is None else now_ns)

    def joined(self, out: npt.NDArray[Any]) -> int:
        """Copy finished messages, oldest first, into an array of dtype JOINED; return how many.

        Raises ValueError for another dtype or a strided array.
        """
        if out.dtype != JOINED:
            raise ValueError(f"results have dtype JOINED, not {out.dtype}")
        return self._core.joined(out.view(np.uint8))

    def labels(self) -> list[tuple[str, str]]:
        """Return (venue, feed) by the `label` of a result. Number 0 is for messages whose row was lost."""
        return [_key(label) for label in self._core.view()[0]]

    def totals(self) -> dict[str, int]:
        """Return what happened to the correlator itself: struct tp_correlator_totals."""
        return self._core.view()[4]

    def snapshot(self) -> Snapshot:
        """Return a consistent state, taken between two batches of records."""
        labels, series, rings, clocks, totals, (results, by_family), pings, bounds = self._core.view()
        used = [label for label in labels if label["messages"]]
        return Snapshot(
            series=tuple(_series(labels[label], Leg(leg), Source(source), h, e) for label, leg, source, h, e in series),
            messages=MappingProxyType({_key(label): label["messages"] for label in used}),
            matched=MappingProxyType(
                {
                    (*_key(label), _tier(tier), Match(method).name.lower(), _source(Source(source))): count
                    for label in used
                    for (tier, method, source), count in label["matched"].items()
                }
            ),
            unmatched=MappingProxyType(
                {
                    (*_key(label), Reason(reason).name.lower()): count
                    for label in used
                    for reason, count in label["unmatched"].items()
                }
            ),
            missing=MappingProxyType(
                {
                    (*_key(label), Leg(leg).name.lower(), Reason(reason).name.lower()): count
                    for label in used
                    for (leg, reason), count in label["missing"].items()
                }
            ),
            negative=MappingProxyType(
                {
                    (*_key(label), Leg(leg).name.lower()): count
                    for label in used
                    for leg, count in label["negative"].items()
                }
            ),
            hol_blocked=MappingProxyType({_key(label): label["hol_blocked"] for label in used}),
            missed=MappingProxyType({_key(label): label["ordinal_gaps"] for label in used}),
            retransmitted=MappingProxyType({_key(label): label["retransmitted"] for label in used}),
            merged=MappingProxyType({_key(label): label["merged"] for label in used}),
            rings=tuple(_ring(ring) for ring in rings),
            clocks=tuple(_clocks(clocks)),
            pending=totals["pending"],
            records=totals["records"],
            evicted=MappingProxyType(
                {
                    "connection": totals["connections_evicted"],
                    "flow": totals["flows_evicted"],
                    "segment": totals["spans_evicted"],
                    "read": totals["reads_evicted"],
                    "message": totals["messages_evicted"],
                    "label": totals["labels_refused"],
                    "series": totals["series_refused"],
                    "joined": totals["joined_overrun"],
                }
            ),
            connects=MappingProxyType(
                {result.name.lower(): results[result] for result in ConnectResult} if any(results) else {}
            ),
            stamp_bounds=MappingProxyType({_source(Source(source)): bound for source, bound in bounds.items()}),
            connect_latencies=MappingProxyType(
                {family: h for family, h in zip(("ipv4", "ipv6"), by_family, strict=True) if h.count}
            ),
            pings=tuple(_pings(*pings)),
        )


def _key(label: LabelView) -> tuple[str, str]:
    return label["venue"], label["feed"]


def _tier(tier: int) -> str:
    return Tier(tier).name if tier in list(Tier) else ""


def _source(source: Source) -> str:
    return "" if source is Source.NONE else source.name.lower()


def _series(
    label: LabelView, leg: Leg, source: Source, histogram: Histogram, exemplars: list[tuple[int, int, int, int]]
) -> Series:
    kind = SeriesKind.HOP if leg in HOPS else SeriesKind.PART if leg in PARTS else SeriesKind.SPAN
    return Series(
        kind=kind,
        name=PARTS.get(leg, leg).name.lower(),
        part=leg.name.lower() if kind is SeriesKind.PART else "",
        venue=label["venue"],
        feed=label["feed"],
        source=_source(source),
        histogram=histogram,
        exemplars=tuple(
            Exemplar(value, time, label["feed"], cookie, ordinal) for value, time, cookie, ordinal in exemplars
        ),
    )


def _pings(accounts: list[PingView], series: list[tuple[int, int, int, Histogram]]) -> Iterable[Pings]:
    found: dict[tuple[int, int], dict[str, Histogram]] = {}
    for number, way, source, histogram in series:
        found.setdefault((number, way), {})[PingSource(source).name.lower()] = histogram
    with_series = {number for number, _ in found}

    def of(number: int, way: str) -> Mapping[str, Histogram]:
        return MappingProxyType(found.get((number, PING_WAYS[way]), {}))

    for number, account in enumerate(accounts):
        if not any(account["results"]) and number not in with_series:
            continue
        bound_ns = account["split_bound_ns"]
        yield Pings(
            target=account["target"],
            proto=PingProto(account["proto"]).name.lower() if account["proto"] else "",
            results=MappingProxyType({r.name.lower(): account["results"][r] for r in PingResult}),
            no_stamp=account["no_stamp"],
            disbelieved=account["disbelieved"],
            rtt=of(number, "rtt"),
            path=of(number, "path"),
            out=of(number, "out"),
            back=of(number, "back"),
            unsplit=MappingProxyType({why.name.lower(): account["unsplit"][why] for why in PingSplit if why}),
            split_bound_ns=math.inf if bound_ns == _UNKNOWN_NS else bound_ns if bound_ns >= 0 else None,
        )


def _ring(ring: RingView) -> RingState:
    counters = {_COUNTERS[number]: total for number, total in ring["counters"].items() if number in _COUNTERS}
    return RingState(
        ring=ring["ring"],
        name=ring["name"],
        kind=ring["kind"],
        alive=ring["alive"],
        stopped=ring["stopped"],
        lost=ring["lost"],
        skipped=ring["skipped"],
        cursor=ring["cursor"],
        counters=MappingProxyType(counters),
    )


def _clocks(clocks: Iterable[ClockView]) -> Iterable[ClockState]:
    for clock in clocks:
        number = clock["clock"]
        if number >= Clock.PHC:
            name = f"phc{number - Clock.PHC}"
        else:
            name = Clock(number).name.lower() + (str(clock["device"]) if number == Clock.NIC else "")
        # Against UTC a converted time is off by what the reading was, and by what the kernel's own UTC is.
        bound = None if clock["max_error_ns"] == _UNKNOWN_NS else clock["bound_ns"] + clock["max_error_ns"]
        yield ClockState(
            clock=name, offset_ns=clock["offset_ns"], bound_ns=bound, epoch=clock["steps"], steps=clock["steps"]
        )
