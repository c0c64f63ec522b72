# SPDX-License-Identifier: Apache-2.0
"""The record and the row as numpy sees them, and their numbers by name; sizes and offsets are event.h's own."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

from tickpath import _event

ABI_VERSION = _event.ABI_VERSION
RECORD_BYTES = _event.RECORD_BYTES
ROW_BYTES = _event.ROW_BYTES
ROW_NONE = _event.ROW_NONE
RESOLUTION_MASK = _event.RESOLUTION_MASK


def structure(layout: dict[str, tuple[int, str]], size_bytes: int) -> np.dtype[np.void]:
    """A C structure as numpy sees it: of each field its offset and its format."""
    return np.dtype(
        {
            "names": list(layout),
            "formats": [text for _, text in layout.values()],
            "offsets": [offset for offset, _ in layout.values()],
            "itemsize": size_bytes,
        }
    )


def _record() -> np.dtype[np.void]:
    bodies = {name: structure(layout, _event.BODY_BYTES) for name, layout in _event.BODIES.items()}
    return np.dtype(
        {
            "names": [*_event.HEADER, *bodies],
            "formats": [*(text for _, text in _event.HEADER.values()), *bodies.values()],
            "offsets": [*(offset for offset, _ in _event.HEADER.values()), *([_event.BODY_OFFSET] * len(bodies))],
            "itemsize": RECORD_BYTES,
        }
    )


RECORD = _record()
"""A record: header fields by name, each body as a nested field ("message", "read", "segment", …).

The bodies overlap; `kind` tells which one is meant."""

ROW = structure(_event.ROW, ROW_BYTES)
"""A table row. Addresses are 16 raw bytes, IPv4 mapped."""


class Kind(IntEnum):
    """What a record says."""

    HELLO = _event.KIND["HELLO"]
    BYE = _event.KIND["BYE"]
    OPENED = _event.KIND["OPENED"]
    CLOSED = _event.KIND["CLOSED"]
    READ = _event.KIND["READ"]
    MESSAGE = _event.KIND["MESSAGE"]
    MESSAGE_WIDE = _event.KIND["MESSAGE_WIDE"]
    SEGMENT = _event.KIND["SEGMENT"]
    READABLE = _event.KIND["READABLE"]
    COPIED = _event.KIND["COPIED"]
    CLOCK = _event.KIND["CLOCK"]
    CONNECT = _event.KIND["CONNECT"]
    PASSED = _event.KIND["PASSED"]
    PING = _event.KIND["PING"]
    PING_SPLIT = _event.KIND["PING_SPLIT"]


class Clock(IntEnum):
    """Whose reading `time_ns` is; PHC is the first of 64, one for each PTP hardware clock."""

    NONE = _event.CLOCK["NONE"]
    MONOTONIC = _event.CLOCK["MONOTONIC"]
    REALTIME = _event.CLOCK["REALTIME"]
    TAI = _event.CLOCK["TAI"]
    TSC = _event.CLOCK["TSC"]
    NIC = _event.CLOCK["NIC"]
    PHC = _event.CLOCK["PHC"]


class Source(IntEnum):
    """Who took a wire stamp, best first."""

    NONE = _event.SOURCE["NONE"]
    HW = _event.SOURCE["HW"]
    SW = _event.SOURCE["SW"]
    POLL = _event.SOURCE["POLL"]
    HW_GRO = _event.SOURCE["HW_GRO"]
    SW_GRO = _event.SOURCE["SW_GRO"]
    SOCK = _event.SOURCE["SOCK"]


class Tier(IntEnum):
    """How a message end is known."""

    A = _event.TIER["A"]
    B = _event.TIER["B"]
    C = _event.TIER["C"]


class MessageFlag(IntFlag):
    """`flags` of a MESSAGE, beside its resolution."""

    HAS_EXCHANGE = _event.MESSAGE_FLAG["HAS_EXCHANGE"]
    HAS_TRANSACTION = _event.MESSAGE_FLAG["HAS_TRANSACTION"]
    HAS_DECODE = _event.MESSAGE_FLAG["HAS_DECODE"]
    HAS_PARSED = _event.MESSAGE_FLAG["HAS_PARSED"]
    HAS_PUBLISHED = _event.MESSAGE_FLAG["HAS_PUBLISHED"]
    WIDE = _event.MESSAGE_FLAG["WIDE"]


class Resolution(IntEnum):
    """What the venue's event time is a multiple of: `flags & RESOLUTION_MASK` of a MESSAGE."""

    MS = _event.RESOLUTION["MS"]
    US = _event.RESOLUTION["US"]
    NS = _event.RESOLUTION["NS"]
    S = _event.RESOLUTION["S"]


