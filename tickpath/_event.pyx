# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""What event.h says, read out of the compiled header: numbers, sizes and offsets. Python knows the ABI from here only."""

from tickpath._event cimport *

cdef tp_event event
cdef tp_row row


cdef object _at(void *base, void *field, size_t size, str kind):
    return (<char *>field - <char *>base, f"{kind}{size}")


cdef dict _layouts():
    cdef tp_message *m = &event.message
    cdef tp_message_wide *w = &event.wide
    cdef tp_read *r = &event.read
    cdef tp_segment *s = &event.segment
    cdef tp_interval *i = &event.interval
    cdef tp_connection *c = &event.connection
    cdef tp_connect *o = &event.connect
    cdef tp_clock_reading *k = &event.reading
    cdef tp_ping *p = &event.ping
    cdef tp_ping_split *d = &event.split
    return {
        "message": {
            "exchange_ns": _at(m, &m.exchange_ns, sizeof(m.exchange_ns), "i"),
            "end": _at(m, &m.end, sizeof(m.end), "u"),
            "ordinal": _at(m, &m.ordinal, sizeof(m.ordinal), "u"),
            "length": _at(m, &m.length, sizeof(m.length), "u"),
            "decode_ns": _at(m, &m.decode_ns, sizeof(m.decode_ns), "u"),
            "parsed_ns": _at(m, &m.parsed_ns, sizeof(m.parsed_ns), "u"),
            "published_ns": _at(m, &m.published_ns, sizeof(m.published_ns), "u"),
            "transaction_ns": _at(m, &m.transaction_ns, sizeof(m.transaction_ns), "i"),
        },
        "wide": {
            "length": _at(w, &w.length, sizeof(w.length), "u"),
            "decode_ns": _at(w, &w.decode_ns, sizeof(w.decode_ns), "i"),
            "parsed_ns": _at(w, &w.parsed_ns, sizeof(w.parsed_ns), "i"),
            "published_ns": _at(w, &w.published_ns, sizeof(w.published_ns), "i"),
            "transaction_ns": _at(w, &w.transaction_ns, sizeof(w.transaction_ns), "i"),
        },
        "read": {
            "from": _at(r, &r.from_, sizeof(r.from_), "u"),
            "to": _at(r, &r.to, sizeof(r.to), "u"),
            "asked_ns": _at(r, &r.asked_ns, sizeof(r.asked_ns), "u"),
            "sw_ns": _at(r, &r.sw_ns, sizeof(r.sw_ns), "i"),
            "hw_ns": _at(r, &r.hw_ns, sizeof(r.hw_ns), "i"),
        },
        "segment": {
            "frame": _at(s, &s.frame, sizeof(s.frame), "u"),
            "seen_ns": _at(s, &s.seen_ns, sizeof(s.seen_ns), "u"),
            "seq": _at(s, &s.seq, sizeof(s.seq), "u"),
            "length": _at(s, &s.length, sizeof(s.length), "u"),
            "ack": _at(s, &s.ack, sizeof(s.ack), "u"),
            "ifindex": _at(s, &s.ifindex, sizeof(s.ifindex), "u"),
            "bound_ns": _at(s, &s.bound_ns, sizeof(s.bound_ns), "u"),
            "segments": _at(s, &s.segments, sizeof(s.segments), "u"),
            "tcp_flags": _at(s, &s.tcp_flags, sizeof(s.tcp_flags), "u"),
        },
        "interval": {
            "from": _at(i, &i.from_, sizeof(i.from_), "u"),
            "to": _at(i, &i.to, sizeof(i.to), "u"),
            "cookie": _at(i, &i.cookie, sizeof(i.cookie), "u"),
            "seq": _at(i, &i.seq, sizeof(i.seq), "u"),
            "pid": _at(i, &i.pid, sizeof(i.pid), "u"),
            "asked_ns": _at(i, &i.asked_ns, sizeof(i.asked_ns), "u"),
        },
        "connection": {
            "cookie": _at(c, &c.cookie, sizeof(c.cookie), "u"),
            "bytes": _at(c, &c.bytes, sizeof(c.bytes), "u"),
            "messages": _at(c, &c.messages, sizeof(c.messages), "u"),
        },
        "connect": {
            "cookie": _at(o, &o.cookie, sizeof(o.cookie), "u"),
            "latency_ns": _at(o, &o.latency_ns, sizeof(o.latency_ns), "u"),
            "cgroup": _at(o, &o.cgroup, sizeof(o.cgroup), "u"),
            "pid": _at(o, &o.pid, sizeof(o.pid), "u"),
            "error": _at(o, &o.error, sizeof(o.error), "u"),
            "result": _at(o, &o.result, sizeof(o.result), "u"),
            "family": _at(o, &o.family, sizeof(o.family), "u"),
        },
        "reading": {
            "before_ns": _at(k, &k.before_ns, sizeof(k.before_ns), "i"),
            "after_ns": _at(k, &k.after_ns, sizeof(k.after_ns), "i"),
            "max_error_ns": _at(k, &k.max_error_ns, sizeof(k.max_error_ns), "i"),
            "frequency": _at(k, &k.frequency, sizeof(k.frequency), "i"),
            "tai_offset_s": _at(k, &k.tai_offset_s, sizeof(k.tai_offset_s), "i"),
            "device": _at(k, &k.device, sizeof(k.device), "u"),
        },
        "ping": {
            "ordinal": _at(p, &p.ordinal, sizeof(p.ordinal), "u"),
            "rtt_ns": _at(p, &p.rtt_ns, sizeof(p.rtt_ns), "i"),
            "app_ns": _at(p, &p.app_ns, sizeof(p.app_ns), "i"),
            "offender": _at(p, &p.offender, sizeof(p.offender), "V"),
            "behind_ns": _at(p, &p.behind_ns, sizeof(p.behind_ns), "u"),
            "length": _at(p, &p.length, sizeof(p.length), "u"),
            "result": _at(p, &p.result, sizeof(p.result), "u"),
            "proto": _at(p, &p.proto, sizeof(p.proto), "u"),
            "hops": _at(p, &p.hops, sizeof(p.hops), "u"),
            "icmp_type": _at(p, &p.icmp_type, sizeof(p.icmp_type), "u"),
            "icmp_code": _at(p, &p.icmp_code, sizeof(p.icmp_code), "u"),
            "error": _at(p, &p.error, sizeof(p.error), "u"),
        },
        "split": {
            "ordinal": _at(d, &d.ordinal, sizeof(d.ordinal), "u"),
            "path_ns": _at(d, &d.path_ns, sizeof(d.path_ns), "i"),
            "out_ns": _at(d, &d.out_ns, sizeof(d.out_ns), "i"),
            "bound_ns": _at(d, &d.bound_ns, sizeof(d.bound_ns), "i"),
            "turn_ns": _at(d, &d.turn_ns, sizeof(d.turn_ns), "u"),
            "far_source": _at(d, &d.far_source, sizeof(d.far_source), "u"),
            "why": _at(d, &d.why, sizeof(d.why), "u"),
            "proto": _at(d, &d.proto, sizeof(d.proto), "u"),
        },
    }


