/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays a random life of pings to the window, and holds it to its books: each that was sent comes to exactly one of
 * reply, loss and error; late ones were lost before; both ends of an RTT are by one clock, the best that can be.
 *
 * Usage: window_driver SEED STEPS
 */
#include "probes/ping/window.h"

#include <stdio.h>
#include <stdlib.h>

#define SLOTS 64
#define ALLOWED_NS 1000000
#define HOLD_NS 100000
#define PINGS 100000

/* The clocks of one host: each its own epoch. What is from one and another cannot be an RTT. */
#define REAL_NS INT64_C(1700000000000000000)
#define NIC_NS INT64_C(1600000000000000000)
#define ELSE_NS INT64_C(900000000000000000) /* of another NIC */

static uint64_t random_state;
static uint64_t results[TP_PING_RESULTS], sources[TP_PING_SOURCES], disbelieved;
static uint64_t splits[TP_PING_SPLITS];
static uint8_t came_to[PINGS], was_late[PINGS], was_split[PINGS];

static uint64_t draw(uint64_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static void require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        exit(2);
    }
}

/* Where the time of an answered ping went: once, of that very answer, and both ends by one clock each. */
static void told_split(const struct tp_ping_window *w, const struct tp_event *e) {
    const struct tp_ping_slot *slot = tp_ping_window_find((struct tp_ping_window *)w, e->split.ordinal);
    require(slot && (came_to[slot->ordinal] == TP_PING_REPLY || was_late[slot->ordinal]), "what was answered is split");
    require(slot->far.serial && slot->far.serial == slot->reply.serial, "by what was said of that answer");
    int64_t app_ns = slot->reply.app_ns - slot->before_ns;
    if (e->split.why != TP_PING_SPLIT_UNBELIEVED) {
        int64_t rtt_ns = e->split.path_ns + e->split.turn_ns;
        require(rtt_ns >= 0 && rtt_ns <= app_ns + app_ns / 512 + 1000, "its parts are those of an RTT");
    }
    require((e->source == TP_PING_SOURCE_HW) == (e->split.far_source == TP_PING_SOURCE_HW), "NICs go with NICs");
    splits[e->split.why]++;
    if (e->source == TP_PING_SOURCE_HW)
        return;
    require(!was_split[slot->ordinal], "a ping is split once");
    was_split[slot->ordinal] = 1;
}

static void tell(void *context, const struct tp_event *e) {
    if (e->kind == TP_KIND_PING_SPLIT) {
        told_split(context, e);
        return;
    }
    uint64_t ordinal = e->ping.ordinal;
    require(e->kind == TP_KIND_PING && ordinal < PINGS && e->ping.result < TP_PING_RESULTS, "a record of a ping");
    results[e->ping.result]++;
    switch (e->ping.result) {
    case TP_PING_SENT:
        return;
    case TP_PING_LATE:
        require(came_to[ordinal] == TP_PING_LOST && !was_late[ordinal], "what is late was lost, and is late once");
        was_late[ordinal] = 1;
        break;
    case TP_PING_DUPLICATE:
        require(came_to[ordinal], "what is double was answered, or failed, before");
        break;
    default:
        require(!came_to[ordinal], "a ping comes to one thing");
        came_to[ordinal] = e->ping.result;
    }
    if (e->ping.result == TP_PING_LOST || e->ping.result == TP_PING_ERROR)
        return;
    sources[e->source]++;
    disbelieved += !!(e->flags & TP_PING_DISBELIEVED);
    require(e->ping.rtt_ns >= 0 && e->ping.rtt_ns <= e->ping.app_ns + e->ping.app_ns / 512 + 1000,
            "an RTT is within what the application saw");
    require(!(e->flags & TP_PING_NO_STAMP) == (e->source == TP_PING_SOURCE_HW || e->source == TP_PING_SOURCE_SW),
            "what has no pair of stamps says so");
    if (e->ping.result == TP_PING_REPLY)
        require(e->ping.rtt_ns <= ALLOWED_NS, "in time is what the RTT says");
}

static int64_t bound(void) {
    return draw(3) ? (int64_t)draw(100000) : INT64_MAX;
}

static void times(struct tp_ping_window *w, int64_t now_ns) {
    uint64_t back = draw(SLOTS + 20);
    struct tp_ping_slot *slot = back < w->next ? tp_ping_window_find(w, w->next - 1 - back) : NULL;
    if (!slot)
        return;
    const struct tp_ping_far far = {.received_ns = REAL_NS + slot->before_ns + (int64_t)draw(1000),
                                    .monotonic_ns = slot->before_ns + (int64_t)draw(1000),
                                    .turn_ns = draw(9) ? (int64_t)draw(20000) : -1,
                                    .nic_turn_ns = draw(2) ? (int64_t)draw(20000) : -1,
                                    .bound_ns = bound(),
                                    .app_ns = now_ns,
                                    .host = (uint32_t)draw(3),
                                    .serial = (uint16_t)(slot->ordinal % 7 + 1),
                                    .source = TP_PING_SOURCE_SW};
    tp_ping_window_times(w, slot, &far);
}

