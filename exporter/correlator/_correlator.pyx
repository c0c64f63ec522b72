# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""Python face of the correlator in C; the public names are in tickpath.exporter.correlator."""

import os

from libc.errno cimport ENOENT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tickpath._event cimport TP_KIND_CLOCK, TP_KIND_SEGMENT, TP_RECORD_BYTES, tp_event
from tickpath._histogram cimport Histogram
from tickpath.errors import RingError

LEGS = {
    "bn_to_nic": TP_LEG_BN_TO_NIC,
    "nic_to_kernel": TP_LEG_NIC_TO_KERNEL,
    "kernel_to_user": TP_LEG_KERNEL_TO_USER,
    "cpu": TP_LEG_CPU,
    "msk": TP_LEG_MSK,
    "hol_wait": TP_LEG_HOL_WAIT,
    "stack": TP_LEG_STACK,
    "app_busy": TP_LEG_APP_BUSY,
    "wake": TP_LEG_WAKE,
    "backlog": TP_LEG_BACKLOG,
    "decode": TP_LEG_DECODE,
    "total": TP_LEG_TOTAL,
    "in_host": TP_LEG_IN_HOST,
    "nic_to_user": TP_LEG_NIC_TO_USER,
}
PING_WAYS = {
    "rtt": TP_PING_WAY_RTT, "path": TP_PING_WAY_PATH, "out": TP_PING_WAY_OUT, "back": TP_PING_WAY_BACK,
}
METHODS = {"offset": TP_METHOD_OFFSET, "socket": TP_METHOD_SOCKET, "window": TP_METHOD_WINDOW}
REASONS = {
    "none": TP_REASON_NONE,
    "no_wire": TP_REASON_NO_WIRE,
    "no_flow": TP_REASON_NO_FLOW,
    "ambiguous_flow": TP_REASON_AMBIGUOUS_FLOW,
    "no_base": TP_REASON_NO_BASE,
    "wire_gap": TP_REASON_WIRE_GAP,
    "sock_not_last": TP_REASON_SOCK_NOT_LAST,
    "tier_c": TP_REASON_TIER_C,
    "evicted": TP_REASON_EVICTED,
    "row_lost": TP_REASON_ROW_LOST,
    "clock_step": TP_REASON_CLOCK_STEP,
    "clock_unknown": TP_REASON_CLOCK_UNKNOWN,
    "mixed_sources": TP_REASON_MIXED_SOURCES,
    "sock": TP_REASON_SOCK,
    "no_kernel": TP_REASON_NO_KERNEL,
    "no_socket": TP_REASON_NO_SOCKET,
    "readable_gap": TP_REASON_READABLE_GAP,
    "copied_gap": TP_REASON_COPIED_GAP,
    "no_read": TP_REASON_NO_READ,
    "no_exchange": TP_REASON_NO_EXCHANGE,
    "no_decode": TP_REASON_NO_DECODE,
    "not_parsed": TP_REASON_NOT_PARSED,
    "not_published": TP_REASON_NOT_PUBLISHED,
    "wide_lost": TP_REASON_WIDE_LOST,
}
STAMPS = {
    "own": TP_STAMP_OWN,
    "in_order": TP_STAMP_IN_ORDER,
    "readable": TP_STAMP_READABLE,
    "asked": TP_STAMP_ASKED,
    "copied": TP_STAMP_COPIED,
    "decode": TP_STAMP_DECODE,
    "parsed": TP_STAMP_PARSED,
    "published": TP_STAMP_PUBLISHED,
    "exchange": TP_STAMP_EXCHANGE,
}
cdef tp_joined _sample

