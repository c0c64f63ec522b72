# SPDX-License-Identifier: Apache-2.0
# event.h for Cython: the contract of the C side; offsets come from the header itself.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "tickpath/event.h" nogil:
    enum:
        TP_ABI_VERSION
        TP_RECORD_BYTES
        TP_ROW_BYTES
        TP_ROW_NONE
        TP_VENUE_BYTES
        TP_FEED_BYTES
        TP_STREAM_BYTES
        TP_COUNTERS

    enum tp_kind:
        TP_KIND_HELLO
        TP_KIND_BYE
        TP_KIND_OPENED
        TP_KIND_CLOSED
        TP_KIND_READ
        TP_KIND_MESSAGE
        TP_KIND_MESSAGE_WIDE
        TP_KIND_SEGMENT
        TP_KIND_READABLE
        TP_KIND_COPIED
        TP_KIND_CLOCK
        TP_KIND_CONNECT
        TP_KIND_PASSED
        TP_KIND_PING
        TP_KIND_PING_SPLIT

    enum tp_clock:
        TP_CLOCK_NONE
        TP_CLOCK_MONOTONIC
        TP_CLOCK_REALTIME
        TP_CLOCK_TAI
        TP_CLOCK_TSC
        TP_CLOCK_NIC
        TP_CLOCK_PHC

    enum tp_source:
        TP_SOURCE_NONE
        TP_SOURCE_HW
        TP_SOURCE_SW
        TP_SOURCE_POLL
        TP_SOURCE_HW_GRO
        TP_SOURCE_SW_GRO
        TP_SOURCE_SOCK

    enum tp_tier:
        TP_TIER_A
        TP_TIER_B
        TP_TIER_C

    enum tp_message_flag:
        TP_MESSAGE_RESOLUTION_MASK
        TP_MESSAGE_HAS_EXCHANGE
        TP_MESSAGE_HAS_TRANSACTION
        TP_MESSAGE_HAS_DECODE
        TP_MESSAGE_HAS_PARSED
        TP_MESSAGE_HAS_PUBLISHED
        TP_MESSAGE_WIDE

    enum tp_resolution:
        TP_RESOLUTION_MS
        TP_RESOLUTION_US
        TP_RESOLUTION_NS
        TP_RESOLUTION_S

    enum tp_read_flag:
        TP_READ_DRAINED

    enum tp_segment_flag:
        TP_SEGMENT_MERGED
        TP_SEGMENT_BAD_CSUM
        TP_SEGMENT_CUT

    enum tp_clock_flag:
        TP_CLOCK_SYNCHRONISED
        TP_CLOCK_STEPPED

    enum tp_row_state:
        TP_ROW_FREE
        TP_ROW_OPEN
        TP_ROW_CLOSED

    enum tp_transport:
        TP_TRANSPORT_UNKNOWN
        TP_TRANSPORT_WS
        TP_TRANSPORT_WSS12
        TP_TRANSPORT_WSS13

    enum tp_row_flag:
        TP_ROW_HAS_IRS
        TP_ROW_PROBE

    enum tp_counter:
        TP_COUNT_MESSAGES
        TP_COUNT_PARSE_FAILED
        TP_COUNT_PUBLISH_DROPPED
        TP_COUNT_CONNECTS
        TP_COUNT_CONNECT_FAILED
        TP_COUNT_FEED_GAPS
        TP_COUNT_CONTROL_FRAMES
        TP_COUNT_REPLIES
        TP_COUNT_FRAMES
        TP_COUNT_FRAMES_DROPPED
        TP_COUNT_FRAMES_MALFORMED
        TP_COUNT_FRAMES_FRAGMENT
        TP_COUNT_FRAMES_UNSTAMPED
        TP_COUNT_ROWS_EXHAUSTED
        TP_COUNT_PROTOCOL_ERRORS
        TP_COUNT_INTERFACE_LOST
        TP_COUNT_EVENTS_LOST
        TP_COUNT_UNSUPPORTED_TRANSPORT
        TP_COUNT_OUT_OF_ORDER
        TP_COUNT_RETRANSMITS
        TP_COUNT_NO_COOKIE
        TP_COUNT_HW_MISSING
        TP_COUNT_HW_GIVEN_UP
        TP_COUNT_PHC_READ_FAILED
        TP_COUNT_COST_READABLE_NS
        TP_COUNT_COST_COPIED_NS
        TP_COUNT_COST_STATE_NS
        TP_COUNT_COST_ASKED_NS
        TP_COUNT_RUNS_READABLE
        TP_COUNT_RUNS_COPIED
        TP_COUNT_RUNS_STATE
        TP_COUNT_RUNS_ASKED
        TP_COUNT_TOLD_READABLE
        TP_COUNT_TOLD_COPIED
        TP_COUNT_TOLD_STATE
        TP_COUNT_TOLD_ASKED
        TP_COUNT_DPDK_HELD
        TP_COUNT_DPDK_RECEIVED
        TP_COUNT_DPDK_PUBLISHED
        TP_COUNT_DPDK_OTHER
        TP_COUNT_DPDK_TO_KERNEL
        TP_COUNT_DPDK_FROM_KERNEL
        TP_COUNT_DPDK_TO_KERNEL_DROPPED
        TP_COUNT_DPDK_FROM_KERNEL_DROPPED
        TP_COUNT_DPDK_MISSED
        TP_COUNT_DPDK_ERRORS
        TP_COUNT_DPDK_HOLES
        TP_COUNT_DPDK_POLLS
        TP_COUNT_DPDK_POLLS_IDLE
        TP_COUNT_DPDK_BUSY_NS
        TP_COUNT_DPDK_RESIDENCE_NS
        TP_COUNT_DPDK_BOUND_NS
        TP_COUNT_DPDK_UNSTAMPED
        TP_COUNT_PING_STRAY
        TP_COUNT_PING_MALFORMED
        TP_COUNT_PING_SKIPPED
        TP_COUNT_PING_UNPAIRED
        TP_COUNT_RUNS_LEFT_OUT

    struct tp_message:
        int64_t exchange_ns
        uint64_t end
        uint32_t ordinal
        uint32_t length
        uint32_t decode_ns
        uint32_t parsed_ns
        uint32_t published_ns
        int32_t transaction_ns

    struct tp_message_wide:
        uint64_t length
        int64_t decode_ns
        int64_t parsed_ns
        int64_t published_ns
        int64_t transaction_ns

    struct tp_read:
        uint64_t from_ "from"
        uint64_t to
        uint64_t asked_ns
        int64_t sw_ns
        int64_t hw_ns

    struct tp_segment:
        uint64_t frame
        uint64_t seen_ns
        uint32_t seq
        uint32_t length
        uint32_t ack
        uint32_t ifindex
        uint32_t bound_ns
        uint16_t segments
        uint8_t tcp_flags

    struct tp_interval:
        uint64_t from_ "from"
        uint64_t to
        uint64_t cookie
        uint32_t seq
        uint32_t pid
        uint64_t asked_ns

    struct tp_connection:
        uint64_t cookie
        uint64_t bytes
        uint64_t messages

    enum tp_connect_result:
        TP_CONNECT_OPENED
        TP_CONNECT_REFUSED
        TP_CONNECT_TIMED_OUT
        TP_CONNECT_UNREACHABLE
        TP_CONNECT_ABORTED
        TP_CONNECT_OTHER

    struct tp_connect:
        uint64_t cookie
        uint64_t latency_ns
        uint64_t cgroup
        uint32_t pid
        uint16_t error
        uint8_t result
        uint8_t family

    struct tp_clock_reading:
        int64_t before_ns
        int64_t after_ns
        int64_t max_error_ns
        int64_t frequency
        int32_t tai_offset_s
        uint32_t device

    enum tp_ping_result:
        TP_PING_SENT
        TP_PING_REPLY
        TP_PING_LOST
        TP_PING_LATE
        TP_PING_DUPLICATE
        TP_PING_ERROR
        TP_PING_RESULTS

    enum tp_ping_source:
        TP_PING_SOURCE_NONE
        TP_PING_SOURCE_HW
        TP_PING_SOURCE_SW
        TP_PING_SOURCE_SOCK
        TP_PING_SOURCE_TCP_INFO
        TP_PING_SOURCE_APP
        TP_PING_SOURCES

    enum tp_ping_proto:
        TP_PING_PROTO_ICMP
        TP_PING_PROTO_UDP
        TP_PING_PROTO_TCP
        TP_PING_PROTOS

    enum tp_ping_flag:
        TP_PING_NO_STAMP
        TP_PING_DISBELIEVED

    struct tp_ping:
        uint64_t ordinal
        int64_t rtt_ns
        int64_t app_ns
        uint8_t offender[16]
        uint32_t behind_ns
        uint32_t length
        uint8_t result
        uint8_t proto
        uint8_t hops
        uint8_t icmp_type
        uint8_t icmp_code
        uint16_t error

    enum tp_ping_why:
        TP_PING_SPLIT_KNOWN
        TP_PING_SPLIT_NEAR_UNBOUND
        TP_PING_SPLIT_FAR_UNBOUND
        TP_PING_SPLIT_TOO_WIDE
        TP_PING_SPLIT_NIC
        TP_PING_SPLIT_UNBELIEVED
        TP_PING_SPLITS

    struct tp_ping_split:
        uint64_t ordinal
        int64_t path_ns
        int64_t out_ns
        int64_t bound_ns
        uint32_t turn_ns
        uint8_t far_source
        uint8_t why
        uint8_t proto

    struct tp_event:
        uint64_t seq
        uint8_t kind
        uint8_t clock
        uint8_t source
        uint8_t flags
        uint32_t row
        int64_t time_ns
        tp_message message
        tp_message_wide wide
        tp_read read
        tp_segment segment
        tp_interval interval
        tp_connection connection
        tp_connect connect
        tp_clock_reading reading
        tp_ping ping
        tp_ping_split split
        uint64_t words[5]

    struct tp_row:
        uint32_t version
        uint16_t generation
        uint8_t state
        uint8_t flags
        uint64_t cookie
        uint64_t netns
        int64_t opened_ns
        int64_t closed_ns
        uint8_t local[16]
        uint8_t remote[16]
        uint16_t local_port
        uint16_t remote_port
        uint32_t irs
        uint8_t transport
        uint32_t reconnects
        char venue[16]
        char comm[16]
        char feed[32]
        char stream[120]
