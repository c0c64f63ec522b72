/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The 64-byte record and the table row: the one ABI between C, BPF, Cython and numpy. Everything else derives from this
 * file; a change of any size, offset or number in it is a new TP_ABI_VERSION.
 *
 * Times are nanoseconds. A record's `time_ns` is the raw reading of the clock that `clock` names; only tickpath's clock
 * module converts. Stream offsets count the bytes that the peer sent on a connection; byte 0 is sequence IRS+1.
 */
#ifndef TICKPATH_EVENT_H
#define TICKPATH_EVENT_H

#ifndef __bpf__
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define TP_ABI_VERSION 1u
#define TP_RECORD_BYTES 64u
#define TP_ROW_BYTES 256u

/* What a record says. 0 is never written: a slot that was never filled reads as no record. */
enum tp_kind {
    TP_KIND_HELLO = 1,   /* a producer started; body unused */
    TP_KIND_BYE = 2,     /* it stopped of its own will; body unused */
    TP_KIND_OPENED = 3,  /* a connection has its row; body tp_connection */
    TP_KIND_CLOSED = 4,  /* it ended, the row will be used again; body tp_connection */
    TP_KIND_READ = 5,    /* one read of the application returned bytes; body tp_read */
    TP_KIND_MESSAGE = 6, /* one message, from received to published; body tp_message */
    TP_KIND_MESSAGE_WIDE =
        7, /* follows a MESSAGE flagged WIDE at once: the same fields, 64 bits each; body tp_message_wide */
    TP_KIND_SEGMENT = 8,  /* one TCP segment (or frame merged of several) on the wire; body tp_segment */
    TP_KIND_READABLE = 9, /* the kernel made [from, to) readable; body tp_interval */
    TP_KIND_COPIED = 10,  /* the kernel had copied [from, to) to user space; body tp_interval */
    TP_KIND_CLOCK = 11,   /* one bracketed reading of `clock`; body tp_clock_reading */
    TP_KIND_CONNECT = 12, /* what an attempt to connect came to; body tp_connect */
    TP_KIND_PASSED = 13,  /* kernel: no record of anything that was over before time_ns will follow; body unused */
    TP_KIND_PING = 14,    /* a ping was sent, or what became of it; body tp_ping */
    TP_KIND_PING_SPLIT =
        15, /* where the time of a ping that was answered went, as far as the far end says; body tp_ping_split */
};

enum tp_clock {
    TP_CLOCK_NONE = 0,
    TP_CLOCK_MONOTONIC = 1,
    TP_CLOCK_REALTIME = 2,
    TP_CLOCK_TAI = 3,
    TP_CLOCK_TSC = 4,
    TP_CLOCK_NIC = 5,    /* a NIC's free counter */
    TP_CLOCK_PHC = 0x40, /* 0x40 + index of the PTP hardware clock, up to 0x7f */
};

/* Who took a wire stamp: `source` of SEGMENT, and of what a message was joined with. Ordered best first. */
enum tp_source {
    TP_SOURCE_NONE = 0,
    TP_SOURCE_HW = 1,     /* the NIC */
    TP_SOURCE_SW = 2,     /* the kernel, at driver or stack entry */
    TP_SOURCE_POLL = 3,   /* a DPDK poll loop */
    TP_SOURCE_HW_GRO = 4, /* the NIC, on a merged frame: the first segment's, a lower bound for the others */
    TP_SOURCE_SW_GRO = 5, /* the kernel, on a frame merged, or held to be: the flush's, an upper bound */
    TP_SOURCE_SOCK = 6,   /* the socket's own control message, where a message ends what was read */
};

/* How a message end is known: `source` of MESSAGE and READ. */
enum tp_tier {
    TP_TIER_A = 1, /* stamped socket: exact */
    TP_TIER_B = 2, /* TCP_INFO arithmetic: exact without read-ahead */
    TP_TIER_C = 3, /* from outside: an upper bound, never method offset */
};