# name -> (offset, numpy format), of the parts of a record and of a row.
BODIES = _layouts()
BODY_OFFSET = <char *>&event.words - <char *>&event
BODY_BYTES = sizeof(event.words)
HEADER = {
    "seq": _at(&event, &event.seq, sizeof(event.seq), "u"),
    "kind": _at(&event, &event.kind, sizeof(event.kind), "u"),
    "clock": _at(&event, &event.clock, sizeof(event.clock), "u"),
    "source": _at(&event, &event.source, sizeof(event.source), "u"),
    "flags": _at(&event, &event.flags, sizeof(event.flags), "u"),
    "row": _at(&event, &event.row, sizeof(event.row), "u"),
    "time_ns": _at(&event, &event.time_ns, sizeof(event.time_ns), "i"),
}
ROW = {
    "version": _at(&row, &row.version, sizeof(row.version), "u"),
    "generation": _at(&row, &row.generation, sizeof(row.generation), "u"),
    "state": _at(&row, &row.state, sizeof(row.state), "u"),
    "flags": _at(&row, &row.flags, sizeof(row.flags), "u"),
    "cookie": _at(&row, &row.cookie, sizeof(row.cookie), "u"),
    "netns": _at(&row, &row.netns, sizeof(row.netns), "u"),
    "opened_ns": _at(&row, &row.opened_ns, sizeof(row.opened_ns), "i"),
    "closed_ns": _at(&row, &row.closed_ns, sizeof(row.closed_ns), "i"),
    "local": _at(&row, &row.local, sizeof(row.local), "V"),
    "remote": _at(&row, &row.remote, sizeof(row.remote), "V"),
    "local_port": _at(&row, &row.local_port, sizeof(row.local_port), "u"),
    "remote_port": _at(&row, &row.remote_port, sizeof(row.remote_port), "u"),
    "irs": _at(&row, &row.irs, sizeof(row.irs), "u"),
    "transport": _at(&row, &row.transport, sizeof(row.transport), "u"),
    "reconnects": _at(&row, &row.reconnects, sizeof(row.reconnects), "u"),
    "venue": _at(&row, &row.venue, sizeof(row.venue), "S"),
    "comm": _at(&row, &row.comm, sizeof(row.comm), "S"),
    "feed": _at(&row, &row.feed, sizeof(row.feed), "S"),
    "stream": _at(&row, &row.stream, sizeof(row.stream), "S"),
}
ABI_VERSION = TP_ABI_VERSION
RECORD_BYTES = sizeof(tp_event)
ROW_BYTES = sizeof(tp_row)
ROW_NONE = <uint32_t>TP_ROW_NONE

