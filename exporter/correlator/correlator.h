/* SPDX-License-Identifier: Apache-2.0
 *
 * The correlator's face: records of any number of rings in, one result per message out, counted and in histograms.
 * docs/matching.md says what each figure means; correlator's files are, from the bottom: queue.h, timeline.c (clocks),
 * connections.c (who is who), join.c (records in), finish.c (a message's result), accounting.c (counters, histograms),
 * correlator.c (rings, the lock, the drain).
 *
 * Nothing here is thread-safe but tp_correlator_*: those take the lock.
 */
#ifndef TICKPATH_CORRELATOR_H
#define TICKPATH_CORRELATOR_H

#include <stdbool.h>

#include "exporter/correlator/tail.h"
#include "tickpath/event.h"
#include "tickpath/histogram.h"

/* Everything that is measured of a message: hops, their parts, and spans over several hops. */
enum tp_leg {
    TP_LEG_BN_TO_NIC = 0,
    TP_LEG_NIC_TO_KERNEL,
    TP_LEG_KERNEL_TO_USER,
    TP_LEG_CPU,
    TP_LEG_MSK,
    TP_LEG_HOL_WAIT, /* parts of nic_to_kernel */
    TP_LEG_STACK,
    TP_LEG_APP_BUSY, /* parts of kernel_to_user */
    TP_LEG_WAKE,
    TP_LEG_BACKLOG,
    TP_LEG_DECODE,
    TP_LEG_TOTAL, /* spans */
    TP_LEG_IN_HOST,
    TP_LEG_NIC_TO_USER,
    TP_LEGS,
};

enum tp_method {
    TP_METHOD_NONE = 0,
    TP_METHOD_OFFSET = 1, /* the exact byte */
    TP_METHOD_SOCKET = 2, /* same connection, order only */
    TP_METHOD_WINDOW = 3, /* nearest within 10 ms */
    TP_METHODS,
};

/* Why a message has no own arrival by offset (unmatched, when no lesser method found one either), or why a leg is
 * missing. docs/matching.md explains each to an operator; a test compares the two lists. */
enum tp_reason {
    TP_REASON_NONE = 0,
    TP_REASON_NO_WIRE,        /* no wire producer is attached, and the socket gave no stamp */
    TP_REASON_NO_FLOW,        /* no wire producer saw this connection */
    TP_REASON_AMBIGUOUS_FLOW, /* two flows or two connections fit */
    TP_REASON_NO_BASE,        /* where the stream begins is not known */
    TP_REASON_WIRE_GAP,       /* a byte that matters was never captured */
    TP_REASON_SOCK_NOT_LAST,  /* the socket's stamp is of the end of the read, and the message ends before it */
    TP_REASON_TIER_C,         /* the message end is an upper bound */
    TP_REASON_EVICTED,        /* given up early: too many messages were waiting */
    TP_REASON_ROW_LOST,       /* the connection's row was overwritten before its records were read */
    TP_REASON_CLOCK_STEP,     /* the stamp lies near a step of its clock */
    TP_REASON_CLOCK_UNKNOWN,  /* nobody publishes readings of the stamp's clock */
    TP_REASON_MIXED_SOURCES,  /* own and in-order arrival were stamped by different sources */
    TP_REASON_SOCK,           /* the socket's stamp says nothing about the bytes before */
    TP_REASON_NO_KERNEL,      /* no kernel probe is attached */
    TP_REASON_NO_SOCKET,      /* the kernel probe saw nothing of this connection */
    TP_REASON_READABLE_GAP,   /* a readable event was lost */
    TP_REASON_COPIED_GAP,     /* a copied event was lost */
    TP_REASON_NO_READ,        /* the read that returned the message is not known */
    TP_REASON_NO_EXCHANGE,    /* the message carries no event time */
    TP_REASON_NO_DECODE,      /* the feed did not say when decoding began */
    TP_REASON_NOT_PARSED,     /* its JSON was not read */
    TP_REASON_NOT_PUBLISHED,  /* it was not handed on */
    TP_REASON_WIDE_LOST,      /* its second record was lost: its own times do not fit the first */
    TP_REASONS,
};

#define TP_TIERS 4
#define TP_SOURCES 7

/* The result of one message. Times are monotonic; a stamp is there when its bit in `stamps` is set, a leg when its bit
 * (1 << enum tp_leg) is set in `legs`. */
enum tp_stamp {
    TP_STAMP_OWN = 0x01,
    TP_STAMP_IN_ORDER = 0x02,
    TP_STAMP_READABLE = 0x04,
    TP_STAMP_ASKED = 0x08,
    TP_STAMP_COPIED = 0x10,
    TP_STAMP_DECODE = 0x20,
    TP_STAMP_PARSED = 0x40,
    TP_STAMP_PUBLISHED = 0x80,
    TP_STAMP_EXCHANGE = 0x100,
};

