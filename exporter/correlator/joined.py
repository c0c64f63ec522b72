# SPDX-License-Identifier: Apache-2.0
"""One message's result as numpy sees it, and its numbers by name; sizes and offsets are correlator.h's own."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from tickpath.event import structure
from tickpath.exporter.correlator import _correlator as native


class Leg(IntEnum):
    """Everything that is measured of a message: index into `leg_ns` and `missing`, bit in `legs` (DESIGN 2)."""

    BN_TO_NIC = native.LEGS["bn_to_nic"]
    NIC_TO_KERNEL = native.LEGS["nic_to_kernel"]
    KERNEL_TO_USER = native.LEGS["kernel_to_user"]
    CPU = native.LEGS["cpu"]
    MSK = native.LEGS["msk"]
    HOL_WAIT = native.LEGS["hol_wait"]
    STACK = native.LEGS["stack"]
    APP_BUSY = native.LEGS["app_busy"]
    WAKE = native.LEGS["wake"]
    BACKLOG = native.LEGS["backlog"]
    DECODE = native.LEGS["decode"]
    TOTAL = native.LEGS["total"]
    IN_HOST = native.LEGS["in_host"]
    NIC_TO_USER = native.LEGS["nic_to_user"]


HOPS = (Leg.BN_TO_NIC, Leg.NIC_TO_KERNEL, Leg.KERNEL_TO_USER, Leg.CPU, Leg.MSK)
PARTS = {
    Leg.HOL_WAIT: Leg.NIC_TO_KERNEL,
    Leg.STACK: Leg.NIC_TO_KERNEL,
    Leg.APP_BUSY: Leg.KERNEL_TO_USER,
    Leg.WAKE: Leg.KERNEL_TO_USER,
    Leg.BACKLOG: Leg.KERNEL_TO_USER,
    Leg.DECODE: Leg.KERNEL_TO_USER,
}
"""Each part and the hop that it is part of."""
SPANS = (Leg.TOTAL, Leg.IN_HOST, Leg.NIC_TO_USER)


class Match(IntEnum):
    """How a message was joined with the wire, best first; and the least that histograms take (`--match`)."""

    OFFSET = native.METHODS["offset"]
    SOCKET = native.METHODS["socket"]
    WINDOW = native.METHODS["window"]


class Reason(IntEnum):
    """Why a message was not matched by offset, or why a leg of it is missing: docs/matching.md."""

    NONE = native.REASONS["none"]
    NO_WIRE = native.REASONS["no_wire"]
    NO_FLOW = native.REASONS["no_flow"]
    AMBIGUOUS_FLOW = native.REASONS["ambiguous_flow"]
    NO_BASE = native.REASONS["no_base"]
    WIRE_GAP = native.REASONS["wire_gap"]
    SOCK_NOT_LAST = native.REASONS["sock_not_last"]
    TIER_C = native.REASONS["tier_c"]
    EVICTED = native.REASONS["evicted"]
    ROW_LOST = native.REASONS["row_lost"]
    CLOCK_STEP = native.REASONS["clock_step"]
    CLOCK_UNKNOWN = native.REASONS["clock_unknown"]
    MIXED_SOURCES = native.REASONS["mixed_sources"]
    SOCK = native.REASONS["sock"]
    NO_KERNEL = native.REASONS["no_kernel"]
    NO_SOCKET = native.REASONS["no_socket"]
    READABLE_GAP = native.REASONS["readable_gap"]
    COPIED_GAP = native.REASONS["copied_gap"]
    NO_READ = native.REASONS["no_read"]
    NO_EXCHANGE = native.REASONS["no_exchange"]
    NO_DECODE = native.REASONS["no_decode"]
    NOT_PARSED = native.REASONS["not_parsed"]
    NOT_PUBLISHED = native.REASONS["not_published"]
    WIDE_LOST = native.REASONS["wide_lost"]


class Stamp(IntFlag):
    """Which of a result's stamps are there."""

    OWN = native.STAMPS["own"]
    IN_ORDER = native.STAMPS["in_order"]
    READABLE = native.STAMPS["readable"]
    ASKED = native.STAMPS["asked"]
    COPIED = native.STAMPS["copied"]
    DECODE = native.STAMPS["decode"]
    PARSED = native.STAMPS["parsed"]
    PUBLISHED = native.STAMPS["published"]
    EXCHANGE = native.STAMPS["exchange"]


JOINED = structure(native.JOINED, native.JOINED_BYTES)
"""A message's result: struct tp_joined. Stamps are CLOCK_MONOTONIC ns and valid where `stamps` says so (Stamp);
`leg_ns[leg]` is valid where `legs & 1 << leg`, else `missing[leg]` is the Reason. `method` is 0 or a Match."""
