/* SPDX-License-Identifier: Apache-2.0
 *
 * Open addressing with linear probing; erasing shifts back, so that there are no tombstones to sweep.
 */
#include "tickpath/wire_flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04

static_assert(sizeof(struct tp_wire_tuple) == 36, "compared as bytes: no padding");

static uint32_t slot_of(const struct tp_wire_tuple *tuple, uint32_t mask) {
    uint64_t words[4], h = ((uint64_t)tuple->remote_port << 16 | tuple->local_port) * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(words, tuple->remote, sizeof(words)); /* both addresses: they are adjacent */
    for (int i = 0; i < 4; i++)
        h = (h ^ (h >> 29) ^ words[i]) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(h >> 32) & mask;
}

int tp_wire_flows_create(struct tp_wire_flows *flows, struct tp_ring_writer *ring, uint32_t rows, uint64_t netns) {
    uint32_t slots = 16;
    if (rows == 0 || rows > 0xffff)
        return -EINVAL;
    while (slots < 4 * rows)
        slots *= 2;
    memset(flows, 0, sizeof(*flows));
    flows->table = calloc(slots, sizeof(*flows->table));
    if (!flows->table)
        return -ENOMEM;
    flows->ring = ring;
    flows->mask = slots - 1;
    flows->limit = slots / 2;
    flows->netns = netns;
    return 0;
}

void tp_wire_flows_destroy(struct tp_wire_flows *flows) {
    free(flows->table);
    flows->table = NULL;
}

static bool same(const struct tp_wire_tuple *a, const struct tp_wire_tuple *b) {
    uint64_t x[4], y[4];
    memcpy(x, a->remote, sizeof(x)); /* both addresses: they are adjacent */
    memcpy(y, b->remote, sizeof(y));
    return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3])) == 0 && a->remote_port == b->remote_port &&
           a->local_port == b->local_port;
}

static struct tp_wire_flow *find(const struct tp_wire_flows *flows, const struct tp_wire_tuple *tuple) {
    for (uint32_t i = slot_of(tuple, flows->mask); flows->table[i].used; i = (i + 1) & flows->mask)
        if (same(&flows->table[i].tuple, tuple))
            return &flows->table[i];
    return NULL;
}

/* The same, and where it is will be looked at first. */
static struct tp_wire_flow *find_again(struct tp_wire_flows *flows, const struct tp_wire_tuple *tuple) {
    struct tp_wire_flow *flow = &flows->table[flows->last];
    if (flow->used && same(&flow->tuple, tuple))
        return flow;
    flow = find(flows, tuple);
    if (flow)
        flows->last = (uint32_t)(flow - flows->table);
    return flow;
}

static struct tp_wire_flow *insert(struct tp_wire_flows *flows, const struct tp_wire_tuple *tuple) {
    uint32_t i = slot_of(tuple, flows->mask);
    if (flows->used >= flows->limit)
        return NULL;
    while (flows->table[i].used)
        i = (i + 1) & flows->mask;
    flows->used++;
    memset(&flows->table[i], 0, sizeof(flows->table[i]));
    flows->table[i].used = true;
    flows->table[i].tuple = *tuple;
    return &flows->table[i];
}

static void erase(struct tp_wire_flows *flows, uint32_t hole) {
    for (uint32_t i = (hole + 1) & flows->mask; flows->table[i].used; i = (i + 1) & flows->mask) {
        uint32_t home = slot_of(&flows->table[i].tuple, flows->mask);
        /* It may move into the hole only if the hole lies on its way from home. */
        if (((i - home) & flows->mask) >= ((i - hole) & flows->mask)) {
            flows->table[hole] = flows->table[i];
            hole = i;
        }
    }
    flows->table[hole].used = false;
    flows->used--;
}

static void note(struct tp_wire_flows *flows, const struct tp_wire_flow *flow, enum tp_kind kind, int64_t at_ns) {
    struct tp_event event = {.kind = (uint8_t)kind, .clock = TP_CLOCK_MONOTONIC, .row = flow->row, .time_ns = at_ns};
    if (kind == TP_KIND_CLOSED && flow->has_irs)
        event.connection.bytes = flow->reached;
    tp_ring_write(flows->ring, &event);
}