/* `flags` of MESSAGE; its two lowest bits are the resolution of the exchange time. */
enum tp_message_flag {
    TP_MESSAGE_RESOLUTION_MASK = 0x03, /* enum tp_resolution */
    TP_MESSAGE_HAS_EXCHANGE = 0x04,    /* exchange_ns is there */
    TP_MESSAGE_HAS_TRANSACTION = 0x08, /* transaction_ns is there */
    TP_MESSAGE_HAS_DECODE = 0x10,      /* decode_ns is there */
    TP_MESSAGE_HAS_PARSED = 0x20,      /* the JSON was read; else parsed_ns is meaningless */
    TP_MESSAGE_HAS_PUBLISHED = 0x40,   /* it was handed on; clear when the publisher's queue was full */
    TP_MESSAGE_WIDE = 0x80,            /* a field did not fit: a MESSAGE_WIDE follows and replaces those it repeats */
};

enum tp_resolution {
    TP_RESOLUTION_MS = 0,
    TP_RESOLUTION_US = 1,
    TP_RESOLUTION_NS = 2,
    TP_RESOLUTION_S = 3,
};

enum tp_read_flag {
    TP_READ_DRAINED = 0x01, /* fewer bytes came than the buffer could take: nothing lay behind them */
};

enum tp_segment_flag {
    TP_SEGMENT_MERGED = 0x01,   /* the kernel or the NIC merged several segments into this frame */
    TP_SEGMENT_BAD_CSUM = 0x02, /* TCP checksum verified and wrong: TCP will not take it */
    TP_SEGMENT_CUT = 0x04,      /* the capture holds headers only in part; seq and length are still true */
};

enum tp_clock_flag {
    TP_CLOCK_SYNCHRONISED = 0x01, /* adjtimex: the kernel believes in its UTC; max_error_ns is meaningful */
    TP_CLOCK_STEPPED = 0x02,      /* the clock was set since the reading before: a new epoch begins here */
};

/* A message. Everything it shares with other messages of one read stands in the READ record whose (from, to] holds
 * `end` (docs/decisions/0002). */
struct tp_message {
    int64_t exchange_ns;    /* event time E since 1970, in [E, E + resolution) */
    uint64_t end;           /* message end: stream offset */
    uint32_t ordinal;       /* nth message of its connection, from 0, modulo 2^32 */
    uint32_t length;        /* bytes of its payload, saturated only together with WIDE */
    uint32_t decode_ns;     /* received - decode began */
    uint32_t parsed_ns;     /* parsed - received */
    uint32_t published_ns;  /* published - parsed */
    int32_t transaction_ns; /* T - E */
}; /* time_ns: received, monotonic */

struct tp_message_wide {
    uint64_t length;
    int64_t decode_ns;
    int64_t parsed_ns;
    int64_t published_ns;
    int64_t transaction_ns;
};

/* One read by the application that returned stream bytes [from, to). */
struct tp_read {
    uint64_t from;
    uint64_t to;
    uint64_t asked_ns; /* monotonic, before the system call */
    int64_t sw_ns;     /* realtime; the socket's software RX stamp (last segment touched); 0: none came */
    int64_t hw_ns;     /* raw hardware RX stamp of the same; 0: none came */
}; /* time_ns: the call returned, monotonic */

struct tp_segment {
    uint64_t frame;   /* nth frame that the probe saw, so that a reader sees holes */
    uint64_t seen_ns; /* monotonic, when the probe handled it: never before the stamp */
    uint32_t seq;     /* raw sequence number of the first payload byte (of the SYN itself on a SYN) */
    uint32_t length;  /* payload bytes, by the IP header */
    uint32_t ack;     /* raw acknowledgement number */
    uint32_t ifindex;
    uint32_t bound_ns; /* half-width of what the stamp may be off by where the source knows it; 0: not known */
    uint16_t segments; /* how many were merged, 0 where not known, 1 for a plain frame */
    uint8_t tcp_flags; /* as on the wire */
    uint8_t reserved;
}; /* time_ns, clock, source: the stamp */

struct tp_interval {
    uint64_t from;
    uint64_t to;
    uint64_t cookie;   /* SO_COOKIE */
    uint32_t seq;      /* raw sequence number of `to` */
    uint32_t pid;      /* copied: the reader (initial pid namespace); readable: 0 */
    uint64_t asked_ns; /* copied: entry of the read that took it, monotonic; 0: not known */
};

