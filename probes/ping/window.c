/* SPDX-License-Identifier: Apache-2.0 */
#include "probes/ping/window.h"

#include "probes/ping/split.h"

#include <errno.h>
#include <stdlib.h>

int tp_ping_window_init(struct tp_ping_window *w, uint64_t slots) {
    w->slots = calloc(slots, sizeof *w->slots);
    if (!w->slots)
        return -ENOMEM;
    w->mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++)
        w->slots[i].fd = -1;
    return 0;
}

void tp_ping_window_free(struct tp_ping_window *w) {
    free(w->slots);
    w->slots = NULL;
}

static bool open_still(const struct tp_ping_slot *slot) {
    return slot->state == TP_PING_WAITING || slot->state == TP_PING_HELD;
}

struct tp_ping_slot *tp_ping_window_next(struct tp_ping_window *w) {
    struct tp_ping_slot *slot = &w->slots[w->next & w->mask];
    return open_still(slot) ? NULL : slot;
}

struct tp_ping_slot *tp_ping_window_find(struct tp_ping_window *w, uint64_t ordinal) {
    struct tp_ping_slot *slot = &w->slots[ordinal & w->mask];
    return slot->state != TP_PING_FREE && slot->ordinal == ordinal ? slot : NULL;
}

static uint32_t behind(const struct tp_ping_slot *slot) {
    int64_t late_ns = slot->before_ns - slot->planned_ns;
    return late_ns < 0 ? 0 : late_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)late_ns;
}

static struct tp_event event_of(const struct tp_ping_window *w, const struct tp_ping_slot *slot, uint8_t result,
                                int64_t time_ns) {
    struct tp_event event = {.kind = TP_KIND_PING, .clock = TP_CLOCK_MONOTONIC, .time_ns = time_ns};
    event.ping.ordinal = slot->ordinal;
    event.ping.behind_ns = behind(slot);
    event.ping.result = result;
    event.ping.proto = w->proto;
    return event;
}

static void tell_plain(struct tp_ping_window *w, const struct tp_ping_slot *slot, uint8_t result, int64_t time_ns) {
    struct tp_event event = event_of(w, slot, result, time_ns);
    w->tell(w->context, &event);
}

void tp_ping_window_sent(struct tp_ping_window *w, struct tp_ping_slot *slot) {
    slot->ordinal = w->next++;
    slot->state = TP_PING_WAITING;
    w->owed -= slot->owed;
    slot->owed = false;
    slot->split = false;
    slot->far.serial = 0;
    tell_plain(w, slot, TP_PING_SENT, slot->before_ns);
}

/* An RTT that exceeds the application's by more than clocks differ is not one. */
static bool can_be(int64_t rtt_ns, int64_t app_ns) {
    return rtt_ns >= 0 && rtt_ns <= app_ns + tp_ping_slack(app_ns);
}

int64_t tp_ping_rtt(const struct tp_ping_slot *slot, const struct tp_ping_arrival *reply, uint8_t *source,
                    bool *disbelieved) {
    const struct {
        int64_t sent_ns, received_ns;
        uint8_t source;
    } ladder[] = {
        {slot->sent.hw_ns, reply->stamps.hw_ns, TP_PING_SOURCE_HW},
        {slot->sent.sw_ns, reply->stamps.sw_ns, TP_PING_SOURCE_SW},
        {slot->before_real_ns, reply->stamps.sw_ns, TP_PING_SOURCE_SOCK},
    };
    int64_t app_ns = reply->app_ns - slot->before_ns;
    *disbelieved = false;
    for (unsigned i = 0; i < sizeof ladder / sizeof *ladder; i++) {
        if (!ladder[i].sent_ns || !ladder[i].received_ns)
            continue;
        int64_t rtt_ns = ladder[i].received_ns - ladder[i].sent_ns;
        if (can_be(rtt_ns, app_ns)) {
            *source = ladder[i].source;
            return rtt_ns;
        }
        *disbelieved = true;
    }
    *source = TP_PING_SOURCE_APP;
    return app_ns;
}

static void tell_split(struct tp_ping_window *w, const struct tp_ping_slot *slot, uint8_t source,
                       const struct tp_ping_split *split) {
    const struct tp_ping_far *far = &slot->far;
    struct tp_event event = {.kind = TP_KIND_PING_SPLIT, .clock = TP_CLOCK_MONOTONIC, .source = source};
    event.time_ns = far->app_ns > slot->reply.app_ns ? far->app_ns : slot->reply.app_ns;
    event.split = *split;
    event.split.ordinal = slot->ordinal;
    event.split.proto = w->proto;
    w->tell(w->context, &event);
}

