/* SPDX-License-Identifier: Apache-2.0
 *
 * A message's result: when nothing more can come for it, which segment carried it, and every leg that its stamps allow.
 */
#include "exporter/correlator/internal.h"

#define UNUSABLE (TP_SPAN_AMBIGUOUS | TP_SPAN_UNPLACED)

/* What the wire says about one message, while it waits and when it is finished. */
struct arrival {
    struct tp_span own; /* to == from: none */
    enum tp_method method;
    enum tp_reason reason;   /* why not offset */
    enum tp_reason in_order; /* why in-order arrival is not known; NONE: it is, in_order_ns */
    int64_t in_order_ns;
    int64_t believed; /* start of the last span found to be in time; INT64_MIN: none */
    /* The flow's settled state as it will be once this message is finished. */
    int64_t settled_ns;
    int64_t unknown_ns;
    uint8_t settled_source;
};

static bool found(const struct arrival *a) {
    return a->method != TP_METHOD_NONE;
}

/* The read whose (from, to] holds `end`. */
static const struct tp_read_item *read_of(const struct tp_conn *c, int64_t end) {
    for (uint32_t i = 0; i < c->reads.count; i++) {
        const struct tp_read_item *r = tp_queue_at(&c->reads, i);
        if (r->to >= end)
            return r->from < end ? r : NULL;
    }
    return NULL;
}

static int64_t emptied(const struct tp_read_item *read) {
    return read->drained ? read->asked_ns : INT64_MIN;
}

/* When the read before was asked for, if it left nothing behind: what had come by then was in it. Else INT64_MIN. */
static int64_t emptied_before(const struct tp_conn *c, const struct tp_read_item *read) {
    int64_t at_ns = c->emptied_ns;
    for (uint32_t i = 0; i < c->reads.count && tp_queue_at(&c->reads, i) != read; i++)
        at_ns = emptied(tp_queue_at(&c->reads, i));
    return at_ns;
}

/* The earliest moment known by which all bytes before stream offset `end` had surely come: somebody had them.
 * `*same_until` is how much further the same is true. */
static int64_t delivered_by(const struct tp_conn *c, const struct tp_pending *m, int64_t end, int64_t *same_until) {
    int64_t by_ns = m->received_ns, until = m->end;
    for (uint32_t i = 0; i < c->reads.count; i++) {
        const struct tp_read_item *r = tp_queue_at(&c->reads, i);
        if (r->to < end)
            continue;
        /* Bytes before a read were returned by one before it, which was over when this one was asked for. */
        bool before = r->from >= end;
        int64_t read_ns = before ? r->asked_ns : r->returned_ns;
        int64_t read_until = before ? r->from : r->to;
        by_ns = read_ns < by_ns ? read_ns : by_ns;
        until = read_until < until ? read_until : until;
        break;
    }
    uint32_t index = tp_span_map_search(&c->readable, end - 1);
    if (index < c->readable.count) {
        const struct tp_span *s = tp_span_map_at(&c->readable, index);
        by_ns = s->first_ns < by_ns ? s->first_ns : by_ns;
        until = s->to < until ? s->to : until;
    }
    *same_until = until;
    return by_ns;
}

/* A stamp from after the bytes were delivered is of another copy: the first was not captured. Clocks may disagree by
 * less; that shows as a negative hop. */
static bool too_late(const struct tp_span *s, int64_t by_ns) {
    return s->first_ns - s->bound_ns > by_ns + TP_SAME_FRAME_NS;
}

/* Walks the bytes from where the flow is settled to the message end: the latest known first arrival, and the latest
 * moment by which all those without one had come. In-order arrival is known when the former is not before the latter:
 * then no uncaptured byte can have been the last. */