struct tp_connection {
    uint64_t cookie;   /* 0: not known (wire) */
    uint64_t bytes;    /* CLOSED: stream offset reached */
    uint64_t messages; /* CLOSED: messages received on it */
    uint64_t reserved[2];
}; /* time_ns: monotonic */

/* What an attempt to connect came to: `result` of CONNECT. */
enum tp_connect_result {
    TP_CONNECT_OPENED = 0,
    TP_CONNECT_REFUSED = 1,     /* by the peer, or on its behalf: RST, port unreachable */
    TP_CONNECT_TIMED_OUT = 2,   /* nobody answered for as long as this host asked */
    TP_CONNECT_UNREACHABLE = 3, /* the network, this host's included, says that it cannot be reached */
    TP_CONNECT_ABORTED = 4,     /* given up on this host: closed, shut down, or its process ended */
    TP_CONNECT_OTHER = 5,       /* `error` says why; 0: nothing was sent, or its owner had taken the error */
    TP_CONNECT_RESULTS,
};

/* Its row has the addresses and, as `comm`, the name of the task that connected. */
struct tp_connect {
    uint64_t cookie;     /* 0: not known (bcc) */
    uint64_t latency_ns; /* from the connect call's turn to the SYN, before route and local port are looked for */
    uint64_t cgroup;     /* id of the task's version 2 cgroup */
    uint32_t pid;        /* of the process that connected, in the initial pid namespace */
    uint16_t error;      /* the socket's errno; 0: none */
    uint8_t result;      /* enum tp_connect_result */
    uint8_t family;      /* 4 or 6; IPv4 through an IPv6 socket is 4 */
    uint64_t reserved;
}; /* time_ns: it came to that, monotonic */

/* What became of a ping: `result` of PING. Each one that was SENT comes to exactly one of REPLY, LOST and ERROR. */
enum tp_ping_result {
    TP_PING_SENT = 0,
    TP_PING_REPLY = 1,     /* answered in time */
    TP_PING_LOST = 2,      /* not answered in time */
    TP_PING_LATE = 3,      /* answered after all: it was LOST before */
    TP_PING_DUPLICATE = 4, /* answered once more */
    TP_PING_ERROR = 5,     /* refused, unreachable, or could not be sent: `error`; `rtt_ns` is 0 */
    TP_PING_RESULTS,
};

/* What an RTT was taken with, both ends of it by one clock: `source` of PING. Ordered best first. */
enum tp_ping_source {
    TP_PING_SOURCE_NONE = 0,
    TP_PING_SOURCE_HW = 1,       /* sent and received: the NIC */
    TP_PING_SOURCE_SW = 2,       /* sent and received: the kernel, at the driver */
    TP_PING_SOURCE_SOCK = 3,     /* sent: the application, before the call; received: the kernel, at the driver */
    TP_PING_SOURCE_TCP_INFO = 4, /* TCP's own of SYN and SYN-ACK, in whole microseconds */
    TP_PING_SOURCE_APP = 5,      /* sent: before the call; received: after the call that gave it to the application */
    TP_PING_SOURCES,
};

enum tp_ping_proto {
    TP_PING_PROTO_ICMP = 1,
    TP_PING_PROTO_UDP = 2,
    TP_PING_PROTO_TCP = 3,
    TP_PING_PROTOS,
};

enum tp_ping_flag {
    TP_PING_NO_STAMP = 0x01,   /* the kernel was asked for stamps of both ends and did not give them */
    TP_PING_DISBELIEVED = 0x02 /* stamps came that cannot be: below 0, or beyond what the application saw */
};

/* Its row has the target's address, its name as `stream`, and the protocol's as `venue`. */
struct tp_ping {
    uint64_t ordinal; /* nth sent to the target, from 0 */
    union {
        struct {
            int64_t rtt_ns;
            int64_t app_ns; /* the same by the application's clock: never less but by what the clocks differ */
        };
        uint8_t offender[16]; /* ERROR: who said so, as a row's addresses; zeros: this host, or not known */
    };
    uint32_t behind_ns; /* sent so much later than planned, saturated */
    uint32_t length;    /* of the reply: ICMP header and data, or UDP payload */
    uint8_t result;     /* enum tp_ping_result */
    uint8_t proto;      /* enum tp_ping_proto */
    uint8_t hops;       /* TTL or hop limit that the reply had left; 0: not known */
    uint8_t icmp_type;  /* ERROR: of the message that said so; 0 and 0: none did */
    uint8_t icmp_code;
    uint8_t reserved;
    uint16_t error; /* ERROR: the errno */
}; /* time_ns: monotonic; SENT: before the call, else when the application knew */