static void open_row(struct tp_wire_flows *flows, struct tp_wire_flow *flow) {
    struct tp_row row = {.flags = flow->has_irs ? TP_ROW_HAS_IRS : 0, .netns = flows->netns, .irs = flow->irs};
    row.state = TP_ROW_OPEN;
    row.opened_ns = flow->opened_ns;
    memcpy(row.local, flow->tuple.local, sizeof(row.local));
    memcpy(row.remote, flow->tuple.remote, sizeof(row.remote));
    row.local_port = flow->tuple.local_port;
    row.remote_port = flow->tuple.remote_port;
    flow->row = tp_ring_row_open(flows->ring, &row);
    if (flow->row == TP_ROW_NONE)
        flow->refused = flows->closed;
    else
        note(flows, flow, TP_KIND_OPENED, flow->opened_ns);
}

static void close_row(struct tp_wire_flows *flows, struct tp_wire_flow *flow) {
    int64_t closed_ns = flow->ended_ns ? flow->ended_ns : flow->seen_ns;
    if (flow->row == TP_ROW_NONE)
        return;
    note(flows, flow, TP_KIND_CLOSED, closed_ns);
    tp_ring_row_close(flows->ring, flow->row, closed_ns);
    flow->row = TP_ROW_NONE;
    flows->closed++;
}

static void begin(struct tp_wire_flows *flows, struct tp_wire_flow *flow, const struct tp_wire_sighting *seen) {
    struct tp_wire_tuple tuple = flow->tuple;
    *flow = (struct tp_wire_flow){.tuple = tuple, .used = true, .row = TP_ROW_NONE, .opened_ns = seen->at_ns};
    flow->has_irs = seen->tcp_flags & TCP_SYN;
    flow->irs = flow->has_irs ? seen->seq : 0;
    flow->next_seq = seen->seq + flow->has_irs;
    open_row(flows, flow);
}

struct tp_wire_flow *tp_wire_flows_see(struct tp_wire_flows *flows, const struct tp_wire_sighting *seen) {
    bool syn = seen->tcp_flags & TCP_SYN, over = seen->tcp_flags & (TCP_FIN | TCP_RST);
    struct tp_wire_flow *flow = find_again(flows, &seen->tuple);

    if (!flow) {
        /* A refusal, or the last words of what is over already, open nothing. */
        if (!syn && (seen->length == 0 || seen->tcp_flags & TCP_RST))
            return NULL;
        flow = insert(flows, &seen->tuple);
        if (!flow) {
            tp_ring_count(flows->ring, TP_COUNT_ROWS_EXHAUSTED, 1);
            return NULL;
        }
        begin(flows, flow, seen);
    } else if (syn && !(flow->has_irs && flow->irs == seen->seq)) {
        close_row(flows, flow);
        begin(flows, flow, seen);
    } else if (flow->row == TP_ROW_NONE && flow->refused != flows->closed) {
        open_row(flows, flow); /* a row came free since */
    }

    tp_wire_flow_advance(flows, flow, seen->seq, syn ? 0 : seen->length, seen->at_ns);
    if (over && !flow->ended_ns)
        flow->ended_ns = seen->at_ns;
    return flow;
}

uint32_t tp_wire_flows_row(const struct tp_wire_flows *flows, const struct tp_wire_tuple *tuple) {
    return tp_wire_flow_row(find(flows, tuple));
}

void tp_wire_flows_expire(struct tp_wire_flows *flows, int64_t now_ns) {
    for (uint32_t i = 0; i <= flows->mask;) {
        struct tp_wire_flow *flow = &flows->table[i];
        if (flow->used && ((flow->ended_ns && now_ns - flow->ended_ns > TP_WIRE_LINGER_NS) ||
                           now_ns - flow->seen_ns > TP_WIRE_IDLE_NS)) {
            close_row(flows, flow);
            erase(flows, i); /* what shifted into this slot is looked at next */
        } else {
            i++;
        }
    }
}