class ReadFlag(IntFlag):
    """`flags` of a READ."""

    DRAINED = _event.READ_FLAG["DRAINED"]


class SegmentFlag(IntFlag):
    """`flags` of a SEGMENT."""

    MERGED = _event.SEGMENT_FLAG["MERGED"]
    BAD_CSUM = _event.SEGMENT_FLAG["BAD_CSUM"]
    CUT = _event.SEGMENT_FLAG["CUT"]


class ConnectResult(IntEnum):
    """What an attempt to connect came to: `result` of a CONNECT."""

    OPENED = _event.CONNECT_RESULT["OPENED"]
    REFUSED = _event.CONNECT_RESULT["REFUSED"]
    TIMED_OUT = _event.CONNECT_RESULT["TIMED_OUT"]
    UNREACHABLE = _event.CONNECT_RESULT["UNREACHABLE"]
    ABORTED = _event.CONNECT_RESULT["ABORTED"]
    OTHER = _event.CONNECT_RESULT["OTHER"]


class PingResult(IntEnum):
    """What became of a ping: `result` of a PING."""

    SENT = _event.PING_RESULT["SENT"]
    REPLY = _event.PING_RESULT["REPLY"]
    LOST = _event.PING_RESULT["LOST"]
    LATE = _event.PING_RESULT["LATE"]
    DUPLICATE = _event.PING_RESULT["DUPLICATE"]
    ERROR = _event.PING_RESULT["ERROR"]


class PingSource(IntEnum):
    """What an RTT was taken with, best first: `source` of a PING."""

    NONE = _event.PING_SOURCE["NONE"]
    HW = _event.PING_SOURCE["HW"]
    SW = _event.PING_SOURCE["SW"]
    SOCK = _event.PING_SOURCE["SOCK"]
    TCP_INFO = _event.PING_SOURCE["TCP_INFO"]
    APP = _event.PING_SOURCE["APP"]


class PingProto(IntEnum):
    """How it was asked: `proto` of a PING."""

    ICMP = _event.PING_PROTO["ICMP"]
    UDP = _event.PING_PROTO["UDP"]
    TCP = _event.PING_PROTO["TCP"]


class PingFlag(IntFlag):
    """`flags` of a PING."""

    NO_STAMP = _event.PING_FLAG["NO_STAMP"]
    DISBELIEVED = _event.PING_FLAG["DISBELIEVED"]


class PingSplit(IntEnum):
    """What is known of each way alone: `why` of a PING_SPLIT."""

    KNOWN = _event.PING_SPLIT["KNOWN"]
    NEAR_UNBOUND = _event.PING_SPLIT["NEAR_UNBOUND"]
    FAR_UNBOUND = _event.PING_SPLIT["FAR_UNBOUND"]
    TOO_WIDE = _event.PING_SPLIT["TOO_WIDE"]
    NIC = _event.PING_SPLIT["NIC"]
    UNBELIEVED = _event.PING_SPLIT["UNBELIEVED"]


class ClockFlag(IntFlag):
    """`flags` of a CLOCK."""

    SYNCHRONISED = _event.CLOCK_FLAG["SYNCHRONISED"]
    STEPPED = _event.CLOCK_FLAG["STEPPED"]


class RowState(IntEnum):
    """Whether a row's connection lives."""

    FREE = _event.ROW_STATE["FREE"]
    OPEN = _event.ROW_STATE["OPEN"]
    CLOSED = _event.ROW_STATE["CLOSED"]


class Transport(IntEnum):
    """What lies between TCP and the messages."""

    UNKNOWN = _event.TRANSPORT["UNKNOWN"]
    WS = _event.TRANSPORT["WS"]
    WSS12 = _event.TRANSPORT["WSS12"]
    WSS13 = _event.TRANSPORT["WSS13"]


class RowFlag(IntFlag):
    """`flags` of a row."""

    HAS_IRS = _event.ROW_FLAG["HAS_IRS"]
    PROBE = _event.ROW_FLAG["PROBE"]


