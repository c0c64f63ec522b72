# SPDX-License-Identifier: Apache-2.0
"""A PING record as a line that people know from ping, or as a JSON object."""

from __future__ import annotations

import errno
import ipaddress
import os

import msgspec
import numpy as np

from tickpath.event import PingFlag, PingProto, PingResult, PingSource
from tickpath.probes.ping.target import Target

_MAPPED = b"\0" * 10 + b"\xff\xff"
_HEADER_BYTES = 8

# RFC 792 and RFC 4443: (IPv4?, type, code) in the words that ping uses.
_REASONS = {
    (True, 3, 0): "Destination Net Unreachable",
    (True, 3, 1): "Destination Host Unreachable",
    (True, 3, 2): "Destination Protocol Unreachable",
    (True, 3, 3): "Destination Port Unreachable",
    (True, 3, 4): "Frag needed and DF set",
    (True, 3, 9): "Destination Net Prohibited",
    (True, 3, 10): "Destination Host Prohibited",
    (True, 3, 13): "Packet filtered",
    (True, 11, 0): "Time to live exceeded",
    (False, 1, 0): "Destination unreachable: No route",
    (False, 1, 1): "Destination unreachable: Administratively prohibited",
    (False, 1, 3): "Destination unreachable: Address unreachable",
    (False, 1, 4): "Destination unreachable: Port unreachable",
    (False, 2, 0): "Packet too big",
    (False, 3, 0): "Time exceeded: Hop limit",
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a ping. Times in whole nanoseconds; null where there is none."""

    target: str
    proto: str
    address: str
    seq: int
    """From 1."""
    result: str
    time_ns: int
    """When this became known, CLOCK_MONOTONIC; of `sent`: when it was sent."""
    rtt_ns: int | None
    source: str | None
    app_rtt_ns: int | None
    behind_ns: int
    """Sent so much later than planned."""
    bytes: int | None
    ttl: int | None
    no_stamp: bool
    disbelieved: bool
    """The kernel's stamps could not be, and were left out."""
    reason: str | None
    offender: str | None


def outcome_of(record: np.void, target: Target) -> Outcome:
    """A PING record of that target."""
    ping = record["ping"]
    result = PingResult(int(ping["result"]))
    flags = PingFlag(int(record["flags"]))
    arrived = result in (PingResult.REPLY, PingResult.LATE, PingResult.DUPLICATE)
    failed = result is PingResult.ERROR
    return Outcome(
        target=target.name,
        proto=PingProto(int(ping["proto"])).name.lower(),
        address=target.address[0],
        seq=int(ping["ordinal"]) + 1,
        result=result.name.lower(),
        time_ns=int(record["time_ns"]),
        rtt_ns=int(ping["rtt_ns"]) if arrived else None,
        source=PingSource(int(record["source"])).name.lower() if arrived else None,
        app_rtt_ns=int(ping["app_ns"]) if arrived else None,
        behind_ns=int(ping["behind_ns"]),
        bytes=int(ping["length"]) if arrived and int(ping["length"]) else None,
        ttl=int(ping["hops"]) or None,
        no_stamp=PingFlag.NO_STAMP in flags,
        disbelieved=PingFlag.DISBELIEVED in flags,
        reason=_reason(ping, v4=len(target.address) == 2) if failed else None,
        offender=_offender(ping["offender"].tobytes()) if failed else None,
    )


def _reason(ping: np.void, *, v4: bool) -> str:
    kind, code, number = int(ping["icmp_type"]), int(ping["icmp_code"]), int(ping["error"])
    if kind or code:
        return _REASONS.get((v4, kind, code), f"ICMP type {kind} code {code} ({os.strerror(number)})")
    return os.strerror(number) if number in errno.errorcode else f"error {number}"


def _offender(packed: bytes) -> str | None:
    if not any(packed):
        return None
    return str(ipaddress.ip_address(packed[12:] if packed.startswith(_MAPPED) else packed))


def milliseconds(ns: int) -> str:
    """As ping writes them, to the digit that a nanosecond clock can bear."""
    return f"{ns / 1e6:.3f}" if ns >= 1_000_000 else f"{ns / 1e6:.6f}"


def line(one: Outcome, host: str) -> str | None:
    """What ping would print, with the source; None: nothing."""
    who = one.address if host == one.address else f"{host} ({one.address})"
    number = f"{'icmp' if one.proto == 'icmp' else one.proto}_seq={one.seq}"
    if one.result == "sent":
        return None
    if one.result == "lost":
        return f"no answer from {who}: {number}"
    if one.result == "error":
        return f"From {one.offender} {number} {one.reason}" if one.offender else f"{who}: {number} {one.reason}"
    assert one.rtt_ns is not None
    begin = f"{one.bytes} bytes from {who}:" if one.bytes else f"connected to {who}:"
    ttl = f" ttl={one.ttl}" if one.ttl else ""
    marks = {"late": " (LATE!)", "duplicate": " (DUP!)"}.get(one.result, "")
    marks += " (stamps disbelieved)" if one.disbelieved else ""
    return f"{begin} {number}{ttl} time={milliseconds(one.rtt_ns)} ms source={one.source}{marks}"