/* What is known of each way alone: `why` of PING_SPLIT. */
enum tp_ping_why {
    TP_PING_SPLIT_KNOWN = 0,        /* out_ns, and back: path_ns - out_ns; each to bound_ns */
    TP_PING_SPLIT_NEAR_UNBOUND = 1, /* not known: this host's clock has no bound on UTC */
    TP_PING_SPLIT_FAR_UNBOUND = 2,  /* not known: the far host's has none */
    TP_PING_SPLIT_TOO_WIDE = 3,     /* not known: the bound is wider than the RTT itself */
    TP_PING_SPLIT_NIC = 4,          /* not known: of stamps of two NICs, whose clocks are no host's */
    TP_PING_SPLIT_UNBELIEVED =
        5, /* the far end's times cannot be: longer than the RTT, or set in between; no path_ns */
    TP_PING_SPLITS,
};

/* Follows the REPLY or LATE of the same row and ordinal. RTT = path + turn, by stamps of one clock each; `source` is of
 * this end's. */
struct tp_ping_split {
    uint64_t ordinal;
    int64_t path_ns;    /* out and back together: needs no clocks to agree */
    int64_t out_ns;     /* KNOWN: far end's arrival - this end's sending; below 0 is evidence of clock error */
    int64_t bound_ns;   /* of both clocks together; INT64_MAX: not known */
    uint32_t turn_ns;   /* at the far end: from the request's arrival to the answer's leaving */
    uint8_t far_source; /* enum tp_ping_source, of both ends of turn_ns */
    uint8_t why;        /* enum tp_ping_why */
    uint8_t proto;      /* enum tp_ping_proto */
    uint8_t reserved;
}; /* time_ns: both the answer and the far end's times were there, monotonic */

struct tp_clock_reading {
    int64_t before_ns;    /* monotonic, before the reading */
    int64_t after_ns;     /* monotonic, after it: the reading belongs to some moment between */
    int64_t max_error_ns; /* adjtimex maxerror; INT64_MAX: unknown */
    int64_t frequency;    /* adjtimex freq, 2^-16 ppm */
    int32_t tai_offset_s; /* TAI - UTC as the kernel holds it; 0: nobody has set it */
    uint32_t device;      /* PHC index, NIC ifindex; else 0 */
}; /* time_ns: the reading of `clock` */

struct tp_event {
    uint64_t seq; /* the ring's: 1 for the first record ever written; 0 while a slot is being written */
    uint8_t kind;
    uint8_t clock;
    uint8_t source;
    uint8_t flags;
    uint32_t row; /* tp_row_index | tp_row_generation << 16; TP_ROW_NONE where the record belongs to none */
    int64_t time_ns;
    union {
        struct tp_message message;
        struct tp_message_wide wide;
        struct tp_read read;
        struct tp_segment segment;
        struct tp_interval interval;
        struct tp_connection connection;
        struct tp_connect connect;
        struct tp_clock_reading reading;
        struct tp_ping ping;
        struct tp_ping_split split;
        uint64_t words[5];
    };
};

#define TP_ROW_NONE 0xffffffffu

/* What does not fit 64 bytes: one row per connection (feed, kernel) or flow (wire), read under a seqlock. Addresses are
 * always 16 bytes, IPv4 as ::ffff:a.b.c.d, in network order; ports in host order. `remote` is the peer that sends the
 * data. */
enum tp_row_state { TP_ROW_FREE = 0, TP_ROW_OPEN = 1, TP_ROW_CLOSED = 2 };

enum tp_transport {
    TP_TRANSPORT_UNKNOWN = 0,
    TP_TRANSPORT_WS = 1,
    TP_TRANSPORT_WSS12 = 2, /* TLS 1.2 */
    TP_TRANSPORT_WSS13 = 3, /* TLS 1.3 */
};

