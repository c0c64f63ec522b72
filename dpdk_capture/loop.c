/* SPDX-License-Identifier: Apache-2.0
 *
 * What is measured must not wait for what measures: nothing here allocates, locks, or calls the kernel, but for a clock
 * and the few things that are done ten times a second.
 */
#include "dpdk_capture/loop.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <string.h>
#include <unistd.h>

#include "tickpath/packet.h"

#define HOUSE_PER_S 10
#define FIRST_READINGS 3
#define FIRST_PAUSE_US 10000
#define SECOND_NS INT64_C(1000000000)
#define PREFETCH 8u
#define SLOTS_AHEAD 16u

static void read_clock(struct tp_dpdk_loop *loop) {
    struct tp_event event;
    if (loop->first && tp_dpdk_stamps_read(loop->stamps, &event) == 0)
        tp_ring_write(loop->ring, &event);
}

static void forget(struct tp_dpdk_loop *loop) {
    for (unsigned i = 0; i < 1 << TP_DPDK_KNOWN_BITS; i++)
        tp_packet_look_none(&loop->known[i].look);
    loop->latest = loop->known;
}

void tp_dpdk_loop_prepare(struct tp_dpdk_loop *loop) {
    loop->ns_per_tsc = 1e9 / (double)loop->stamps->tsc_hz;
    loop->second_ns = tp_monotonic_ns();
    forget(loop);
    tp_histogram_reset(&loop->residence);
    tp_histogram_reset(&loop->bounds);
    for (int i = 0; i < FIRST_READINGS; i++) {
        read_clock(loop);
        usleep(FIRST_PAUSE_US);
    }
    read_clock(loop);
}

static void count(struct tp_dpdk_loop *loop, enum tp_counter counter, uint64_t *value) {
    if (*value)
        tp_ring_count(loop->ring, counter, *value);
    *value = 0;
}

static void count_risen(struct tp_dpdk_loop *loop, enum tp_counter counter, uint64_t now, uint64_t *told) {
    if (now > *told)
        tp_ring_count(loop->ring, counter, now - *told);
    *told = now;
}

/* Shown as it is now, not added up; what a predecessor left goes with it. */
static void show(struct tp_dpdk_loop *loop, enum tp_counter counter, struct tp_histogram *histogram) {
    int64_t p99_ns = 0;
    tp_histogram_quantile_ns(histogram, 0.99, &p99_ns);
    atomic_store_explicit(&loop->ring->header->counters[counter], (uint64_t)p99_ns, memory_order_relaxed);
    tp_histogram_reset(histogram);
}

static void publish_totals(struct tp_dpdk_loop *loop) {
    struct tp_dpdk_tally *t = &loop->tally;
    uint64_t busy_ns = (uint64_t)((double)t->busy_tsc * loop->ns_per_tsc);
    uint64_t published = loop->frames - loop->frames_told;
    uint64_t passed = published + t->malformed + t->fragments;
    t->busy_tsc = 0;
    loop->frames_told = loop->frames;
    count(loop, TP_COUNT_DPDK_BUSY_NS, &busy_ns);
    count(loop, TP_COUNT_FRAMES, &passed);
    count(loop, TP_COUNT_FRAMES_MALFORMED, &t->malformed);
    count(loop, TP_COUNT_FRAMES_FRAGMENT, &t->fragments);
    count(loop, TP_COUNT_DPDK_RECEIVED, &t->received);
    count(loop, TP_COUNT_DPDK_PUBLISHED, &published);
    count(loop, TP_COUNT_DPDK_OTHER, &t->other);
    count(loop, TP_COUNT_DPDK_UNSTAMPED, &t->unstamped);
    count(loop, TP_COUNT_DPDK_POLLS, &t->polls);
    count(loop, TP_COUNT_DPDK_POLLS_IDLE, &t->idle);
    count(loop, TP_COUNT_DPDK_TO_KERNEL, &t->to_kernel);
    count(loop, TP_COUNT_DPDK_FROM_KERNEL, &t->from_kernel);
    count(loop, TP_COUNT_DPDK_HELD, &t->held);
    if (loop->exception) {
        const struct tp_exception_counts *counts = &loop->exception->counts;
        count_risen(loop, TP_COUNT_DPDK_TO_KERNEL_DROPPED, counts->to_kernel_down + counts->to_kernel_refused,
                    &loop->to_kernel_dropped_told);
        count_risen(loop, TP_COUNT_DPDK_FROM_KERNEL_DROPPED, counts->from_kernel_bad, &loop->from_kernel_dropped_told);
    }
    count_risen(loop, TP_COUNT_DPDK_HOLES, loop->flows.holes, &loop->holes_told);
    if (loop->first) {
        count_risen(loop, TP_COUNT_DPDK_MISSED, atomic_load_explicit(&loop->losses->missed, memory_order_relaxed),
                    &loop->missed_told);
        count_risen(loop, TP_COUNT_DPDK_ERRORS, atomic_load_explicit(&loop->losses->errors, memory_order_relaxed),
                    &loop->errors_told);
        count_risen(loop, TP_COUNT_DPDK_FROM_KERNEL_DROPPED,
                    atomic_load_explicit(&loop->losses->unsent, memory_order_relaxed), &loop->unsent_told);
    }
}