KIND = {
    "HELLO": TP_KIND_HELLO, "BYE": TP_KIND_BYE, "OPENED": TP_KIND_OPENED, "CLOSED": TP_KIND_CLOSED,
    "READ": TP_KIND_READ, "MESSAGE": TP_KIND_MESSAGE, "MESSAGE_WIDE": TP_KIND_MESSAGE_WIDE,
    "SEGMENT": TP_KIND_SEGMENT, "READABLE": TP_KIND_READABLE, "COPIED": TP_KIND_COPIED, "CLOCK": TP_KIND_CLOCK,
    "CONNECT": TP_KIND_CONNECT,
    "PASSED": TP_KIND_PASSED, "PING": TP_KIND_PING, "PING_SPLIT": TP_KIND_PING_SPLIT,
}
CLOCK = {
    "NONE": TP_CLOCK_NONE, "MONOTONIC": TP_CLOCK_MONOTONIC, "REALTIME": TP_CLOCK_REALTIME, "TAI": TP_CLOCK_TAI,
    "TSC": TP_CLOCK_TSC, "NIC": TP_CLOCK_NIC, "PHC": TP_CLOCK_PHC,
}
SOURCE = {
    "NONE": TP_SOURCE_NONE, "HW": TP_SOURCE_HW, "SW": TP_SOURCE_SW, "POLL": TP_SOURCE_POLL,
    "HW_GRO": TP_SOURCE_HW_GRO, "SW_GRO": TP_SOURCE_SW_GRO, "SOCK": TP_SOURCE_SOCK,
}
TIER = {"A": TP_TIER_A, "B": TP_TIER_B, "C": TP_TIER_C}
MESSAGE_FLAG = {
    "HAS_EXCHANGE": TP_MESSAGE_HAS_EXCHANGE, "HAS_TRANSACTION": TP_MESSAGE_HAS_TRANSACTION,
    "HAS_DECODE": TP_MESSAGE_HAS_DECODE, "HAS_PARSED": TP_MESSAGE_HAS_PARSED,
    "HAS_PUBLISHED": TP_MESSAGE_HAS_PUBLISHED, "WIDE": TP_MESSAGE_WIDE,
}
RESOLUTION_MASK = TP_MESSAGE_RESOLUTION_MASK
RESOLUTION = {"MS": TP_RESOLUTION_MS, "US": TP_RESOLUTION_US, "NS": TP_RESOLUTION_NS, "S": TP_RESOLUTION_S}
READ_FLAG = {"DRAINED": TP_READ_DRAINED}
SEGMENT_FLAG = {"MERGED": TP_SEGMENT_MERGED, "BAD_CSUM": TP_SEGMENT_BAD_CSUM, "CUT": TP_SEGMENT_CUT}
CONNECT_RESULT = {
    "OPENED": TP_CONNECT_OPENED, "REFUSED": TP_CONNECT_REFUSED, "TIMED_OUT": TP_CONNECT_TIMED_OUT,
    "UNREACHABLE": TP_CONNECT_UNREACHABLE, "ABORTED": TP_CONNECT_ABORTED, "OTHER": TP_CONNECT_OTHER,
}
PING_RESULT = {
    "SENT": TP_PING_SENT, "REPLY": TP_PING_REPLY, "LOST": TP_PING_LOST, "LATE": TP_PING_LATE,
    "DUPLICATE": TP_PING_DUPLICATE, "ERROR": TP_PING_ERROR,
}
PING_SOURCE = {
    "NONE": TP_PING_SOURCE_NONE, "HW": TP_PING_SOURCE_HW, "SW": TP_PING_SOURCE_SW, "SOCK": TP_PING_SOURCE_SOCK,
    "TCP_INFO": TP_PING_SOURCE_TCP_INFO, "APP": TP_PING_SOURCE_APP,
}
PING_PROTO = {"ICMP": TP_PING_PROTO_ICMP, "UDP": TP_PING_PROTO_UDP, "TCP": TP_PING_PROTO_TCP}
PING_FLAG = {"NO_STAMP": TP_PING_NO_STAMP, "DISBELIEVED": TP_PING_DISBELIEVED}
PING_SPLIT = {
    "KNOWN": TP_PING_SPLIT_KNOWN, "NEAR_UNBOUND": TP_PING_SPLIT_NEAR_UNBOUND,
    "FAR_UNBOUND": TP_PING_SPLIT_FAR_UNBOUND, "TOO_WIDE": TP_PING_SPLIT_TOO_WIDE, "NIC": TP_PING_SPLIT_NIC,
    "UNBELIEVED": TP_PING_SPLIT_UNBELIEVED,
}
CLOCK_FLAG = {"SYNCHRONISED": TP_CLOCK_SYNCHRONISED, "STEPPED": TP_CLOCK_STEPPED}
ROW_STATE = {"FREE": TP_ROW_FREE, "OPEN": TP_ROW_OPEN, "CLOSED": TP_ROW_CLOSED}
TRANSPORT = {
    "UNKNOWN": TP_TRANSPORT_UNKNOWN, "WS": TP_TRANSPORT_WS, "WSS12": TP_TRANSPORT_WSS12, "WSS13": TP_TRANSPORT_WSS13,
}
ROW_FLAG = {"HAS_IRS": TP_ROW_HAS_IRS, "PROBE": TP_ROW_PROBE}
COUNTER = {
    "MESSAGES": TP_COUNT_MESSAGES, "PARSE_FAILED": TP_COUNT_PARSE_FAILED,
    "PUBLISH_DROPPED": TP_COUNT_PUBLISH_DROPPED, "CONNECTS": TP_COUNT_CONNECTS,
    "CONNECT_FAILED": TP_COUNT_CONNECT_FAILED, "FEED_GAPS": TP_COUNT_FEED_GAPS,
    "CONTROL_FRAMES": TP_COUNT_CONTROL_FRAMES, "REPLIES": TP_COUNT_REPLIES, "FRAMES": TP_COUNT_FRAMES,
    "FRAMES_DROPPED": TP_COUNT_FRAMES_DROPPED, "FRAMES_MALFORMED": TP_COUNT_FRAMES_MALFORMED,
    "FRAMES_FRAGMENT": TP_COUNT_FRAMES_FRAGMENT, "FRAMES_UNSTAMPED": TP_COUNT_FRAMES_UNSTAMPED,
    "ROWS_EXHAUSTED": TP_COUNT_ROWS_EXHAUSTED, "PROTOCOL_ERRORS": TP_COUNT_PROTOCOL_ERRORS,
    "INTERFACE_LOST": TP_COUNT_INTERFACE_LOST, "EVENTS_LOST": TP_COUNT_EVENTS_LOST,
    "UNSUPPORTED_TRANSPORT": TP_COUNT_UNSUPPORTED_TRANSPORT, "OUT_OF_ORDER": TP_COUNT_OUT_OF_ORDER,
    "RETRANSMITS": TP_COUNT_RETRANSMITS, "NO_COOKIE": TP_COUNT_NO_COOKIE,
    "HW_MISSING": TP_COUNT_HW_MISSING, "HW_GIVEN_UP": TP_COUNT_HW_GIVEN_UP,
    "PHC_READ_FAILED": TP_COUNT_PHC_READ_FAILED,
    "COST_READABLE_NS": TP_COUNT_COST_READABLE_NS, "COST_COPIED_NS": TP_COUNT_COST_COPIED_NS,
    "COST_STATE_NS": TP_COUNT_COST_STATE_NS, "COST_ASKED_NS": TP_COUNT_COST_ASKED_NS,
    "RUNS_READABLE": TP_COUNT_RUNS_READABLE, "RUNS_COPIED": TP_COUNT_RUNS_COPIED,
    "RUNS_STATE": TP_COUNT_RUNS_STATE, "RUNS_ASKED": TP_COUNT_RUNS_ASKED,
    "TOLD_READABLE": TP_COUNT_TOLD_READABLE, "TOLD_COPIED": TP_COUNT_TOLD_COPIED,
    "TOLD_STATE": TP_COUNT_TOLD_STATE, "TOLD_ASKED": TP_COUNT_TOLD_ASKED,
    "DPDK_HELD": TP_COUNT_DPDK_HELD,
    "DPDK_RECEIVED": TP_COUNT_DPDK_RECEIVED,
    "DPDK_PUBLISHED": TP_COUNT_DPDK_PUBLISHED,
    "DPDK_OTHER": TP_COUNT_DPDK_OTHER,
    "DPDK_TO_KERNEL": TP_COUNT_DPDK_TO_KERNEL,
    "DPDK_FROM_KERNEL": TP_COUNT_DPDK_FROM_KERNEL,
    "DPDK_TO_KERNEL_DROPPED": TP_COUNT_DPDK_TO_KERNEL_DROPPED,
    "DPDK_FROM_KERNEL_DROPPED": TP_COUNT_DPDK_FROM_KERNEL_DROPPED,
    "DPDK_MISSED": TP_COUNT_DPDK_MISSED,
    "DPDK_ERRORS": TP_COUNT_DPDK_ERRORS,
    "DPDK_HOLES": TP_COUNT_DPDK_HOLES,
    "DPDK_POLLS": TP_COUNT_DPDK_POLLS,
    "DPDK_POLLS_IDLE": TP_COUNT_DPDK_POLLS_IDLE,
    "DPDK_BUSY_NS": TP_COUNT_DPDK_BUSY_NS,
    "DPDK_RESIDENCE_NS": TP_COUNT_DPDK_RESIDENCE_NS,
    "DPDK_BOUND_NS": TP_COUNT_DPDK_BOUND_NS,
    "DPDK_UNSTAMPED": TP_COUNT_DPDK_UNSTAMPED,
    "PING_STRAY": TP_COUNT_PING_STRAY, "PING_MALFORMED": TP_COUNT_PING_MALFORMED,
    "PING_SKIPPED": TP_COUNT_PING_SKIPPED, "PING_UNPAIRED": TP_COUNT_PING_UNPAIRED,
    "RUNS_LEFT_OUT": TP_COUNT_RUNS_LEFT_OUT,
}