static void walk(const struct tp_flow *f, const struct tp_conn *c, const struct tp_pending *m, struct arrival *a) {
    int64_t until = f->base + m->end, at = f->settled;
    a->settled_ns = f->settled_ns;
    a->unknown_ns = f->unknown_ns;
    a->settled_source = f->settled_source;
    a->believed = INT64_MIN;
    uint32_t index = tp_span_map_search(&f->map, at);
    while (at < until) {
        const struct tp_span *s = index < f->map.count ? tp_span_map_at(&f->map, index) : NULL;
        int64_t same_until, next = until;
        if (s && s->from <= at && !(s->flags & UNUSABLE)) {
            if (!too_late(s, delivered_by(c, m, at + 1 - f->base, &same_until))) {
                if (s->first_ns > a->settled_ns) {
                    a->settled_ns = s->first_ns;
                    a->settled_source = s->source;
                }
                a->believed = s->from;
                at = s->to; /* the bound only grows along the stream */
                index++;
                continue;
            }
            next = f->base + same_until < s->to ? f->base + same_until : s->to;
        } else if (s) {
            next = s->from > at ? s->from : s->to;
        }
        if (next > until)
            next = until;
        int64_t by_ns = delivered_by(c, m, next - f->base, &same_until);
        if (by_ns > a->unknown_ns)
            a->unknown_ns = by_ns;
        at = next;
        if (s && s->to <= at)
            index++;
    }
}

/* Whether every living producer of that kind has told something from after `until_ns`, of whatever flow or socket. */
static bool all_passed(const struct tp_join *j, enum tp_input_kind kind, int64_t until_ns) {
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        const struct tp_input *in = &j->inputs[i];
        if (in->kind == kind && in->alive && in->mark_ns <= until_ns)
            return false;
    }
    return true;
}

/* Looks for the exact byte. Returns true when no record that may still come can change the answer. */
static bool look_on_wire(const struct tp_join *j, const struct tp_conn *c, const struct tp_pending *m,
                         struct arrival *a) {
    const struct tp_flow *f = c->flow;
    if (!f) {
        a->reason = j->wires == 0 ? TP_REASON_NO_WIRE : c->ambiguous ? TP_REASON_AMBIGUOUS_FLOW : TP_REASON_NO_FLOW;
        return j->wires == 0;
    }
    bool exact = m->tier != TP_TIER_C && f->has_base;
    bool all_there = true, all_over = true; /* observers: past the message end; past its receipt */
    int observers = 0;
    for (int i = 0; i < TP_OBSERVERS; i++) {
        const struct tp_observer *o = &f->observers[i];
        if (!o->flow)
            continue;
        observers++;
        bool over = o->mark_ns > m->received_ns + TP_SAME_FRAME_NS;
        all_over &= over;
        all_there &= over || (exact && o->position >= f->base + m->end);
    }
    /* A producer that has just begun may be about to show it; it captures a little before its ring is there to be seen.
     */
    if (!observers)
        all_over = j->wires ? all_passed(j, TP_INPUT_WIRE, m->received_ns + TP_SAME_FRAME_NS)
                            : j->horizon_ns - m->received_ns >= TP_SUCCESSION_NS;
    if (!exact) {
        a->reason = m->tier == TP_TIER_C ? TP_REASON_TIER_C : TP_REASON_NO_BASE;
        return m->tier == TP_TIER_C && all_over;
    }
    walk(f, c, m, a);
    const struct tp_span *own = tp_span_map_find(&f->map, f->base + m->end - 1);
    int64_t same_until;
    if (!own || (own->from != a->believed && !(own->flags & UNUSABLE) &&
                 too_late(own, delivered_by(c, m, m->end, &same_until)))) {
        a->reason = TP_REASON_WIRE_GAP;
        return all_over;
    }
    a->own = *own;
    a->method = TP_METHOD_OFFSET;
    a->in_order_ns = a->settled_ns;
    if (own->flags & UNUSABLE)
        a->in_order = own->flags & TP_SPAN_AMBIGUOUS ? TP_REASON_CLOCK_STEP : TP_REASON_CLOCK_UNKNOWN;
    else if (a->unknown_ns > a->settled_ns)
        a->in_order = TP_REASON_WIRE_GAP;
    else if (a->settled_ns > own->first_ns && a->settled_source != own->source)
        a->in_order = TP_REASON_MIXED_SOURCES;
    /* Where the byte came behind later ones, a second observer may be past it and yet be about to show it. */
    bool another = observers > 1 && own->flags & TP_SPAN_REORDERED;
    return all_over || (all_there && !another && a->in_order != TP_REASON_WIRE_GAP);
}