static int keep_house(struct tp_dpdk_loop *loop, uint64_t now_tsc) {
    int64_t now_ns = tp_monotonic_ns();
    loop->due_tsc = now_tsc + loop->stamps->tsc_hz / HOUSE_PER_S;
    read_clock(loop);
    publish_totals(loop);
    if (now_ns - loop->second_ns >= SECOND_NS) {
        loop->second_ns = now_ns;
        show(loop, TP_COUNT_DPDK_RESIDENCE_NS, &loop->residence);
        show(loop, TP_COUNT_DPDK_BOUND_NS, &loop->bounds);
        tp_wire_flows_expire(&loop->flows, now_ns);
        forget(loop); /* flows have moved */
    }
    return tp_ring_writer_truncated(loop->ring) ? -ESTALE : 0;
}

/* What the port has verified is believed; what it leaves to the host is verified here where it is in one buffer. */
static bool spoiled(const struct rte_mbuf *frame, const uint8_t *bytes, const struct tp_packet *packet) {
    switch (frame->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) {
    case RTE_MBUF_F_RX_L4_CKSUM_GOOD:
    case RTE_MBUF_F_RX_L4_CKSUM_NONE: /* data is good, the field was never filled in */
        return false;
    case RTE_MBUF_F_RX_L4_CKSUM_BAD:
        return true;
    default:
        return tp_packet_tcp_checksum(bytes, packet) == TP_CHECKSUM_BAD && !tp_packet_tcp_unfilled(bytes, packet);
    }
}

/* A record as the words that the ring takes. Fields put together in registers are written once; smaller stores to the
 * record would each have to be done before a word of it can be read again, which took twice as long as all the rest. */