struct tp_joined {
    uint64_t cookie;
    uint64_t end;
    uint64_t frame;      /* of the own arrival: the wire producer's count; 0 under source sock */
    int64_t exchange_ns; /* since 1970, as the venue says */
    int64_t offset_ns;   /* realtime - monotonic, with which exchange_ns was compared */
    int64_t own_ns;
    int64_t own_bound_ns; /* how far own_ns may be off, by its source and by its clock's conversion */
    int64_t last_copy_ns; /* of the last copy of those bytes that the same producer had shown by then; own_ns: none */
    int64_t in_order_ns;
    int64_t readable_ns;
    int64_t asked_ns;
    int64_t copied_ns;
    int64_t decode_ns;
    int64_t received_ns;
    int64_t parsed_ns;
    int64_t published_ns;
    int64_t transaction_ns; /* T - E; meaningful with TP_MESSAGE_HAS_TRANSACTION in `message_flags` */
    int64_t leg_ns[TP_LEGS];
    uint32_t legs;
    uint32_t stamps;
    uint32_t ordinal;
    uint32_t length;
    uint32_t tcp_seq; /* raw, of the byte before the message end; 0 while the base is unknown */
    uint32_t row;
    uint16_t ring;
    uint16_t label; /* index into the labels of a snapshot */
    uint8_t source;
    uint8_t method;
    uint8_t reason; /* why not offset; 0 when it is */
    uint8_t tier;
    uint8_t message_flags;
    uint8_t span_flags;       /* enum tp_span_flag of the own arrival */
    uint8_t blocked;          /* 1: in-order arrival later than own */
    uint8_t missing[TP_LEGS]; /* enum tp_reason per leg that is not there */
    uint8_t reserved[7];
};

static_assert(sizeof(struct tp_joined) % 8 == 0, "an array of results has no gaps");

/* One (venue, feed): everything that is counted about it. */
struct tp_label {
    char venue[TP_VENUE_BYTES + 1];
    char feed[TP_FEED_BYTES + 1];
    uint64_t messages; /* = sum of matched + sum of unmatched, always */
    uint64_t matched[TP_TIERS][TP_METHODS][TP_SOURCES];
    uint64_t unmatched[TP_REASONS];
    uint64_t missing[TP_LEGS][TP_REASONS];
    uint64_t negative[TP_LEGS];
    uint64_t hol_blocked;                       /* messages whose in-order arrival was later than their own */
    uint64_t retransmitted;                     /* whose own segment came more than once */
    uint64_t reordered;                         /* whose own segment came after bytes behind it */
    uint64_t merged;                            /* whose own segment came in a merged frame */
    uint64_t ordinal_gaps;                      /* messages that the connection counted and whose record never came */
    struct tp_tail *tails[TP_LEGS][TP_SOURCES]; /* NULL until first used */
};

/* Attempts to connect that kernel probes saw. */
struct tp_connects {
    uint64_t results[TP_CONNECT_RESULTS];
    struct tp_histogram latencies[2]; /* of those that succeeded: by IPv4, by IPv6 */
};

#define TP_PING_TARGETS 256u
#define TP_PING_SERIES 512u

/* What of a ping a histogram is of. */
enum tp_ping_way {
    TP_PING_WAY_RTT = 0,
    TP_PING_WAY_PATH, /* out and back together */
    TP_PING_WAY_OUT,
    TP_PING_WAY_BACK,
    TP_PING_WAYS,
};

/* Pings of one target by one protocol. */
struct tp_ping_account {
    char target[TP_STREAM_BYTES + 1]; /* empty with proto 0: of targets that found no room, or whose row was lost */
    uint8_t proto;                    /* enum tp_ping_proto */
    uint64_t results[TP_PING_RESULTS];
    uint64_t no_stamp;
    uint64_t disbelieved;
    uint64_t unsplit[TP_PING_SPLITS]; /* splits whose ways alone are not known, by why */
    int64_t split_bound_ns;           /* of the last one; INT64_MAX: not known; -1: none yet */
    /* NULL until first used; of replies, late ones too */
    struct tp_histogram *series[TP_PING_WAYS][TP_PING_SOURCES];
};

struct tp_ping_series {
    uint32_t account;
    uint32_t way;    /* enum tp_ping_way */
    uint32_t source; /* enum tp_ping_source, of a split the worse of both ends' */
    struct tp_histogram histogram;
};

