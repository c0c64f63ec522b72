/* SPDX-License-Identifier: Apache-2.0
 *
 * The connections that a wire source watches: 4-tuple to table row, in a fixed table that never allocates.
 *
 * A tuple is not a connection: the same one comes back with the next connect, so a SYN-ACK with another initial
 * sequence number closes the old row and opens a new one.
 */
#ifndef TICKPATH_WIRE_FLOWS_H
#define TICKPATH_WIRE_FLOWS_H

#include <stdbool.h>
#include <string.h>

#include "tickpath/ring.h"

/* After FIN or RST a row stays that long for what the peer sends again. */
#define TP_WIRE_LINGER_NS INT64_C(2000000000)
/* A connection without one frame for so long is over: venues ping every 3 minutes at the latest. */
#define TP_WIRE_IDLE_NS INT64_C(1800000000000)

/* As in struct tp_row: 16-byte addresses in network order, ports in host order, `remote` sends the data. */
struct tp_wire_tuple {
    uint8_t remote[16];
    uint8_t local[16];
    uint16_t remote_port;
    uint16_t local_port;
};

/* Which peers are watched: frames from `port` of `remote`. */
struct tp_wire_selector {
    uint8_t remote[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t port;
    bool any_remote;
};

static inline bool tp_wire_selected(const struct tp_wire_selector *selectors, uint32_t count,
                                    const struct tp_wire_tuple *tuple) {
    for (uint32_t i = 0; i < count; i++) {
        const struct tp_wire_selector *s = &selectors[i];
        if (s->port == tuple->remote_port &&
            (s->any_remote || memcmp(s->remote, tuple->remote, sizeof(tuple->remote)) == 0))
            return true;
    }
    return false;
}

/* What one frame says about its connection. */
struct tp_wire_sighting {
    struct tp_wire_tuple tuple;
    uint32_t seq;
    uint32_t length;
    uint8_t tcp_flags;
    int64_t at_ns; /* monotonic: the stamp, or the best that is known of it */
};

struct tp_wire_flow {
    struct tp_wire_tuple tuple;
    bool used;
    bool has_irs;
    uint32_t row; /* TP_ROW_NONE: no row was free */
    uint32_t irs;
    uint32_t next_seq; /* of the byte after the furthest seen */
    uint64_t reached;  /* its stream offset; without has_irs counted from the first frame seen */
    uint64_t refused;  /* value of `closed` of the table when a row was last refused */
    int64_t opened_ns;
    int64_t seen_ns;
    int64_t ended_ns; /* when FIN or RST came; 0: neither did */
};

struct tp_wire_flows {
    struct tp_ring_writer *ring;
    struct tp_wire_flow *table;
    uint32_t mask;
    uint32_t used;
    uint32_t last;   /* where the last tuple was found: frames come in trains */
    uint32_t limit;  /* most flows it takes: chains stay short */
    uint64_t netns;  /* for the rows */
    uint64_t closed; /* rows given back so far */
    uint64_t holes;  /* frames that began behind bytes nobody saw: lost before here, or yet to come out of order */
};

/* `rows`: how many the ring has; the table holds twice as many flows, so that one without a row is not counted with
 * every frame. -ENOMEM, -EINVAL (no rows). */
int tp_wire_flows_create(struct tp_wire_flows *, struct tp_ring_writer *, uint32_t rows, uint64_t netns);
void tp_wire_flows_destroy(struct tp_wire_flows *);

/* The flow that a frame belongs to, its row opened or changed as the frame demands; NULL where it has none. It stays
 * where it is, and that tuple's, until the next tp_wire_flows_expire. */
struct tp_wire_flow *tp_wire_flows_see(struct tp_wire_flows *, const struct tp_wire_sighting *);

static inline uint32_t tp_wire_flow_row(const struct tp_wire_flow *flow) {
    return flow ? flow->row : TP_ROW_NONE;
}

/* How far a frame's data brings its flow: all that one without SYN, FIN or RST does to it. */
static inline void tp_wire_flow_advance(struct tp_wire_flows *flows, struct tp_wire_flow *flow, uint32_t seq,
                                        uint32_t length, int64_t at_ns) {
    int32_t ahead = (int32_t)(seq + length - flow->next_seq);
    flow->seen_ns = at_ns;
    if (ahead > 0 && length) {
        flows->holes += (uint32_t)ahead > length;
        flow->next_seq += (uint32_t)ahead;
        flow->reached += (uint32_t)ahead;
        flow->ended_ns = 0; /* new bytes: an RST before was none that TCP took */
    }
}

/* The row that a tuple has now, nothing opened or changed: for a frame that TCP will not take. */
uint32_t tp_wire_flows_row(const struct tp_wire_flows *, const struct tp_wire_tuple *);

/* Closes what lingered or idled long enough. Cheap: call it about once a second. */
void tp_wire_flows_expire(struct tp_wire_flows *, int64_t now_ns);

#endif
