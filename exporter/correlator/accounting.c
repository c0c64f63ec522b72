/* SPDX-License-Identifier: Apache-2.0
 *
 * Results into counters and histograms, per venue and feed.
 */
#include "exporter/correlator/internal.h"

struct tp_label *tp_label_of(struct tp_join *j, const struct tp_row *row) {
    struct tp_label wanted;
    memset(&wanted, 0, sizeof wanted);
    memcpy(wanted.venue, row->venue, TP_VENUE_BYTES);
    memcpy(wanted.feed, row->feed, TP_FEED_BYTES);
    for (uint32_t i = 0; i < j->label_count; i++) {
        struct tp_label *label = &j->labels[i];
        if (strcmp(label->venue, wanted.venue) == 0 && strcmp(label->feed, wanted.feed) == 0)
            return label;
    }
    if (j->label_count == j->limits.labels) {
        j->totals.labels_refused++;
        return &j->labels[0];
    }
    struct tp_label *label = &j->labels[j->label_count++];
    memcpy(label->venue, wanted.venue, sizeof wanted.venue);
    memcpy(label->feed, wanted.feed, sizeof wanted.feed);
    return label;
}

/* Legs that no wire stamp enters carry no source. */
static uint8_t source_of(const struct tp_joined *r, unsigned leg) {
    switch (leg) {
    case TP_LEG_BN_TO_NIC:
    case TP_LEG_NIC_TO_KERNEL:
    case TP_LEG_HOL_WAIT:
    case TP_LEG_STACK:
    case TP_LEG_IN_HOST:
    case TP_LEG_NIC_TO_USER:
        return r->source;
    case TP_LEG_TOTAL: /* with the hops that add up to it */
        return r->legs & 1u << TP_LEG_BN_TO_NIC ? r->source : TP_SOURCE_NONE;
    default:
        return TP_SOURCE_NONE;
    }
}

static void observe(struct tp_join *j, struct tp_label *label, const struct tp_joined *r, unsigned leg) {
    struct tp_tail **place = &label->tails[leg][source_of(r, leg)];
    if (!*place) {
        struct tp_tail *made = j->series < j->limits.series ? aligned_alloc(TP_TAIL_LINE, sizeof *made) : NULL;
        if (!made) {
            j->totals.series_refused++;
            return;
        }
        tp_tail_reset(made);
        *place = made;
        j->series++;
    }
    int64_t value_ns = r->leg_ns[leg];
    if (tp_tail_observe(*place, value_ns) && r->offset_ns > TP_OFFSET_STEP) {
        /* Both come from records: their sum may be anything, and is no worse a time than they were. */
        int64_t time_ns = (int64_t)((uint64_t)r->received_ns + (uint64_t)r->offset_ns);
        const struct tp_exemplar one = {value_ns, time_ns, r->cookie, r->ordinal, 0};
        tp_tail_keep(*place, &one);
    }
    if (value_ns < 0)
        label->negative[leg]++;
}

void tp_account(struct tp_join *j, struct tp_label *label, struct tp_joined *r) {
    r->label = (uint16_t)(label - j->labels);
    label->messages++;
    if (r->method != TP_METHOD_NONE)
        label->matched[r->tier][r->method][r->source]++;
    else
        label->unmatched[r->reason]++;
    if (r->stamps & TP_STAMP_OWN && r->own_bound_ns > j->bounds_ns[0][r->source])
        j->bounds_ns[0][r->source] = r->own_bound_ns;
    label->hol_blocked += r->blocked;
    label->retransmitted += !!(r->span_flags & TP_SPAN_COPIED);
    label->reordered += !!(r->span_flags & TP_SPAN_REORDERED);
    label->merged += !!(r->span_flags & TP_SPAN_MERGED);
    for (uint32_t legs = r->legs; legs; legs &= legs - 1)
        observe(j, label, r, (unsigned)__builtin_ctz(legs));
    /* NIC_TO_USER is absent without a reason where the two hops that it spans are there. */
    for (uint32_t absent = ~r->legs & ((1u << TP_LEGS) - 1); absent; absent &= absent - 1) {
        unsigned leg = (unsigned)__builtin_ctz(absent);
        if (r->missing[leg])
            label->missing[leg][r->missing[leg]]++;
    }
    if (j->joined) {
        if (j->joined_written - j->joined_fetched == j->limits.joined) {
            j->joined_fetched++;
            j->totals.joined_overrun++;
        }
        j->joined[j->joined_written++ % j->limits.joined] = *r;
    }
}

