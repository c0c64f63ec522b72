# SPDX-License-Identifier: Apache-2.0
"""The C contract of correlator.h."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tickpath._event cimport tp_event
from tickpath._histogram cimport tp_histogram


cdef extern from "exporter/correlator/correlator.h" nogil:
    enum:
        TP_LEGS
        TP_TIERS
        TP_METHODS
        TP_SOURCES
        TP_REASONS
        TP_COUNTERS
        TP_CONNECT_RESULTS
        TP_PING_RESULTS
        TP_PING_SPLITS
        TP_CLOCK_PHC

    enum tp_leg:
        TP_LEG_BN_TO_NIC
        TP_LEG_NIC_TO_KERNEL
        TP_LEG_KERNEL_TO_USER
        TP_LEG_CPU
        TP_LEG_MSK
        TP_LEG_HOL_WAIT
        TP_LEG_STACK
        TP_LEG_APP_BUSY
        TP_LEG_WAKE
        TP_LEG_BACKLOG
        TP_LEG_DECODE
        TP_LEG_TOTAL
        TP_LEG_IN_HOST
        TP_LEG_NIC_TO_USER

    enum tp_method:
        TP_METHOD_OFFSET
        TP_METHOD_SOCKET
        TP_METHOD_WINDOW

    enum tp_reason:
        TP_REASON_NONE
        TP_REASON_NO_WIRE
        TP_REASON_NO_FLOW
        TP_REASON_AMBIGUOUS_FLOW
        TP_REASON_NO_BASE
        TP_REASON_WIRE_GAP
        TP_REASON_SOCK_NOT_LAST
        TP_REASON_TIER_C
        TP_REASON_EVICTED
        TP_REASON_ROW_LOST
        TP_REASON_CLOCK_STEP
        TP_REASON_CLOCK_UNKNOWN
        TP_REASON_MIXED_SOURCES
        TP_REASON_SOCK
        TP_REASON_NO_KERNEL
        TP_REASON_NO_SOCKET
        TP_REASON_READABLE_GAP
        TP_REASON_COPIED_GAP
        TP_REASON_NO_READ
        TP_REASON_NO_EXCHANGE
        TP_REASON_NO_DECODE
        TP_REASON_NOT_PARSED
        TP_REASON_NOT_PUBLISHED
        TP_REASON_WIDE_LOST

    enum tp_stamp:
        TP_STAMP_OWN
        TP_STAMP_IN_ORDER
        TP_STAMP_READABLE
        TP_STAMP_ASKED
        TP_STAMP_COPIED
        TP_STAMP_DECODE
        TP_STAMP_PARSED
        TP_STAMP_PUBLISHED
        TP_STAMP_EXCHANGE

    struct tp_joined:
        uint64_t cookie
        uint64_t end
        uint64_t frame
        int64_t exchange_ns
        int64_t offset_ns
        int64_t own_ns
        int64_t own_bound_ns
        int64_t last_copy_ns
        int64_t in_order_ns
        int64_t readable_ns
        int64_t asked_ns
        int64_t copied_ns
        int64_t decode_ns
        int64_t received_ns
        int64_t parsed_ns
        int64_t published_ns
        int64_t transaction_ns
        int64_t leg_ns[TP_LEGS]
        uint32_t legs
        uint32_t stamps
        uint32_t ordinal
        uint32_t length
        uint32_t tcp_seq
        uint32_t row
        uint16_t ring
        uint16_t label
        uint8_t source
        uint8_t method
        uint8_t reason
        uint8_t tier
        uint8_t message_flags
        uint8_t span_flags
        uint8_t blocked
        uint8_t missing[TP_LEGS]

    struct tp_label:
        char venue[1]
        char feed[1]
        uint64_t messages
        uint64_t matched[TP_TIERS][TP_METHODS][TP_SOURCES]
        uint64_t unmatched[TP_REASONS]
        uint64_t missing[TP_LEGS][TP_REASONS]
        uint64_t negative[TP_LEGS]
        uint64_t hol_blocked
        uint64_t retransmitted
        uint64_t reordered
        uint64_t merged
        uint64_t ordinal_gaps

    struct tp_connects:
        uint64_t results[TP_CONNECT_RESULTS]
        tp_histogram latencies[2]

    enum tp_ping_way:
        TP_PING_WAY_RTT
        TP_PING_WAY_PATH
        TP_PING_WAY_OUT
        TP_PING_WAY_BACK

    struct tp_ping_account:
        char target[121]
        uint8_t proto
        uint64_t results[TP_PING_RESULTS]
        uint64_t no_stamp
        uint64_t disbelieved
        uint64_t unsplit[TP_PING_SPLITS]
        int64_t split_bound_ns

    struct tp_ping_series:
        uint32_t account
        uint32_t way
        uint32_t source
        tp_histogram histogram

    struct tp_correlator_totals:
        uint64_t records
        uint64_t unknown_kinds
        uint64_t malformed
        uint64_t segments
        uint64_t segments_bad_checksum
        uint64_t segments_retransmitted
        uint64_t segments_reordered
        uint64_t segments_late
        uint64_t segments_no_row
        uint64_t segments_unplaced
        uint64_t spans_evicted
        uint64_t intervals_no_socket
        uint64_t reads_evicted
        uint64_t messages_evicted
        uint64_t messages_no_row
        uint64_t wide_lost
        uint64_t connections_evicted
        uint64_t flows_evicted
        uint64_t labels_refused
        uint64_t series_refused
        uint64_t joined_overrun
        uint64_t ends_backwards
        uint64_t pending
        uint64_t connections
        uint64_t flows
        uint64_t memory_bytes

    struct tp_correlator_limits:
        int64_t window_ns
        uint32_t match
        uint32_t connections
        uint32_t segments
        uint32_t pending
        uint32_t labels
        uint32_t series
        uint32_t joined
        uint64_t memory_bytes

    struct tp_ring_state:
        uint32_t ring
        int alive
        int stopped
        uint64_t lost
        uint64_t skipped
        uint64_t cursor
        char name[64]
        char kind[16]
        uint64_t counters[TP_COUNTERS]

    struct tp_clock_state:
        uint32_t clock
        uint32_t device
        uint64_t steps
        int64_t offset_ns
        int64_t bound_ns
        int64_t max_error_ns

    enum:
        TP_EXEMPLARS

    struct tp_exemplar:
        int64_t value_ns
        int64_t time_ns
        uint64_t cookie
        uint32_t ordinal

    struct tp_series:
        uint32_t label
        uint32_t leg
        uint32_t source
        tp_histogram histogram
        tp_exemplar exemplars[TP_EXEMPLARS]

    struct tp_correlator_view:
        tp_label *labels
        tp_series *series
        tp_ring_state *rings
        tp_clock_state *clocks
        uint32_t label_count
        uint32_t series_count
        uint32_t ring_count
        uint32_t clock_count
        tp_ping_account *pings
        tp_ping_series *ping_series
        uint32_t ping_count
        uint32_t ping_series_count
        tp_correlator_totals totals
        tp_connects connects
        int64_t bounds_ns[7]

    struct tp_correlator:
        pass

    tp_correlator *tp_correlator_new(const tp_correlator_limits *limits, bint read_clock)
    void tp_correlator_delete(tp_correlator *c)
    int tp_correlator_attach(tp_correlator *c, const char *path, bint from_start, char *why, size_t why_bytes)
    int tp_correlator_detach(tp_correlator *c, uint32_t ring)
    int tp_correlator_alive(tp_correlator *c, uint32_t ring)
    uint64_t tp_correlator_inode(tp_correlator *c, uint32_t ring)
    uint64_t tp_correlator_poll(tp_correlator *c, int64_t now_ns)
    void tp_correlator_flush(tp_correlator *c, int64_t now_ns)
    size_t tp_correlator_joined(tp_correlator *c, tp_joined *out, size_t max)
    int tp_correlator_get_view "tp_correlator_view" (tp_correlator *c, tp_correlator_view *out)
    void tp_correlator_view_free(tp_correlator_view *view)


cdef extern from "exporter/correlator/drain.h" nogil:
    struct tp_drain:
        pass

    struct tp_drain_pace:
        int64_t busy_ns
        int64_t idle_ns
        uint64_t behind_records

    struct tp_drain_state:
        int64_t last_ns
        tp_histogram intervals

    int tp_drain_start(tp_correlator *c, const tp_drain_pace *pace, tp_drain **out)
    void tp_drain_stop(tp_drain *d)
    void tp_drain_look(tp_drain *d, tp_drain_state *out)


cdef extern from "exporter/correlator/timeline.h" nogil:
    enum: TP_TIMELINE_SELF
    struct tp_placed:
        int64_t time_ns
        int64_t bound_ns
        int64_t offset_ns
    struct tp_timeline:
        uint64_t refused
    void tp_timeline_init(tp_timeline *)
    void tp_timeline_reading(tp_timeline *, uint32_t ring, const tp_event *)
    int tp_timeline_convert(const tp_timeline *, uint32_t ring, uint8_t clock, uint32_t device, int64_t stamp_ns,
                            tp_placed *out)