/* By the NICs' stamps: what both ways took together. Their clocks run freely, or by TAI: neither way alone is known. */
static void split_by_nic(struct tp_ping_window *w, const struct tp_ping_slot *slot) {
    const struct tp_ping_arrival *reply = &slot->reply;
    int64_t rtt_ns = reply->stamps.hw_ns - slot->sent.hw_ns;
    if (slot->far.nic_turn_ns < 0 || !slot->sent.hw_ns || !reply->stamps.hw_ns ||
        !can_be(rtt_ns, reply->app_ns - slot->before_ns))
        return;
    struct tp_ping_split split = {
        .bound_ns = INT64_MAX, .far_source = TP_PING_SOURCE_HW, .why = TP_PING_SPLIT_UNBELIEVED};
    if (slot->far.nic_turn_ns <= rtt_ns + tp_ping_slack(rtt_ns)) {
        split.turn_ns = (uint32_t)slot->far.nic_turn_ns;
        split.path_ns = rtt_ns - slot->far.nic_turn_ns;
        split.why = TP_PING_SPLIT_NIC;
    }
    tell_split(w, slot, TP_PING_SOURCE_HW, &split);
}

/* By the host's clock: the kernel's stamps where there are any, that can be. */
static void split_by_host(struct tp_ping_window *w, const struct tp_ping_slot *slot) {
    const struct tp_ping_arrival *reply = &slot->reply;
    int64_t app_ns = reply->app_ns - slot->before_ns;
    const struct {
        int64_t sent_ns, received_ns;
        uint8_t source;
    } ladder[] = {
        {slot->sent.sw_ns, reply->stamps.sw_ns, TP_PING_SOURCE_SW},
        {slot->before_real_ns, reply->stamps.sw_ns, TP_PING_SOURCE_SOCK},
        {slot->before_real_ns, slot->before_real_ns + app_ns, TP_PING_SOURCE_APP},
    };
    unsigned i = 0;
    while (ladder[i].source != TP_PING_SOURCE_APP &&
           (!ladder[i].sent_ns || !ladder[i].received_ns || !can_be(ladder[i].received_ns - ladder[i].sent_ns, app_ns)))
        i++;
    const struct tp_ping_near near = {
        .sent_ns = ladder[i].sent_ns,
        .received_ns = ladder[i].received_ns,
        .before_ns = slot->before_ns,
        .after_ns = reply->app_ns,
        .bound_ns = slot->bound_ns > reply->bound_ns ? slot->bound_ns : reply->bound_ns,
        .host = w->host,
    };
    struct tp_ping_split split = {.far_source = slot->far.source};
    tp_ping_split(&near, &slot->far, &split);
    tell_split(w, slot, ladder[i].source, &split);
}

/* Once both are there: the answer, and what the far end says of that very one. */
static void try_split(struct tp_ping_window *w, struct tp_ping_slot *slot) {
    if (slot->split || !slot->far.serial || slot->far.serial != slot->reply.serial)
        return;
    slot->split = true;
    w->owed -= slot->owed;
    slot->owed = false;
    split_by_nic(w, slot);
    split_by_host(w, slot);
}

void tp_ping_window_times(struct tp_ping_window *w, struct tp_ping_slot *slot, const struct tp_ping_far *far) {
    if (slot->split)
        return;
    slot->far = *far;
    if (slot->state == TP_PING_ANSWERED || slot->state == TP_PING_LATELY)
        try_split(w, slot);
}

/* `result` 0: REPLY, or where that came too late LOST and LATE. */
static void tell_arrival(struct tp_ping_window *w, struct tp_ping_slot *slot, const struct tp_ping_arrival *reply,
                         uint8_t result) {
    bool disbelieved;
    uint8_t source;
    int64_t rtt_ns = tp_ping_rtt(slot, reply, &source, &disbelieved);
    if (!result) {
        result = rtt_ns <= w->allowed_ns ? TP_PING_REPLY : TP_PING_LATE;
        slot->state = result == TP_PING_REPLY ? TP_PING_ANSWERED : TP_PING_LATELY;
        if (result == TP_PING_LATE)
            tell_plain(w, slot, TP_PING_LOST, reply->app_ns);
    }
    struct tp_event event = event_of(w, slot, result, reply->app_ns);
    event.source = source;
    if (w->stamped && source > TP_PING_SOURCE_SW)
        event.flags |= TP_PING_NO_STAMP;
    if (disbelieved)
        event.flags |= TP_PING_DISBELIEVED;
    event.ping.rtt_ns = rtt_ns;
    event.ping.app_ns = reply->app_ns - slot->before_ns;
    event.ping.length = reply->length;
    event.ping.hops = reply->hops;
    w->tell(w->context, &event);
    if (result == TP_PING_DUPLICATE)
        return;
    slot->reply = *reply;
    slot->owed = reply->serial != 0;
    w->owed += slot->owed;
    try_split(w, slot);
}

/* Whether the other half of a pair may still come: of sending, where the arrival has it. */
static bool half(const struct tp_ping_slot *slot, const struct tp_ping_arrival *reply) {
    return (reply->stamps.hw_ns && !slot->sent.hw_ns) || (reply->stamps.sw_ns && !slot->sent.sw_ns);
}

static void end_hold(struct tp_ping_window *w, struct tp_ping_slot *slot) {
    w->held--;
    tell_arrival(w, slot, &slot->reply, 0);
}