union record {
    struct tp_event event;
    uint64_t words[TP_RECORD_BYTES / 8];
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are put together for this order");

static inline uint64_t two(uint32_t low, uint32_t high) {
    return (uint64_t)high << 32 | low;
}

static inline uint64_t segment_of(uint8_t clock, uint8_t source) {
    return TP_KIND_SEGMENT | (uint64_t)clock << 8 | (uint64_t)source << 16;
}

/* With the frame's being one segment. */
static inline uint64_t bound_of(uint32_t bound_ns) {
    return two(bound_ns, 1);
}

/* What the records of a burst share, as they are in their words, and stamped by the poll. */
struct burst {
    uint64_t what;
    uint64_t stamp_tsc;
    uint64_t seen_ns;
    uint64_t bound;
    uint64_t device;
    const struct rte_mempool *pool;
    bool own_stamps; /* of the port's, for frames that have one */
    struct tp_dpdk_plausible plausible;
};

/* A segment's record, put into the ring. */
static inline void publish(struct tp_dpdk_loop *loop, const struct rte_mbuf *frame, const struct burst *burst,
                           const struct tp_packet_gist *gist, uint32_t flags, uint32_t row) {
    uint64_t what = burst->what, bound = burst->bound, time_ns = burst->stamp_tsc;
    if (unlikely(burst->own_stamps)) {
        struct tp_event own = {0};
        if (tp_dpdk_stamp(loop->stamps, &burst->plausible, frame, &own)) {
            what = segment_of(own.clock, own.source);
            bound = bound_of(own.segment.bound_ns);
            time_ns = (uint64_t)own.time_ns;
        } else {
            loop->tally.unstamped++;
        }
    }
    const union record record = {.words = {
                                     0,
                                     what | flags << 24 | (uint64_t)row << 32,
                                     time_ns,
                                     loop->frames++,
                                     burst->seen_ns,
                                     two(gist->seq, gist->payload_length),
                                     gist->ack | burst->device,
                                     bound | (uint64_t)gist->tcp_flags << 48,
                                 }};
    tp_ring_prefetch(loop->ring, SLOTS_AHEAD);
    tp_ring_write(loop->ring, &record.event);
}

/* Where a frame with these ports is remembered, if they are where TCP began in the last one that was. */
static inline struct tp_dpdk_known *known_at(struct tp_dpdk_loop *loop, const uint8_t *bytes) {
    uint32_t ports;
    memcpy(&ports, bytes + loop->ports_at, sizeof(ports));
    return &loop->known[ports * UINT32_C(0x9e3779b1) >> (32 - TP_DPDK_KNOWN_BITS)];
}

/* Parses, which is for the first frame of a connection, and for those that are unlike others of it. */
static void take_apart(struct tp_dpdk_loop *loop, const struct rte_mbuf *frame, const struct burst *burst) {
    const uint8_t *bytes = rte_pktmbuf_mtod(frame, const uint8_t *);
    struct tp_packet packet;
    int error = tp_packet_parse_ethernet(bytes, frame->data_len, frame->pkt_len, &packet);
    if (error) {
        if (error == TP_PACKET_NOT_TCP || error == TP_PACKET_NOT_IP)
            loop->tally.other++;
        else if (error == TP_PACKET_FRAGMENT)
            loop->tally.fragments++;
        else
            loop->tally.malformed++;
        return;
    }
    struct tp_wire_sighting sighting = {.seq = packet.seq,
                                        .length = packet.payload_length,
                                        .tcp_flags = packet.tcp_flags,
                                        .at_ns = (int64_t)burst->seen_ns};
    memcpy(sighting.tuple.remote, packet.source, 16);
    memcpy(sighting.tuple.local, packet.destination, 16);
    sighting.tuple.remote_port = packet.source_port;
    sighting.tuple.local_port = packet.destination_port;
    if (!tp_wire_selected(loop->selectors, loop->selector_count, &sighting.tuple)) {
        loop->tally.other++;
        return;
    }
    const struct tp_packet_gist gist = {packet.seq, packet.ack, packet.payload_length, packet.tcp_flags};
    uint32_t flags = packet.payload_offset > frame->data_len ? TP_SEGMENT_CUT : 0;
    if (spoiled(frame, bytes, &packet)) {
        uint32_t row = tp_wire_flows_row(&loop->flows, &sighting.tuple);
        publish(loop, frame, burst, &gist, flags | TP_SEGMENT_BAD_CSUM, row);
        return;
    }
    struct tp_wire_flow *flow = tp_wire_flows_see(&loop->flows, &sighting);
    publish(loop, frame, burst, &gist, flags, tp_wire_flow_row(flow));
    struct tp_dpdk_known learned = {.flow = flow};
    if (flow && tp_packet_look_learn(&learned.look, bytes, &packet)) {
        loop->ports_at = packet.tcp_offset;
        loop->latest = known_at(loop, bytes);
        *loop->latest = learned;
    }
}

/* What a port may say of a frame beside "its checksum is good", or nothing. */
#define UNUSUAL (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_RX_L4_CKSUM_MASK)

/* One buffer, held by nobody else, and of the port's pool: net_ring passes on what another port received. */
static inline bool is_plain(const struct rte_mbuf *frame, const struct rte_mempool *pool) {
    static const struct {
        uint16_t holders;
        uint16_t segments;
    } single = {1, 1};
    static_assert(offsetof(struct rte_mbuf, nb_segs) == offsetof(struct rte_mbuf, refcnt) + 2, "compared at once");
    return memcmp(&frame->refcnt, &single, sizeof(single)) == 0 && frame->pool == pool;
}

/* The connection of a frame whose look is known, else NULL: most likely that of the frame before. */
static inline const struct tp_dpdk_known *recognise(struct tp_dpdk_loop *loop, const uint8_t *bytes, uint32_t length,
                                                    struct tp_packet_gist *gist) {
    struct tp_dpdk_known *known = loop->latest;
    if (likely(tp_packet_look_read(&known->look, bytes, length, gist)))
        return known;
    if (length < loop->ports_at + sizeof(uint32_t))
        return NULL;
    known = known_at(loop, bytes);
    if (!tp_packet_look_read(&known->look, bytes, length, gist))
        return NULL;
    loop->latest = known;
    return known;
}

/* @return false: it had to be taken apart. */
static inline bool take(struct tp_dpdk_loop *loop, const struct rte_mbuf *frame, const struct burst *burst) {
    const uint8_t *bytes = rte_pktmbuf_mtod(frame, const uint8_t *);
    const struct tp_dpdk_known *known;
    uint64_t unusual = frame->ol_flags & UNUSUAL;
    struct tp_packet_gist gist;
    if (likely(is_plain(frame, burst->pool) && (known = recognise(loop, bytes, frame->data_len, &gist)) != NULL &&
               known->flow->row != TP_ROW_NONE &&
               (unusual == RTE_MBUF_F_RX_L4_CKSUM_GOOD ||
                (unusual == 0 && tp_packet_look_sums_up(&known->look, bytes, &gist))))) {
        tp_wire_flow_advance(&loop->flows, known->flow, gist.seq, gist.payload_length, (int64_t)burst->seen_ns);
        publish(loop, frame, burst, &gist, 0, known->flow->row);
        return true;
    }
    take_apart(loop, frame, burst);
    return false;
}

/* `frames` has room for PREFETCH more.
 * @return true: whoever has the frames may put them back as they are. */
static bool take_burst(struct tp_dpdk_loop *loop, struct rte_mbuf **frames, uint16_t count_of, uint64_t stamp_tsc) {
    int64_t bound_ns = (int64_t)((double)(stamp_tsc - loop->emptied_tsc) * loop->ns_per_tsc) + 1;
    struct burst burst = {
        .what = segment_of(TP_CLOCK_TSC, TP_SOURCE_POLL),
        .stamp_tsc = stamp_tsc,
        .seen_ns = (uint64_t)tp_monotonic_ns(),
        .bound = bound_of(bound_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)bound_ns),
        .device = (uint64_t)loop->port->device << 32,
        .pool = loop->port->pool,
        .own_stamps = loop->stamps->driver != NULL,
        .plausible = tp_dpdk_stamps_plausible(loop->stamps, stamp_tsc),
    };
    tp_histogram_observe(&loop->bounds, bound_ns);
    bool simple = true;
    loop->tally.received += count_of;
    for (unsigned i = 0; i < PREFETCH; i++) {
        frames[count_of + i] = frames[count_of - 1]; /* rather near twice than asked each time whether there are more */
        rte_prefetch0(rte_pktmbuf_mtod(frames[i], void *));
    }
    for (unsigned i = 0; i < count_of; i++) {
        rte_prefetch0(rte_pktmbuf_mtod(frames[i + PREFETCH], void *));
        simple &= take(loop, frames[i], &burst);
    }
    return simple;
}