JOINED_BYTES = sizeof(tp_joined)
JOINED = {
    "cookie": (<char *>&_sample.cookie - <char *>&_sample, "u8"),
    "end": (<char *>&_sample.end - <char *>&_sample, "u8"),
    "frame": (<char *>&_sample.frame - <char *>&_sample, "u8"),
    "exchange_ns": (<char *>&_sample.exchange_ns - <char *>&_sample, "i8"),
    "offset_ns": (<char *>&_sample.offset_ns - <char *>&_sample, "i8"),
    "own_ns": (<char *>&_sample.own_ns - <char *>&_sample, "i8"),
    "own_bound_ns": (<char *>&_sample.own_bound_ns - <char *>&_sample, "i8"),
    "last_copy_ns": (<char *>&_sample.last_copy_ns - <char *>&_sample, "i8"),
    "in_order_ns": (<char *>&_sample.in_order_ns - <char *>&_sample, "i8"),
    "readable_ns": (<char *>&_sample.readable_ns - <char *>&_sample, "i8"),
    "asked_ns": (<char *>&_sample.asked_ns - <char *>&_sample, "i8"),
    "copied_ns": (<char *>&_sample.copied_ns - <char *>&_sample, "i8"),
    "decode_ns": (<char *>&_sample.decode_ns - <char *>&_sample, "i8"),
    "received_ns": (<char *>&_sample.received_ns - <char *>&_sample, "i8"),
    "parsed_ns": (<char *>&_sample.parsed_ns - <char *>&_sample, "i8"),
    "published_ns": (<char *>&_sample.published_ns - <char *>&_sample, "i8"),
    "transaction_ns": (<char *>&_sample.transaction_ns - <char *>&_sample, "i8"),
    "leg_ns": (<char *>&_sample.leg_ns[0] - <char *>&_sample, f"({TP_LEGS},)i8"),
    "legs": (<char *>&_sample.legs - <char *>&_sample, "u4"),
    "stamps": (<char *>&_sample.stamps - <char *>&_sample, "u4"),
    "ordinal": (<char *>&_sample.ordinal - <char *>&_sample, "u4"),
    "length": (<char *>&_sample.length - <char *>&_sample, "u4"),
    "tcp_seq": (<char *>&_sample.tcp_seq - <char *>&_sample, "u4"),
    "row": (<char *>&_sample.row - <char *>&_sample, "u4"),
    "ring": (<char *>&_sample.ring - <char *>&_sample, "u2"),
    "label": (<char *>&_sample.label - <char *>&_sample, "u2"),
    "source": (<char *>&_sample.source - <char *>&_sample, "u1"),
    "method": (<char *>&_sample.method - <char *>&_sample, "u1"),
    "reason": (<char *>&_sample.reason - <char *>&_sample, "u1"),
    "tier": (<char *>&_sample.tier - <char *>&_sample, "u1"),
    "message_flags": (<char *>&_sample.message_flags - <char *>&_sample, "u1"),
    "span_flags": (<char *>&_sample.span_flags - <char *>&_sample, "u1"),
    "blocked": (<char *>&_sample.blocked - <char *>&_sample, "u1"),
    "missing": (<char *>&_sample.missing[0] - <char *>&_sample, f"({TP_LEGS},)u1"),
}


cdef str _text(const char *bytes_, size_t limit):
    return (<bytes>bytes_[:limit]).split(b"\0")[0].decode("utf-8", "replace")