enum tp_row_flag {
    TP_ROW_HAS_IRS = 0x01, /* irs is known */
    TP_ROW_PROBE = 0x02,   /* no connection: how the probe named in `feed` sees, `stream` is HOOK=MODE words */
};

#define TP_VENUE_BYTES 16
#define TP_FEED_BYTES 32
#define TP_STREAM_BYTES 120

struct tp_row {
    uint32_t version; /* seqlock: odd while it is being written */
    uint16_t generation;
    uint8_t state;
    uint8_t flags;
    uint64_t cookie;   /* SO_COOKIE; 0: not known */
    uint64_t netns;    /* inode of the network namespace; 0: not known */
    int64_t opened_ns; /* monotonic; wire: of the first frame seen */
    int64_t closed_ns; /* monotonic; 0 while open */
    uint8_t local[16];
    uint8_t remote[16];
    uint16_t local_port;
    uint16_t remote_port;
    uint32_t irs; /* the peer's initial sequence number */
    uint8_t transport;
    uint8_t reserved[3];
    uint32_t reconnects; /* how many connections of this feed came before it */
    union {
        char venue[TP_VENUE_BYTES]; /* UTF-8, zero-padded, not necessarily terminated */
        char comm[TP_VENUE_BYTES];  /* kernel: name of the task that connected, any bytes; empty: not seen to connect */
    };
    char feed[TP_FEED_BYTES];
    char stream[TP_STREAM_BYTES]; /* what was subscribed, shortened with a trailing '~' where it does not fit */
};

/* Running totals of a ring, in its header page: they cannot be overwritten, and a successor of the producer goes on
 * with them. */
enum tp_counter {
    TP_COUNT_MESSAGES = 0,          /* feed: messages received */
    TP_COUNT_PARSE_FAILED = 1,      /* feed: messages whose JSON could not be read */
    TP_COUNT_PUBLISH_DROPPED = 2,   /* feed: the publisher's queue was full */
    TP_COUNT_CONNECTS = 3,          /* feed: connections opened */
    TP_COUNT_CONNECT_FAILED = 4,    /* feed: attempts that did not become one */
    TP_COUNT_FEED_GAPS = 5,         /* feed: venue sequence numbers skipped */
    TP_COUNT_CONTROL_FRAMES = 6,    /* feed: pings, pongs, closes */
    TP_COUNT_REPLIES = 7,           /* feed: subscription replies */
    TP_COUNT_FRAMES = 8,            /* wire: frames that passed the filter */
    TP_COUNT_FRAMES_DROPPED = 9,    /* wire: dropped by the kernel before the probe saw them */
    TP_COUNT_FRAMES_MALFORMED = 10, /* wire: not parsed */
    TP_COUNT_FRAMES_FRAGMENT = 11,  /* wire: IP fragments, which carry no whole TCP header or segment */
    TP_COUNT_FRAMES_UNSTAMPED = 12, /* wire: recorded, but stamped only when the packet tap ran (loopback, veth) */
    TP_COUNT_ROWS_EXHAUSTED = 13,   /* connections that found no free row */
    TP_COUNT_PROTOCOL_ERRORS = 14,  /* feed: connections ended by what the peer sent */
    TP_COUNT_INTERFACE_LOST = 15,   /* wire: the interface went down or away; what came meanwhile is not known */

    TP_COUNT_EVENTS_LOST = 16,           /* kernel: what was seen and could not be handed on; its intervals are gaps */
    TP_COUNT_UNSUPPORTED_TRANSPORT = 17, /* kernel: connections whose bytes cannot be told by sequence numbers (kTLS,
                                            MPTCP, urgent data, repaired) */
    TP_COUNT_OUT_OF_ORDER = 18,          /* kernel: segments that came before bytes that precede theirs */
    TP_COUNT_RETRANSMITS = 19,           /* kernel: segments that this host sent again */
    TP_COUNT_NO_COOKIE = 20, /* kernel: events of sockets that nothing can name yet, as kprobes find them; not told */

    TP_COUNT_HW_MISSING = 21,      /* wire: frames that the NIC had not stamped while it was to stamp all */
    TP_COUNT_HW_GIVEN_UP = 22,     /* wire: times that a NIC was found to stamp nothing, and software stamps taken */
    TP_COUNT_PHC_READ_FAILED = 23, /* wire: readings of a NIC's clock that failed */