/* Everything is published by now. */
static void hand_on(struct tp_dpdk_loop *loop, struct rte_mbuf **frames, uint16_t count_of, bool simple) {
    if (loop->exception)
        loop->tally.to_kernel += tp_exception_to_kernel(loop->exception, frames, count_of);
    else if (simple)
        rte_mempool_put_bulk(loop->port->pool, (void **)frames, count_of);
    else
        rte_pktmbuf_free_bulk(frames, count_of);
}

/* Some drivers have to see frames first whose checksums they are to complete. What a driver cannot send is dropped. */
static uint16_t prepare(struct tp_dpdk_loop *loop, struct rte_mbuf **frames, uint16_t count_of) {
    uint16_t ready = 0;
    for (;;) {
        ready += rte_eth_tx_prepare(loop->port->id, loop->queue, frames + ready, (uint16_t)(count_of - ready));
        if (ready == count_of)
            return ready;
        rte_pktmbuf_free(frames[ready]);
        loop->exception->counts.from_kernel_bad++;
        count_of--;
        memmove(frames + ready, frames + ready + 1, (size_t)(count_of - ready) * sizeof(frames[0]));
    }
}

/* What the port has no room for waits here, what there is no room for here waits in the kernel. */
static int send_for_kernel(struct tp_dpdk_loop *loop) {
    struct rte_mbuf **behind = loop->to_send + loop->waiting;
    uint16_t taken = tp_exception_from_kernel(loop->exception, behind, (uint16_t)(loop->burst - loop->waiting));
    if (taken)
        loop->waiting += prepare(loop, behind, taken);
    if (loop->waiting) {
        uint16_t sent = rte_eth_tx_burst(loop->port->id, loop->queue, loop->to_send, loop->waiting);
        loop->tally.from_kernel += sent;
        loop->waiting -= sent;
        loop->tally.held += loop->waiting != 0;
        memmove(loop->to_send, loop->to_send + sent, loop->waiting * sizeof(loop->to_send[0]));
    }
    return loop->exception->error;
}