cdef class CorrelatorCore:
    """The C correlator. poll, flush and view let go of the GIL; all methods may be called from any thread."""

    cdef tp_correlator *c
    cdef tp_drain *drain
    cdef readonly dict paths

    def __cinit__(self, *, int64_t window_ns, uint32_t match, uint32_t max_connections, uint32_t max_segments,
                  uint32_t max_pending, uint32_t max_labels, uint32_t max_series, uint32_t joined_capacity,
                  uint64_t memory_bytes, bint read_clock):
        cdef tp_correlator_limits limits
        limits.window_ns = window_ns
        limits.match = match
        limits.connections = max_connections
        limits.segments = max_segments
        limits.pending = max_pending
        limits.labels = max_labels
        limits.series = max_series
        limits.joined = joined_capacity
        limits.memory_bytes = memory_bytes
        self.paths = {}
        self.c = tp_correlator_new(&limits, read_clock)
        if self.c is NULL:
            raise MemoryError

    def __dealloc__(self):
        self.stop()
        if self.c is not NULL:
            tp_correlator_delete(self.c)

    def attach(self, path, bint from_start):
        cdef char why[512]
        cdef bytes name = os.fsencode(path)
        cdef const char *c_name = name
        cdef int ring
        with nogil:
            ring = tp_correlator_attach(self.c, c_name, from_start, why, sizeof(why))
        if ring < 0:
            raise RingError(why.decode("utf-8", "replace"))
        self.paths[ring] = path
        return ring

    def detach(self, uint32_t ring):
        cdef int error
        with nogil:
            error = tp_correlator_detach(self.c, ring)
        if error:
            raise RingError(f"no ring {ring} is attached")
        del self.paths[ring]

    def alive(self, uint32_t ring):
        cdef int alive
        with nogil:
            alive = tp_correlator_alive(self.c, ring)
        if alive == -ENOENT:
            raise RingError(f"no ring {ring} is attached")
        return alive == 1

    def inode(self, uint32_t ring):
        cdef uint64_t inode
        with nogil:
            inode = tp_correlator_inode(self.c, ring)
        return inode

    def poll(self, int64_t now_ns):
        cdef uint64_t handled
        with nogil:
            handled = tp_correlator_poll(self.c, now_ns)
        return handled

    def start(self, int64_t busy_ns, int64_t idle_ns, uint64_t behind_records):
        cdef tp_drain_pace pace
        cdef int error
        if self.drain is not NULL:
            raise RuntimeError("it polls already")
        pace.busy_ns = busy_ns
        pace.idle_ns = idle_ns
        pace.behind_records = behind_records
        error = tp_drain_start(self.c, &pace, &self.drain)
        if error:
            raise OSError(-error, os.strerror(-error))

    def stop(self):
        cdef tp_drain *drain = self.drain
        self.drain = NULL
        if drain is not NULL:
            with nogil:
                tp_drain_stop(drain)

    def polls(self):
        """(when the last poll of the thread began, its intervals); None: there is no thread."""
        cdef tp_drain_state state
        if self.drain is NULL:
            return None
        tp_drain_look(self.drain, &state)
        return state.last_ns, Histogram.of(&state.intervals)

    def flush(self, int64_t now_ns):
        with nogil:
            tp_correlator_flush(self.c, now_ns)

    def joined(self, uint8_t[::1] out not None):
        cdef size_t room = out.shape[0] // sizeof(tp_joined)
        cdef size_t taken
        if room == 0:
            return 0
        with nogil:
            taken = tp_correlator_joined(self.c, <tp_joined *>&out[0], room)
        return taken

    def view(self):
        """(labels, series, rings, clocks, totals, connects, pings, bounds) as plain tuples and dicts; exporter.correlator gives them names."""
        cdef tp_correlator_view view
        cdef int error
        with nogil:
            error = tp_correlator_get_view(self.c, &view)
        if error:
            raise MemoryError
        try:
            return (
                [_label(&view.labels[i]) for i in range(view.label_count)],
                [
                    (view.series[i].label, view.series[i].leg, view.series[i].source,
                     Histogram.of(&view.series[i].histogram), _exemplars(&view.series[i]))
                    for i in range(view.series_count)
                ],
                [_ring(&view.rings[i]) for i in range(view.ring_count)],
                [_clock(&view.clocks[i]) for i in range(view.clock_count)],
                _totals(&view.totals),
                (
                    [view.connects.results[i] for i in range(TP_CONNECT_RESULTS)],
                    [Histogram.of(&view.connects.latencies[i]) for i in range(2)],
                ),
                (
                    [_ping(&view.pings[i]) for i in range(view.ping_count)],
                    [
                        (view.ping_series[i].account, view.ping_series[i].way, view.ping_series[i].source,
                         Histogram.of(&view.ping_series[i].histogram))
                        for i in range(view.ping_series_count)
                    ],
                ),
                {i: view.bounds_ns[i] for i in range(TP_SOURCES) if view.bounds_ns[i] >= 0},
            )
        finally:
            tp_correlator_view_free(&view)


cdef list _exemplars(const tp_series *series):
    return [
        (kept.value_ns, kept.time_ns, kept.cookie, kept.ordinal)
        for kept in series.exemplars[:TP_EXEMPLARS] if kept.time_ns > 0
    ]


cdef dict _label(const tp_label *label):
    matched = {}
    for tier in range(TP_TIERS):
        for method in range(TP_METHODS):
            for source in range(TP_SOURCES):
                if label.matched[tier][method][source]:
                    matched[tier, method, source] = label.matched[tier][method][source]
    return {
        "venue": _text(label.venue, sizeof(label.venue)),
        "feed": _text(label.feed, sizeof(label.feed)),
        "messages": label.messages,
        "matched": matched,
        "unmatched": {r: label.unmatched[r] for r in range(TP_REASONS) if label.unmatched[r]},
        "missing": {
            (leg, r): label.missing[leg][r]
            for leg in range(TP_LEGS) for r in range(TP_REASONS) if label.missing[leg][r]
        },
        "negative": {leg: label.negative[leg] for leg in range(TP_LEGS) if label.negative[leg]},
        "hol_blocked": label.hol_blocked,
        "retransmitted": label.retransmitted,
        "reordered": label.reordered,
        "merged": label.merged,
        "ordinal_gaps": label.ordinal_gaps,
    }