    /* kernel, while its cost is asked for, of each hook's programs: */
    TP_COUNT_COST_READABLE_NS = 24, /* time that they ran */
    TP_COUNT_COST_COPIED_NS = 25,
    TP_COUNT_COST_STATE_NS = 26,
    TP_COUNT_COST_ASKED_NS = 27,
    TP_COUNT_RUNS_READABLE = 28, /* how often, for sockets that are not selected too */
    TP_COUNT_RUNS_COPIED = 29,
    TP_COUNT_RUNS_STATE = 30,
    TP_COUNT_RUNS_ASKED = 31,
    TP_COUNT_TOLD_READABLE = 32, /* records that they gave */
    TP_COUNT_TOLD_COPIED = 33,
    TP_COUNT_TOLD_STATE = 34,
    TP_COUNT_TOLD_ASKED = 35,

    /* DPDK, of each poll loop: */
    TP_COUNT_DPDK_HELD = 39,                /* inline: polls after which frames of the kernel waited for the port */
    TP_COUNT_DPDK_RECEIVED = 40,            /* frames that the poll loop took from its queue */
    TP_COUNT_DPDK_PUBLISHED = 41,           /* of them: SEGMENT records written */
    TP_COUNT_DPDK_OTHER = 42,               /* of them: not TCP, or of peers that are not watched */
    TP_COUNT_DPDK_TO_KERNEL = 43,           /* inline: frames handed to the kernel */
    TP_COUNT_DPDK_FROM_KERNEL = 44,         /* inline: frames of the kernel that the port took */
    TP_COUNT_DPDK_TO_KERNEL_DROPPED = 45,   /* inline: frames that the kernel's side did not take */
    TP_COUNT_DPDK_FROM_KERNEL_DROPPED = 46, /* inline: frames of the kernel that the port did not take */
    TP_COUNT_DPDK_MISSED = 47,              /* frames that the port dropped for want of descriptors (imissed) */
    TP_COUNT_DPDK_ERRORS = 48, /* frames that the port could not receive: errors, no buffer (ierrors, rx_nombuf) */
    TP_COUNT_DPDK_HOLES = 49,  /* segments that began behind bytes nobody saw: lost before the loop, or out of order */
    TP_COUNT_DPDK_POLLS = 50,  /* polls of the queue */
    TP_COUNT_DPDK_POLLS_IDLE = 51,   /* of them: with nothing there */
    TP_COUNT_DPDK_BUSY_NS = 52,      /* time spent on what polls brought */
    TP_COUNT_DPDK_RESIDENCE_NS = 53, /* P99 over the last second of a burst's time in the loop; not a total */
    TP_COUNT_DPDK_BOUND_NS = 54,     /* P99 over the last second of what a stamp may be off by; not a total */
    TP_COUNT_DPDK_UNSTAMPED = 55,    /* frames without the hardware stamp that was asked for; stamped by the poll */

    TP_COUNT_PING_STRAY = 56,     /* ping: replies to nothing that is remembered */
    TP_COUNT_PING_MALFORMED = 57, /* ping: replies cut short, damaged, or not what was sent */
    TP_COUNT_PING_SKIPPED = 58,   /* ping: planned and not sent, having fallen too far behind */
    TP_COUNT_PING_UNPAIRED = 59,  /* ping: stamps of sending that belong to nothing that is remembered */

    TP_COUNT_RUNS_LEFT_OUT = 60, /* kernel: runs of a program that the kernel left out amid another, for any socket of
                                    the host's; nothing stands in for them */
    TP_COUNTERS = 64,
};

#ifndef __bpf__
static_assert(sizeof(struct tp_event) == TP_RECORD_BYTES, "a record is 64 bytes");
static_assert(offsetof(struct tp_event, words) == 24, "a body starts at 24");
static_assert(sizeof(struct tp_message) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_message_wide) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_read) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_segment) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_interval) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_connection) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_connect) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_clock_reading) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_ping) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_ping_split) == 40, "a body is 40 bytes");
static_assert(sizeof(struct tp_row) == TP_ROW_BYTES, "a row is 256 bytes");
#endif

#endif
