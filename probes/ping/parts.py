# SPDX-License-Identifier: Apache-2.0
"""A PING_SPLIT record as a line, or as a JSON object: where the time of a ping went, and what is not known of that."""

from __future__ import annotations

import msgspec
import numpy as np

from tickpath.event import PingProto, PingSource, PingSplit
from tickpath.probes.ping.outcome import milliseconds
from tickpath.probes.ping.target import Target

_NOT_KNOWN_NS = (1 << 63) - 1

WHY = {
    PingSplit.NEAR_UNBOUND: "this host's clock is not synchronised",
    PingSplit.FAR_UNBOUND: "the far host's clock is not synchronised",
    PingSplit.TOO_WIDE: "the clocks' bound is wider than the RTT",
    PingSplit.NIC: "the NICs' clocks are their own",
    PingSplit.UNBELIEVED: "the far end's times cannot be",
}


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the RTT of an answered ping went. Times in whole nanoseconds; null where not known.

    RTT = `path_ns` + `turn_ns`, whatever the clocks say; `path_ns` = `out_ns` + `back_ns`, each of which is true to
    `bound_ns`. Below 0 by more than that one is evidence that a clock's own bound does not hold.
    """

    target: str
    proto: str
    address: str
    seq: int
    """From 1."""
    result: str = "split"
    time_ns: int
    """When this became known, CLOCK_MONOTONIC."""
    source: str
    """Of this end's stamps."""
    far_source: str
    path_ns: int | None
    turn_ns: int | None
    out_ns: int | None
    back_ns: int | None
    bound_ns: int | None
    """Of both clocks together; 0: one clock."""
    unknown: str | None
    """Why there is no way out and back alone."""


def parts_of(record: np.void, target: Target) -> Parts:
    """A PING_SPLIT record of that target."""
    split = record["split"]
    why = PingSplit(int(split["why"]))
    known, believed = why is PingSplit.KNOWN, why is not PingSplit.UNBELIEVED
    path_ns, out_ns, bound_ns = int(split["path_ns"]), int(split["out_ns"]), int(split["bound_ns"])
    return Parts(
        target=target.name,
        proto=PingProto(int(split["proto"])).name.lower(),
        address=target.address[0],
        seq=int(split["ordinal"]) + 1,
        time_ns=int(record["time_ns"]),
        source=PingSource(int(record["source"])).name.lower(),
        far_source=PingSource(int(split["far_source"])).name.lower(),
        path_ns=path_ns if believed else None,
        turn_ns=int(split["turn_ns"]) if believed else None,
        out_ns=out_ns if known else None,
        back_ns=path_ns - out_ns if known else None,
        bound_ns=bound_ns if bound_ns != _NOT_KNOWN_NS else None,
        unknown=WHY.get(why),
    )


def within(bound_ns: int) -> str:
    """How far a way alone may be off."""
    return f"within {milliseconds(bound_ns)} ms" if bound_ns else "by one clock"


def parts_line(one: Parts) -> str:
    """What stands below the line of the answer."""
    begin = f"  {one.proto}_seq={one.seq}"
    if one.path_ns is None or one.turn_ns is None:
        return f"{begin} not taken apart: {one.unknown}"
    sources = f"source={one.source} there={one.far_source}"
    far = f"far end={milliseconds(one.turn_ns)} ms"
    if one.out_ns is None or one.back_ns is None or one.bound_ns is None:
        wide = f" ({milliseconds(one.bound_ns)} ms)" if one.bound_ns else ""
        path = f"out and back={milliseconds(one.path_ns)} ms"
        return f"{begin} {path} {far} {sources}; each way alone not known: {one.unknown}{wide}"
    ways = f"out={milliseconds(one.out_ns)} ms back={milliseconds(one.back_ns)} ms {within(one.bound_ns)}"
    wrong = (
        " (less than nothing: a clock's bound does not hold)" if min(one.out_ns, one.back_ns) < -one.bound_ns else ""
    )
    return f"{begin} {ways} {far} {sources}{wrong}"