void tp_ping_window_reply(struct tp_ping_window *w, struct tp_ping_slot *slot, const struct tp_ping_arrival *reply) {
    switch (slot->state) {
    case TP_PING_WAITING:
        if (w->stamped && half(slot, reply)) {
            slot->reply = *reply;
            slot->state = TP_PING_HELD;
            w->held++;
            return;
        }
        tell_arrival(w, slot, reply, 0);
        return;
    case TP_PING_HELD:
        end_hold(w, slot);
        tell_arrival(w, slot, reply, TP_PING_DUPLICATE);
        return;
    case TP_PING_GIVEN_UP:
        slot->state = TP_PING_LATELY;
        tell_arrival(w, slot, reply, TP_PING_LATE);
        return;
    default:
        tell_arrival(w, slot, reply, TP_PING_DUPLICATE);
        return;
    }
}

void tp_ping_window_stamp(struct tp_ping_window *w, struct tp_ping_slot *slot, const struct tp_stamps *stamps) {
    if (stamps->sw_ns)
        slot->sent.sw_ns = stamps->sw_ns;
    if (stamps->hw_ns)
        slot->sent.hw_ns = stamps->hw_ns;
    if (slot->state == TP_PING_HELD && !half(slot, &slot->reply))
        end_hold(w, slot);
}

void tp_ping_window_error(struct tp_ping_window *w, struct tp_ping_slot *slot, int64_t now_ns,
                          const struct tp_ping *body) {
    if (slot->state != TP_PING_WAITING)
        return;
    slot->state = TP_PING_FAILED;
    struct tp_event event = event_of(w, slot, TP_PING_ERROR, now_ns);
    memcpy(event.ping.offender, body->offender, sizeof event.ping.offender);
    event.ping.icmp_type = body->icmp_type;
    event.ping.icmp_code = body->icmp_code;
    event.ping.error = body->error;
    w->tell(w->context, &event);
}

void tp_ping_window_opened(struct tp_ping_window *w, struct tp_ping_slot *slot, int64_t now_ns, int64_t rtt_ns,
                           bool again) {
    int64_t app_ns = now_ns - slot->before_ns;
    /* Of a SYN sent again TCP says the second one's. */
    bool believed = rtt_ns > 0 && !again && can_be(rtt_ns, app_ns);
    bool given_up = slot->state == TP_PING_GIVEN_UP;
    if (slot->state != TP_PING_WAITING && !given_up)
        return;
    struct tp_event event = event_of(w, slot, TP_PING_REPLY, now_ns);
    event.source = believed ? TP_PING_SOURCE_TCP_INFO : TP_PING_SOURCE_APP;
    event.ping.rtt_ns = believed ? rtt_ns : app_ns;
    event.ping.app_ns = app_ns;
    slot->state = TP_PING_ANSWERED;
    if (given_up || again || event.ping.rtt_ns > w->allowed_ns) {
        slot->state = TP_PING_LATELY;
        if (!given_up)
            tell_plain(w, slot, TP_PING_LOST, now_ns);
        event.ping.result = TP_PING_LATE;
    }
    w->tell(w->context, &event);
}

void tp_ping_window_expire(struct tp_ping_window *w, int64_t now_ns) {
    for (uint64_t ordinal = w->oldest; w->held && ordinal != w->next; ordinal++) {
        struct tp_ping_slot *slot = &w->slots[ordinal & w->mask];
        if (slot->state == TP_PING_HELD && now_ns - slot->reply.app_ns >= w->hold_ns)
            end_hold(w, slot);
    }
    bool none_open = true;
    for (uint64_t ordinal = w->oldest; ordinal != w->next; ordinal++) {
        struct tp_ping_slot *slot = &w->slots[ordinal & w->mask];
        if (slot->state == TP_PING_WAITING) {
            if (now_ns - slot->before_ns <= w->allowed_ns)
                return;
            slot->state = TP_PING_GIVEN_UP;
            tell_plain(w, slot, TP_PING_LOST, now_ns);
        }
        none_open &= slot->state != TP_PING_HELD;
        if (none_open)
            w->oldest = ordinal + 1;
    }
}

int64_t tp_ping_window_due(const struct tp_ping_window *w) {
    int64_t due_ns = INT64_MAX;
    for (uint64_t ordinal = w->oldest; w->held && ordinal != w->next; ordinal++) {
        const struct tp_ping_slot *slot = &w->slots[ordinal & w->mask];
        if (slot->state == TP_PING_HELD && slot->reply.app_ns + w->hold_ns < due_ns)
            due_ns = slot->reply.app_ns + w->hold_ns;
    }
    for (uint64_t ordinal = w->oldest; ordinal != w->next; ordinal++) {
        const struct tp_ping_slot *slot = &w->slots[ordinal & w->mask];
        if (slot->state == TP_PING_WAITING) {
            int64_t end_ns = slot->before_ns + w->allowed_ns + 1;
            return end_ns < due_ns ? end_ns : due_ns;
        }
    }
    return due_ns;
}