class Counter(IntEnum):
    """Running totals in a ring's header."""

    MESSAGES = _event.COUNTER["MESSAGES"]
    PARSE_FAILED = _event.COUNTER["PARSE_FAILED"]
    PUBLISH_DROPPED = _event.COUNTER["PUBLISH_DROPPED"]
    CONNECTS = _event.COUNTER["CONNECTS"]
    CONNECT_FAILED = _event.COUNTER["CONNECT_FAILED"]
    FEED_GAPS = _event.COUNTER["FEED_GAPS"]
    CONTROL_FRAMES = _event.COUNTER["CONTROL_FRAMES"]
    REPLIES = _event.COUNTER["REPLIES"]
    FRAMES = _event.COUNTER["FRAMES"]
    FRAMES_DROPPED = _event.COUNTER["FRAMES_DROPPED"]
    FRAMES_MALFORMED = _event.COUNTER["FRAMES_MALFORMED"]
    FRAMES_FRAGMENT = _event.COUNTER["FRAMES_FRAGMENT"]
    FRAMES_UNSTAMPED = _event.COUNTER["FRAMES_UNSTAMPED"]
    ROWS_EXHAUSTED = _event.COUNTER["ROWS_EXHAUSTED"]
    PROTOCOL_ERRORS = _event.COUNTER["PROTOCOL_ERRORS"]
    INTERFACE_LOST = _event.COUNTER["INTERFACE_LOST"]
    EVENTS_LOST = _event.COUNTER["EVENTS_LOST"]
    UNSUPPORTED_TRANSPORT = _event.COUNTER["UNSUPPORTED_TRANSPORT"]
    OUT_OF_ORDER = _event.COUNTER["OUT_OF_ORDER"]
    RETRANSMITS = _event.COUNTER["RETRANSMITS"]
    NO_COOKIE = _event.COUNTER["NO_COOKIE"]
    HW_MISSING = _event.COUNTER["HW_MISSING"]
    HW_GIVEN_UP = _event.COUNTER["HW_GIVEN_UP"]
    PHC_READ_FAILED = _event.COUNTER["PHC_READ_FAILED"]
    COST_READABLE_NS = _event.COUNTER["COST_READABLE_NS"]
    COST_COPIED_NS = _event.COUNTER["COST_COPIED_NS"]
    COST_STATE_NS = _event.COUNTER["COST_STATE_NS"]
    COST_ASKED_NS = _event.COUNTER["COST_ASKED_NS"]
    RUNS_READABLE = _event.COUNTER["RUNS_READABLE"]
    RUNS_COPIED = _event.COUNTER["RUNS_COPIED"]
    RUNS_STATE = _event.COUNTER["RUNS_STATE"]
    RUNS_ASKED = _event.COUNTER["RUNS_ASKED"]
    TOLD_READABLE = _event.COUNTER["TOLD_READABLE"]
    TOLD_COPIED = _event.COUNTER["TOLD_COPIED"]
    TOLD_STATE = _event.COUNTER["TOLD_STATE"]
    TOLD_ASKED = _event.COUNTER["TOLD_ASKED"]
    DPDK_HELD = _event.COUNTER["DPDK_HELD"]
    DPDK_RECEIVED = _event.COUNTER["DPDK_RECEIVED"]
    DPDK_PUBLISHED = _event.COUNTER["DPDK_PUBLISHED"]
    DPDK_OTHER = _event.COUNTER["DPDK_OTHER"]
    DPDK_TO_KERNEL = _event.COUNTER["DPDK_TO_KERNEL"]
    DPDK_FROM_KERNEL = _event.COUNTER["DPDK_FROM_KERNEL"]
    DPDK_TO_KERNEL_DROPPED = _event.COUNTER["DPDK_TO_KERNEL_DROPPED"]
    DPDK_FROM_KERNEL_DROPPED = _event.COUNTER["DPDK_FROM_KERNEL_DROPPED"]
    DPDK_MISSED = _event.COUNTER["DPDK_MISSED"]
    DPDK_ERRORS = _event.COUNTER["DPDK_ERRORS"]
    DPDK_HOLES = _event.COUNTER["DPDK_HOLES"]
    DPDK_POLLS = _event.COUNTER["DPDK_POLLS"]
    DPDK_POLLS_IDLE = _event.COUNTER["DPDK_POLLS_IDLE"]
    DPDK_BUSY_NS = _event.COUNTER["DPDK_BUSY_NS"]
    DPDK_RESIDENCE_NS = _event.COUNTER["DPDK_RESIDENCE_NS"]
    DPDK_BOUND_NS = _event.COUNTER["DPDK_BOUND_NS"]
    DPDK_UNSTAMPED = _event.COUNTER["DPDK_UNSTAMPED"]
    PING_STRAY = _event.COUNTER["PING_STRAY"]
    PING_MALFORMED = _event.COUNTER["PING_MALFORMED"]
    PING_SKIPPED = _event.COUNTER["PING_SKIPPED"]
    PING_UNPAIRED = _event.COUNTER["PING_UNPAIRED"]
    RUNS_LEFT_OUT = _event.COUNTER["RUNS_LEFT_OUT"]