int tp_dpdk_loop_run(struct tp_dpdk_loop *loop) {
    struct rte_mbuf *frames[TP_DPDK_BURST_MAX + PREFETCH];
    int error = 0;
    uint64_t began_tsc = rte_rdtsc();
    loop->emptied_tsc = began_tsc;
    while (!error && !atomic_load_explicit(&loop->stop, memory_order_relaxed)) {
        if (began_tsc >= loop->due_tsc) {
            error = keep_house(loop, began_tsc);
            began_tsc = rte_rdtsc();
        }
        uint16_t got = rte_eth_rx_burst(loop->port->id, loop->queue, frames, loop->burst);
        loop->tally.polls++;
        if (got == 0) {
            if (loop->exception)
                error = send_for_kernel(loop);
            loop->emptied_tsc = began_tsc;
            loop->tally.idle++;
            if (loop->idle_sleep_us)
                usleep(loop->idle_sleep_us);
            began_tsc = rte_rdtsc();
            continue;
        }
        uint64_t stamp_tsc = rte_rdtsc();
        bool simple = take_burst(loop, frames, got, stamp_tsc);
        hand_on(loop, frames, got, simple);
        if (loop->exception)
            error = send_for_kernel(loop);
        if (got < loop->burst)
            loop->emptied_tsc = began_tsc;
        uint64_t done_tsc = rte_rdtsc();
        loop->tally.busy_tsc += done_tsc - began_tsc;
        tp_histogram_observe(&loop->residence, (int64_t)((double)(done_tsc - stamp_tsc) * loop->ns_per_tsc));
        began_tsc = done_tsc;
    }
    if (loop->exception)
        loop->exception->counts.from_kernel_bad += loop->waiting;
    rte_pktmbuf_free_bulk(loop->to_send, loop->waiting);
    loop->waiting = 0;
    publish_totals(loop);
    return error;
}