static void arrive(struct tp_ping_window *w, int64_t now_ns) {
    uint64_t back = draw(SLOTS + 20);
    struct tp_ping_slot *slot = back < w->next ? tp_ping_window_find(w, w->next - 1 - back) : NULL;
    if (!slot)
        return;
    /* The driver saw it a little before it was read. */
    int64_t ago_ns = (int64_t)draw((uint64_t)(now_ns - slot->before_ns) / 2 + 1);
    struct tp_ping_arrival reply = {.app_ns = now_ns, .length = 64, .bound_ns = bound()};
    reply.serial = (uint16_t)(slot->ordinal % 7 + draw(2)); /* of a request that was doubled: either */
    if (draw(4))
        reply.stamps.sw_ns = REAL_NS + now_ns - ago_ns;
    if (draw(3) == 0)
        reply.stamps.hw_ns = (draw(5) ? NIC_NS : ELSE_NS) + now_ns - ago_ns;
    if (draw(50) == 0)
        reply.stamps.sw_ns += 3600 * INT64_C(1000000000); /* the clock was set */
    tp_ping_window_reply(w, slot, &reply);
}

static void stamp(struct tp_ping_window *w) {
    uint64_t back = draw(8);
    struct tp_ping_slot *slot = back < w->next ? tp_ping_window_find(w, w->next - 1 - back) : NULL;
    if (!slot)
        return;
    int64_t left_ns = slot->before_ns + (int64_t)draw(200);
    struct tp_stamps sent = {0};
    if (draw(2))
        sent.sw_ns = REAL_NS + left_ns;
    else
        sent.hw_ns = NIC_NS + left_ns;
    tp_ping_window_stamp(w, slot, &sent);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 64;
    random_state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u | 1;
    struct tp_ping_window w = {.allowed_ns = ALLOWED_NS,
                               .hold_ns = HOLD_NS,
                               .stamped = true,
                               .proto = TP_PING_PROTO_ICMP,
                               .host = 1,
                               .tell = tell};
    w.context = &w;
    require(tp_ping_window_init(&w, SLOTS) == 0, "there is memory");
    int64_t now_ns = 1000;
    for (long steps = atol(argv[2]); steps > 0 && w.next < PINGS; steps--) {
        now_ns += (int64_t)draw(20000);
        int64_t due_ns = tp_ping_window_due(&w);
        tp_ping_window_expire(&w, now_ns);
        require(tp_ping_window_due(&w) > now_ns, "what is due has been done");
        require(due_ns > now_ns || w.next, "nothing is due before anything was sent");
        uint64_t what = draw(12);
        struct tp_ping_slot *slot = tp_ping_window_next(&w);
        if (what < 3 && slot) {
            slot->planned_ns = now_ns - (int64_t)draw(100);
            slot->before_ns = now_ns;
            slot->before_real_ns = REAL_NS + now_ns;
            slot->bound_ns = bound();
            slot->sent = (struct tp_stamps){0};
            tp_ping_window_sent(&w, slot);
        } else if (what < 6) {
            stamp(&w);
        } else if (what < 9) {
            arrive(&w, now_ns);
        } else if (what < 11) {
            times(&w, now_ns);
        } else if (w.next && draw(10) == 0) {
            const struct tp_ping body = {.error = 111};
            slot = tp_ping_window_find(&w, w.next - 1);
            if (slot)
                tp_ping_window_error(&w, slot, now_ns, &body);
        }
    }
    now_ns += 10 * ALLOWED_NS;
    tp_ping_window_expire(&w, now_ns);
    tp_ping_window_expire(&w, now_ns);
    require(tp_ping_window_due(&w) == INT64_MAX && w.held == 0, "in the end nothing waits");
    require(results[TP_PING_SENT] == w.next, "each that was sent was told");
    require(results[TP_PING_SENT] == results[TP_PING_REPLY] + results[TP_PING_LOST] + results[TP_PING_ERROR],
            "each that was sent came to one thing");
    uint64_t owed = 0;
    for (uint64_t i = 0; i < SLOTS; i++)
        owed += w.slots[i].owed;
    require(owed == w.owed, "what is owed is counted");
    for (int i = 0; i < TP_PING_SPLITS; i++)
        require(splits[i] > 10, "each way of splitting occurs");
    tp_ping_window_free(&w);
    printf("%llu", (unsigned long long)disbelieved);
    for (int i = 1; i < TP_PING_RESULTS; i++)
        printf(" %llu", (unsigned long long)results[i]);
    for (int i = 1; i < TP_PING_SOURCES; i++)
        printf(" %llu", (unsigned long long)sources[i]);
    printf("\n");
    return 0;
}