/* Looks for the byte's intervals. Returns true when no record that may still come can change the answer: both events
 * were over, and had their room in the probe's buffer, when the read returned; what the probe tells of a later moment
 * is behind them. */
static bool look_in_kernel(const struct tp_join *j, const struct tp_conn *c, const struct tp_pending *m,
                           const struct tp_span **readable, const struct tp_span **copied) {
    *readable = *copied = NULL;
    if (m->tier == TP_TIER_C)
        return true;
    *readable = tp_span_map_find(&c->readable, m->end - 1);
    *copied = tp_span_map_find(&c->copied, m->end - 1);
    return j->kernels == 0 || (*readable && *copied) ||
           all_passed(j, TP_INPUT_KERNEL, m->received_ns + TP_KERNEL_SKEW_NS);
}

/* The socket's own stamp is of the last segment that the read touched: the message's, when it ends what was read and
 * nothing lay behind it. */
static void look_at_socket_stamp(const struct tp_join *j, const struct tp_read_item *read, const struct tp_pending *m,
                                 struct arrival *a) {
    if (!read || read->sw_ns == 0 || m->tier == TP_TIER_C)
        return;
    if (read->to != m->end || !read->drained) {
        if (a->reason == TP_REASON_NO_WIRE)
            a->reason = TP_REASON_SOCK_NOT_LAST;
        return;
    }
    memset(&a->own, 0, sizeof a->own);
    a->own.from = m->end - 1;
    a->own.to = m->end;
    a->own.source = TP_SOURCE_SOCK;
    struct tp_placed at = {0};
    int error = tp_timeline_convert(&j->timeline, TP_TIMELINE_SELF, TP_CLOCK_REALTIME, 0, read->sw_ns, &at);
    a->own.first_ns = at.time_ns;
    a->own.offset_ns = at.offset_ns;
    a->own.bound_ns = at.bound_ns;
    if (error)
        a->own.flags = error == -ERANGE ? TP_SPAN_AMBIGUOUS : TP_SPAN_UNPLACED;
    a->method = TP_METHOD_OFFSET;
    a->reason = TP_REASON_NONE;
    a->in_order = TP_REASON_SOCK;
}

static void latest_until(const struct tp_span *s, int64_t not_after_ns, struct tp_span *best) {
    if (s->to > s->from && !(s->flags & UNUSABLE) && s->first_ns <= not_after_ns &&
        (best->to == best->from || s->first_ns > best->first_ns))
        *best = *s;
}

static void latest_of_flow(const struct tp_flow *f, int64_t not_after_ns, struct tp_span *best) {
    latest_until(&f->map.latest, not_after_ns, best);
    for (uint32_t i = f->map.count; i-- > 0;)
        latest_until(tp_span_map_at(&f->map, i), not_after_ns, best);
}

/* The lesser methods. They leave a->reason: why it is not offset. Where the byte is known and was not captured, any
 * other segment would be a wrong one. */
static void look_by_time(const struct tp_join *j, const struct tp_conn *c, const struct tp_read_item *read,
                         const struct tp_pending *m, struct arrival *a) {
    int64_t until_ns = c->flow && read ? read->returned_ns : m->received_ns;
    if (c->flow) {
        latest_of_flow(c->flow, until_ns, &a->own);
    } else {
        for (const struct tp_flow *f = j->flows; f; f = f->next) {
            if (!f->conn && f->tuple.remote_port == c->tuple.remote_port)
                latest_of_flow(f, until_ns, &a->own);
        }
    }
    int64_t from_ns = until_ns - TP_NEAR_NS;
    int64_t emptied_ns = c->flow && read ? emptied_before(c, read) : INT64_MIN;
    if (emptied_ns > from_ns)
        from_ns = emptied_ns;
    if (a->own.to > a->own.from && a->own.first_ns >= from_ns)
        a->method = c->flow ? TP_METHOD_SOCKET : TP_METHOD_WINDOW;
    a->in_order = a->reason;
}