/* What happened to the correlator itself. */
struct tp_correlator_totals {
    uint64_t records;
    uint64_t unknown_kinds;
    uint64_t malformed; /* records with a time or an offset that cannot be: not used */
    uint64_t segments;
    uint64_t segments_bad_checksum;
    uint64_t segments_retransmitted;
    uint64_t segments_reordered;
    uint64_t segments_late;       /* bytes that came behind what is still held */
    uint64_t segments_no_row;     /* of a flow whose row could not be read */
    uint64_t segments_unplaced;   /* whose clock cannot be converted */
    uint64_t spans_evicted;       /* a map was full */
    uint64_t intervals_no_socket; /* kernel records of a connection that found no room */
    uint64_t reads_evicted;
    uint64_t messages_evicted;
    uint64_t messages_no_row;
    uint64_t wide_lost;
    uint64_t connections_evicted;
    uint64_t flows_evicted;
    uint64_t labels_refused; /* messages counted under the overflow label, for want of room */
    uint64_t series_refused; /* observations without a histogram, for want of room */
    uint64_t joined_overrun; /* results overwritten before they were fetched */
    uint64_t ends_backwards; /* a message end before its predecessor's */
    uint64_t pending;
    uint64_t connections;
    uint64_t flows;
    uint64_t memory_bytes; /* of maps and queues */
};

struct tp_correlator_limits {
    int64_t window_ns;
    uint32_t match; /* the least method that histograms take: enum tp_method */
    uint32_t connections;
    uint32_t segments; /* per connection */
    uint32_t pending;  /* per connection */
    uint32_t labels;
    uint32_t series;
    uint32_t joined;
    uint64_t memory_bytes; /* of maps and queues in all */
};

struct tp_correlator;

/* A ring as a snapshot shows it. */
struct tp_ring_state {
    uint32_t ring;
    int alive;
    int stopped; /* of its own will */
    uint64_t lost;
    uint64_t skipped;
    uint64_t cursor;
    char name[64];
    char kind[16];
    uint64_t counters[TP_COUNTERS];
};

struct tp_clock_state {
    uint32_t clock;  /* enum tp_clock */
    uint32_t device; /* ifindex behind TP_CLOCK_NIC */
    uint64_t steps;
    int64_t offset_ns;
    int64_t bound_ns;
    int64_t max_error_ns; /* INT64_MAX: unknown */
};

struct tp_series {
    uint32_t label;
    uint32_t leg;
    uint32_t source;
    struct tp_histogram histogram;
    struct tp_exemplar exemplars[TP_EXEMPLARS];
};

/* Everything at one moment between two batches. Free with tp_correlator_view_free. */
struct tp_correlator_view {
    struct tp_label *labels; /* their tails' pointers are not to be followed */
    struct tp_series *series;
    struct tp_ring_state *rings;
    struct tp_clock_state *clocks;
    uint32_t label_count;
    uint32_t series_count;
    uint32_t ring_count;
    uint32_t clock_count;
    struct tp_ping_account *pings; /* their histograms' pointers are not to be followed */
    struct tp_ping_series *ping_series;
    uint32_t ping_count;
    uint32_t ping_series_count;
    struct tp_correlator_totals totals;
    struct tp_connects connects;
    int64_t bounds_ns[TP_SOURCES]; /* the largest of lately matched messages' own arrivals; -1: there was none */
};

/* NULL: out of memory. `read_clock`: take readings of this host's realtime clock at every poll. */
struct tp_correlator *tp_correlator_new(const struct tp_correlator_limits *, bool read_clock);
void tp_correlator_delete(struct tp_correlator *);

/* Reads from the ring's head on, or from its oldest record. Returns the ring's number, or a negative errno with one
 * line in `why`. */
int tp_correlator_attach(struct tp_correlator *, const char *path, bool from_start, char *why, size_t why_bytes);
/* 0, or -ENOENT. */
int tp_correlator_detach(struct tp_correlator *, uint32_t ring);
/* 1: the producer lives; 0: it does not; -ENOENT: no such ring. */
int tp_correlator_alive(struct tp_correlator *, uint32_t ring);
/* The attached file, to tell whether another has its name by now; 0: no such ring, or it was cut short. */
uint64_t tp_correlator_inode(struct tp_correlator *, uint32_t ring);

/* Drains the rings and finishes what need not wait; returns the records handled. now_ns < 0: the monotonic clock. */
uint64_t tp_correlator_poll(struct tp_correlator *, int64_t now_ns);
/* Finishes everything that waits. */
void tp_correlator_flush(struct tp_correlator *, int64_t now_ns);
size_t tp_correlator_joined(struct tp_correlator *, struct tp_joined *out, size_t max);
/* 0, or -ENOMEM. */
int tp_correlator_view(struct tp_correlator *, struct tp_correlator_view *out);
void tp_correlator_view_free(struct tp_correlator_view *);

#endif