static struct tp_ping_account *ping_account(struct tp_join *j, uint8_t proto, const struct tp_row *row) {
    if (!j->pings) {
        /* The first is for what finds no other. */
        j->pings = calloc(TP_PING_TARGETS, sizeof *j->pings);
        j->ping_count = j->pings ? 1 : 0;
        if (j->pings)
            j->pings[0].split_bound_ns = -1;
    }
    if (!j->pings || !row)
        return j->pings;
    char target[TP_STREAM_BYTES + 1] = {0};
    memcpy(target, row->stream, TP_STREAM_BYTES);
    for (uint32_t i = 1; i < j->ping_count; i++) {
        if (j->pings[i].proto == proto && strcmp(j->pings[i].target, target) == 0)
            return &j->pings[i];
    }
    if (j->ping_count == TP_PING_TARGETS) {
        j->totals.labels_refused++;
        return &j->pings[0];
    }
    struct tp_ping_account *account = &j->pings[j->ping_count++];
    memcpy(account->target, target, sizeof target);
    account->proto = proto;
    account->split_bound_ns = -1;
    return account;
}

static void observe_ping(struct tp_join *j, struct tp_ping_account *account, enum tp_ping_way way, uint8_t source,
                         int64_t span_ns) {
    struct tp_histogram **place = &account->series[way][source];
    if (!*place) {
        *place = j->ping_series < TP_PING_SERIES ? malloc(sizeof **place) : NULL;
        if (!*place) {
            j->totals.series_refused++;
            return;
        }
        tp_histogram_reset(*place);
        j->ping_series++;
    }
    tp_histogram_observe(*place, span_ns);
}

void tp_account_ping(struct tp_join *j, const struct tp_event *e, const struct tp_row *row) {
    struct tp_ping_account *account = ping_account(j, e->ping.proto, row);
    if (!account) {
        j->totals.labels_refused++;
        return;
    }
    account->results[e->ping.result]++;
    account->no_stamp += !!(e->flags & TP_PING_NO_STAMP);
    account->disbelieved += !!(e->flags & TP_PING_DISBELIEVED);
    if (e->ping.result == TP_PING_REPLY || e->ping.result == TP_PING_LATE)
        observe_ping(j, account, TP_PING_WAY_RTT, e->source, e->ping.rtt_ns);
}

void tp_account_ping_split(struct tp_join *j, const struct tp_event *e, const struct tp_row *row) {
    const struct tp_ping_split *split = &e->split;
    struct tp_ping_account *account = ping_account(j, split->proto, row);
    uint8_t source = e->source > split->far_source ? e->source : split->far_source;
    if (!account) {
        j->totals.labels_refused++;
        return;
    }
    if (split->why != TP_PING_SPLIT_UNBELIEVED)
        observe_ping(j, account, TP_PING_WAY_PATH, source, split->path_ns);
    if (split->why != TP_PING_SPLIT_NIC && split->why != TP_PING_SPLIT_UNBELIEVED)
        account->split_bound_ns = split->bound_ns;
    if (split->why != TP_PING_SPLIT_KNOWN) {
        account->unsplit[split->why]++;
        return;
    }
    observe_ping(j, account, TP_PING_WAY_OUT, source, split->out_ns);
    observe_ping(j, account, TP_PING_WAY_BACK, source, split->path_ns - split->out_ns);
}

void tp_account_free_pings(struct tp_join *j) {
    for (uint32_t i = 0; i < j->ping_count; i++) {
        for (int way = 0; way < TP_PING_WAYS; way++) {
            for (int source = 0; source < TP_PING_SOURCES; source++)
                free(j->pings[i].series[way][source]);
        }
    }
    free(j->pings);
}

void tp_account_age(struct tp_join *j, int64_t now_ns) {
    if (now_ns < j->bounds_until_ns && now_ns >= j->bounds_until_ns - TP_BOUNDS_NS)
        return;
    j->bounds_until_ns = now_ns + TP_BOUNDS_NS;
    memcpy(j->bounds_ns[1], j->bounds_ns[0], sizeof j->bounds_ns[1]);
    for (int source = 0; source < TP_SOURCES; source++)
        j->bounds_ns[0][source] = -1;
}

void tp_account_connect(struct tp_join *j, const struct tp_connect *connect) {
    j->connects.results[connect->result]++;
    if (connect->result == TP_CONNECT_OPENED)
        tp_histogram_observe(&j->connects.latencies[connect->family == 6], (int64_t)connect->latency_ns);
}