static void put_leg(struct tp_joined *r, enum tp_leg leg, enum tp_reason missing, int64_t ns) {
    if (missing != TP_REASON_NONE) {
        r->missing[leg] = (uint8_t)missing;
        return;
    }
    r->leg_ns[leg] = ns;
    r->legs |= 1u << leg;
}

/* The venue's word is not ours: nonsense in it must not be undefined behaviour here. */
static int64_t minus(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static enum tp_reason either(enum tp_reason first, enum tp_reason second) {
    return first != TP_REASON_NONE ? first : second;
}

static void put_stamp(struct tp_joined *r, enum tp_stamp stamp, int64_t *at, enum tp_reason missing, int64_t ns) {
    if (missing != TP_REASON_NONE)
        return;
    *at = ns;
    r->stamps |= stamp;
}

static void measure(const struct tp_join *j, const struct tp_conn *c, const struct tp_pending *m,
                    const struct arrival *a, const struct tp_read_item *read, const struct tp_span *readable,
                    const struct tp_span *copied, struct tp_joined *r) {
    enum tp_reason lost = m->wide_lost ? TP_REASON_WIDE_LOST : TP_REASON_NONE;
    enum tp_reason no_decode = either(lost, m->flags & TP_MESSAGE_HAS_DECODE ? TP_REASON_NONE : TP_REASON_NO_DECODE);
    enum tp_reason no_parsed = either(lost, m->flags & TP_MESSAGE_HAS_PARSED ? TP_REASON_NONE : TP_REASON_NOT_PARSED);
    enum tp_reason no_published =
        either(no_parsed, m->flags & TP_MESSAGE_HAS_PUBLISHED ? TP_REASON_NONE : TP_REASON_NOT_PUBLISHED);
    put_stamp(r, TP_STAMP_DECODE, &r->decode_ns, no_decode, m->received_ns - m->decode_ns);
    put_stamp(r, TP_STAMP_PARSED, &r->parsed_ns, no_parsed, m->received_ns + m->parsed_ns);
    put_stamp(r, TP_STAMP_PUBLISHED, &r->published_ns, no_published, r->parsed_ns + m->published_ns);

    enum tp_reason no_own = found(a) ? TP_REASON_NONE : a->reason;
    if (found(a) && (a->own.flags & UNUSABLE))
        no_own = a->own.flags & TP_SPAN_AMBIGUOUS ? TP_REASON_CLOCK_STEP : TP_REASON_CLOCK_UNKNOWN;
    put_stamp(r, TP_STAMP_OWN, &r->own_ns, no_own, a->own.first_ns);
    r->last_copy_ns = a->own.flags & TP_SPAN_COPIED ? a->own.last_ns : r->own_ns;
    /* A lesser method's stamp is shown, but measures nothing unless it was asked for. */
    if (a->method > (enum tp_method)j->limits.match)
        no_own = a->reason;
    enum tp_reason no_in_order = either(no_own, a->in_order);
    put_stamp(r, TP_STAMP_IN_ORDER, &r->in_order_ns, no_in_order, a->in_order_ns);

    enum tp_reason no_kernel = m->tier == TP_TIER_C   ? TP_REASON_TIER_C
                               : j->kernels == 0      ? TP_REASON_NO_KERNEL
                               : !c || !c->has_kernel ? TP_REASON_NO_SOCKET
                                                      : TP_REASON_NONE;
    enum tp_reason no_readable = readable ? TP_REASON_NONE : either(no_kernel, TP_REASON_READABLE_GAP);
    enum tp_reason no_copied = copied ? TP_REASON_NONE : either(no_kernel, TP_REASON_COPIED_GAP);
    /* The application's own word first, so that a figure does not move with what the kernel lets us attach. */
    bool kernel_asked = !read && copied && copied->tag;
    enum tp_reason no_asked = kernel_asked || read ? TP_REASON_NONE : TP_REASON_NO_READ;
    put_stamp(r, TP_STAMP_READABLE, &r->readable_ns, no_readable, readable ? readable->first_ns : 0);
    put_stamp(r, TP_STAMP_COPIED, &r->copied_ns, no_copied, copied ? copied->first_ns : 0);
    put_stamp(r, TP_STAMP_ASKED, &r->asked_ns, no_asked,
              kernel_asked ? (int64_t)copied->tag
              : read       ? read->asked_ns
                           : 0);

    /* The venue's time is converted as the arrival was, so that the hops add up to the total. */
    enum tp_reason no_exchange = m->flags & TP_MESSAGE_HAS_EXCHANGE ? TP_REASON_NONE : TP_REASON_NO_EXCHANGE;
    r->exchange_ns = m->exchange_ns;
    bool own = no_own == TP_REASON_NONE;
    r->offset_ns = own ? a->own.offset_ns : tp_timeline_offset(&j->timeline, m->received_ns);
    if (r->offset_ns == TP_OFFSET_UNKNOWN)
        no_exchange = either(no_exchange, TP_REASON_CLOCK_UNKNOWN);
    else if (r->offset_ns == TP_OFFSET_STEP)
        no_exchange = either(no_exchange, TP_REASON_CLOCK_STEP);
    int64_t exchange = no_exchange == TP_REASON_NONE ? minus(m->exchange_ns, r->offset_ns) : 0;
    if (m->flags & TP_MESSAGE_HAS_EXCHANGE)
        r->stamps |= TP_STAMP_EXCHANGE;

    put_leg(r, TP_LEG_BN_TO_NIC, either(no_own, no_exchange), minus(r->own_ns, exchange));
    put_leg(r, TP_LEG_NIC_TO_KERNEL, either(no_own, no_readable), r->readable_ns - r->own_ns);
    put_leg(r, TP_LEG_KERNEL_TO_USER, no_readable, m->received_ns - r->readable_ns);
    put_leg(r, TP_LEG_CPU, no_parsed, m->parsed_ns);
    put_leg(r, TP_LEG_MSK, no_published, m->published_ns);

    put_leg(r, TP_LEG_HOL_WAIT, no_in_order, r->in_order_ns - r->own_ns);
    put_leg(r, TP_LEG_STACK, either(no_in_order, no_readable), r->readable_ns - r->in_order_ns);
    int64_t ready_ns = r->asked_ns > r->readable_ns ? r->asked_ns : r->readable_ns;
    enum tp_reason no_ready = either(no_readable, no_asked);
    put_leg(r, TP_LEG_APP_BUSY, no_ready, ready_ns - r->readable_ns);
    put_leg(r, TP_LEG_WAKE, either(no_ready, no_copied), r->copied_ns - ready_ns);
    put_leg(r, TP_LEG_BACKLOG, either(no_copied, no_decode), r->decode_ns - r->copied_ns);
    put_leg(r, TP_LEG_DECODE, no_decode, m->decode_ns);

    put_leg(r, TP_LEG_TOTAL, either(no_published, no_exchange), minus(r->published_ns, exchange));
    put_leg(r, TP_LEG_IN_HOST, either(no_own, no_published), r->published_ns - r->own_ns);
    /* Only where the two hops that it spans are not known apart. */
    if (!(r->legs & 1u << TP_LEG_NIC_TO_KERNEL))
        put_leg(r, TP_LEG_NIC_TO_USER, no_own, m->received_ns - r->own_ns);
}

static void describe(const struct tp_pending *m, uint32_t input, uint32_t row, struct tp_joined *r) {
    memset(r, 0, sizeof *r);
    r->end = (uint64_t)m->end;
    r->received_ns = m->received_ns;
    r->transaction_ns = m->transaction_ns;
    r->ordinal = m->ordinal;
    r->length = m->length;
    r->row = row;
    r->ring = (uint16_t)input;
    r->tier = m->tier < TP_TIERS ? m->tier : 0;
    r->message_flags = m->flags;
}

/* What lies behind a finished message is not needed again, but for the byte that messages with the same end share. */
static void settle(struct tp_conn *c, const struct tp_pending *m, const struct tp_read_item *read,
                   const struct arrival *a) {
    struct tp_flow *f = c->flow;
    int64_t delivered_ns = read ? read->returned_ns : m->received_ns;
    if (m->tier == TP_TIER_C)
        return;
    if (f && f->has_base && f->base + m->end >= f->settled) {
        f->settled = f->base + m->end;
        f->settled_ns = a->settled_ns;
        f->unknown_ns = a->unknown_ns;
        f->settled_source = a->settled_source;
        tp_span_map_forget(&f->map, f->settled - 1, delivered_ns);
    }
    tp_span_map_forget(&c->readable, m->end - 1, INT64_MAX);
    tp_span_map_forget(&c->copied, m->end - 1, INT64_MAX);
    for (; c->reads.count; tp_queue_pop(&c->reads)) {
        const struct tp_read_item *first = tp_queue_at(&c->reads, 0);
        if (first->to >= m->end)
            break;
        c->emptied_ns = emptied(first);
    }
}

bool tp_finish_head(struct tp_join *j, struct tp_conn *c, int64_t now_ns, bool force, enum tp_reason forced_reason) {
    const struct tp_pending *m = tp_queue_at(&c->pending, 0);
    struct arrival a;
    const struct tp_span *readable, *copied;
    memset(&a, 0, sizeof a);
    if (j->wires && !(c->flow && c->flow->has_base))
        tp_conn_bind(j, c, now_ns);
    bool wire_done = look_on_wire(j, c, m, &a);
    bool kernel_done = look_in_kernel(j, c, m, &readable, &copied);
    if (!(wire_done && kernel_done) && !force && j->horizon_ns - m->received_ns < j->limits.window_ns)
        return false;
    const struct tp_read_item *read = m->tier == TP_TIER_C ? NULL : read_of(c, m->end);
    if (!found(&a))
        look_at_socket_stamp(j, read, m, &a);
    if (!found(&a) && a.reason != TP_REASON_WIRE_GAP)
        look_by_time(j, c, read, m, &a);
    if (!found(&a))
        a.in_order = a.reason;
    if (forced_reason != TP_REASON_NONE) {
        j->totals.messages_evicted++;
        if (!found(&a))
            a.reason = a.in_order = forced_reason;
    }
    struct tp_joined r;
    describe(m, c->input, c->handle, &r);
    r.cookie = c->cookie;
    r.method = (uint8_t)a.method;
    r.reason = (uint8_t)a.reason;
    if (found(&a)) {
        r.source = a.own.source;
        r.own_bound_ns = a.own.bound_ns;
        r.frame = a.own.tag;
        r.span_flags = a.own.flags;
    }
    const struct tp_flow *f = c->flow;
    if (f && f->has_base)
        r.tcp_seq = (uint32_t)(f->base + m->end - 1);
    else if (c->has_irs)
        r.tcp_seq = c->irs + (uint32_t)m->end;
    measure(j, c, m, &a, read, readable, copied, &r);
    r.blocked = (r.stamps & TP_STAMP_IN_ORDER) && r.in_order_ns > r.own_ns;
    tp_account(j, c->label, &r);
    settle(c, m, read, &a);
    tp_queue_pop(&c->pending);
    j->totals.pending--;
    return true;
}

void tp_finish_orphan(struct tp_join *j, struct tp_label *label, uint32_t input, uint32_t row,
                      const struct tp_pending *m, enum tp_reason reason) {
    struct arrival a;
    struct tp_joined r;
    memset(&a, 0, sizeof a);
    a.reason = a.in_order = reason;
    describe(m, input, row, &r);
    r.reason = (uint8_t)reason;
    measure(j, NULL, m, &a, NULL, NULL, NULL, &r);
    tp_account(j, label, &r);
}