cdef dict _ping(const tp_ping_account *account):
    return {
        "target": _text(account.target, sizeof(account.target)),
        "proto": account.proto,
        "results": [account.results[i] for i in range(TP_PING_RESULTS)],
        "no_stamp": account.no_stamp,
        "disbelieved": account.disbelieved,
        "unsplit": [account.unsplit[i] for i in range(TP_PING_SPLITS)],
        "split_bound_ns": account.split_bound_ns,
    }


cdef dict _ring(const tp_ring_state *ring):
    return {
        "ring": ring.ring,
        "alive": ring.alive == 1,
        "stopped": ring.stopped == 1,
        "lost": ring.lost,
        "skipped": ring.skipped,
        "cursor": ring.cursor,
        "name": _text(ring.name, sizeof(ring.name)),
        "kind": _text(ring.kind, sizeof(ring.kind)),
        "counters": {i: ring.counters[i] for i in range(TP_COUNTERS) if ring.counters[i]},
    }


cdef dict _clock(const tp_clock_state *clock):
    return {
        "clock": clock.clock,
        "device": clock.device,
        "steps": clock.steps,
        "offset_ns": clock.offset_ns,
        "bound_ns": clock.bound_ns,
        "max_error_ns": clock.max_error_ns,
    }


cdef dict _totals(const tp_correlator_totals *t):
    return {
        "records": t.records,
        "unknown_kinds": t.unknown_kinds,
        "malformed": t.malformed,
        "segments": t.segments,
        "segments_bad_checksum": t.segments_bad_checksum,
        "segments_retransmitted": t.segments_retransmitted,
        "segments_reordered": t.segments_reordered,
        "segments_late": t.segments_late,
        "segments_no_row": t.segments_no_row,
        "segments_unplaced": t.segments_unplaced,
        "spans_evicted": t.spans_evicted,
        "intervals_no_socket": t.intervals_no_socket,
        "reads_evicted": t.reads_evicted,
        "messages_evicted": t.messages_evicted,
        "messages_no_row": t.messages_no_row,
        "wide_lost": t.wide_lost,
        "connections_evicted": t.connections_evicted,
        "flows_evicted": t.flows_evicted,
        "labels_refused": t.labels_refused,
        "series_refused": t.series_refused,
        "joined_overrun": t.joined_overrun,
        "ends_backwards": t.ends_backwards,
        "pending": t.pending,
        "connections": t.connections,
        "flows": t.flows,
        "memory_bytes": t.memory_bytes,
    }


cdef class Timeline:
    """The correlator's clocks alone: what a stamp comes to after the readings before it."""

    cdef tp_timeline timeline

    def __cinit__(self):
        tp_timeline_init(&self.timeline)

    def place(self, uint32_t ring, const uint8_t[::1] records not None, int64_t[::1] times_ns not None,
              int64_t[::1] bounds_ns not None, int64_t[::1] errors not None):
        cdef Py_ssize_t i, count = records.shape[0] // TP_RECORD_BYTES
        cdef const tp_event *event
        cdef tp_placed at
        if ring >= TP_TIMELINE_SELF or count > min(times_ns.shape[0], bounds_ns.shape[0], errors.shape[0]):
            raise ValueError("no such ring, or no room for as many results as records")
        for i in range(count):
            event = <const tp_event *>&records[i * TP_RECORD_BYTES]
            errors[i] = 0
            if event.kind == TP_KIND_CLOCK:
                tp_timeline_reading(&self.timeline, ring, event)
            elif event.kind == TP_KIND_SEGMENT:
                at.time_ns = at.bound_ns = 0
                errors[i] = -tp_timeline_convert(&self.timeline, ring, event.clock, event.segment.ifindex,
                                                 event.time_ns, &at)
                times_ns[i] = at.time_ns
                bounds_ns[i] = at.bound_ns
