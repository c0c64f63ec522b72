# SPDX-License-Identifier: Apache-2.0
"""What the kernel's stamps of a message must be: the probe's own word for its byte, and in order with all others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from tickpath.event import Kind
from tickpath.exporter.correlator import Leg, Match, Reason, Stamp
from truth.model import Expected

_STAMPS = {Kind.READABLE: Stamp.READABLE, Kind.COPIED: Stamp.COPIED}
_GAPS = {Kind.READABLE: Reason.READABLE_GAP, Kind.COPIED: Reason.COPIED_GAP}
# A leg that is missing exactly when the stamp is: everything else that it needs is there for every message.
_LEGS = {Kind.READABLE: Leg.KERNEL_TO_USER, Kind.COPIED: Leg.BACKLOG}
_PARTS = {
    Leg.NIC_TO_KERNEL: (Leg.HOL_WAIT, Leg.STACK),
    Leg.KERNEL_TO_USER: (Leg.APP_BUSY, Leg.WAKE, Leg.BACKLOG, Leg.DECODE),
}


class KernelTimes:
    """When each byte of each connection became readable and was copied, as the probe wrote it down; 0: it did not."""

    def __init__(self, records: Any) -> None:
        self._of: dict[tuple[Kind, int], Any] = {}
        self.overlaps = 0
        for kind in _STAMPS:
            of_kind = records[records["kind"] == kind]
            for cookie in np.unique(of_kind["interval"]["cookie"]).tolist():
                mine = of_kind[of_kind["interval"]["cookie"] == cookie]
                times = np.zeros(int(mine["interval"]["to"].max()), np.int64)
                for record in mine:
                    window = times[int(record["interval"]["from"]) : int(record["interval"]["to"])]
                    self.overlaps += int(window.any())
                    window[:] = record["time_ns"]
                self._of[kind, cookie] = times

    def at(self, kind: Kind, cookie: int, byte: int) -> int:
        """Of the byte at that stream offset."""
        times = self._of.get((kind, cookie))
        return 0 if times is None or byte >= len(times) else int(times[byte])


def gaps(result: Any, times: KernelTimes) -> list[Reason]:
    """Stamps that are missing because the probe told nothing of the byte, and the result says so."""
    return [
        _GAPS[kind]
        for kind, stamp in _STAMPS.items()
        if not int(result["stamps"]) & stamp
        and int(result["missing"][_LEGS[kind]]) == _GAPS[kind]
        and not times.at(kind, int(result["cookie"]), int(result["end"]) - 1)
    ]


def complaints(result: Any, want: Expected, log: Any, times: KernelTimes) -> Iterator[str]:
    """Everything about one message's kernel stamps that is not as it must be."""
    stamps, cookie, end = int(result["stamps"]), int(result["cookie"]), int(result["end"])
    explained = gaps(result, times)
    for kind, stamp in _STAMPS.items():
        name = stamp.name or ""
        if not stamps & stamp:
            if _GAPS[kind] not in explained:
                yield f"no {name}, reason {Reason(int(result['missing'][_LEGS[kind]])).name}"
        elif int(result[f"{name.lower()}_ns"]) != times.at(kind, cookie, end - 1):
            yield f"{name} is not the moment that the probe told"
    if stamps & Stamp.READABLE and result["readable_ns"] < log[want.in_order]["before_ns"]:
        yield "readable before the write of the frame began that completed it"
    for (first, first_ns), (second, second_ns) in pairwise(_moments(result)):
        if first_ns > second_ns:
            yield f"{first} {first_ns - second_ns} ns after {second}"
    if stamps & Stamp.ASKED and stamps & Stamp.COPIED and result["asked_ns"] > result["copied_ns"]:
        yield f"asked {result['asked_ns'] - result['copied_ns']} ns after it was copied"
    yield from _parts(result)


def _moments(result: Any) -> list[tuple[str, int]]:
    """Those that the message has, in the order in which they must have been."""
    exact = int(result["method"]) == Match.OFFSET
    known = [
        (Stamp.OWN, exact),
        (Stamp.IN_ORDER, exact),
        (Stamp.READABLE, True),
        (Stamp.COPIED, True),
        (Stamp.DECODE, True),
    ]
    moments = [
        (name, int(result[f"{name}_ns"]))
        for name, there in ((str(stamp.name).lower(), use and int(result["stamps"]) & stamp) for stamp, use in known)
        if there
    ]
    return [*moments, ("received", int(result["received_ns"]))]


def ordered(result: Any) -> bool:
    """Whether all of own, in-order, readable, copied and received are there and in that order."""
    moments = [moment for moment in _moments(result) if moment[0] != "decode"]
    return len(moments) == 5 and all(a[1] <= b[1] for a, b in pairwise(moments))


def _parts(result: Any) -> Iterator[str]:
    """The parts of a hop are all of it, in integers."""
    legs = {leg: int(result["leg_ns"][leg]) for leg in Leg if int(result["legs"]) & 1 << leg}
    for hop, parts in _PARTS.items():
        if all(leg in legs for leg in (hop, *parts)) and sum(legs[part] for part in parts) != legs[hop]:
            yield f"the parts of {hop.name} do not add up"
