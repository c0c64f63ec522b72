/* SPDX-License-Identifier: Apache-2.0
 *
 * Records in: each goes to the connection or flow it speaks of. What a message comes to is decided in finish.c.
 */
#include "exporter/correlator/internal.h"

#define TCP_SYN 0x02u

int tp_join_init(struct tp_join *j, const struct tp_correlator_limits *limits) {
    memset(j, 0, sizeof *j);
    j->limits = *limits;
    j->budget = limits->memory_bytes;
    tp_timeline_init(&j->timeline);
    for (int i = 0; i < 2; i++)
        tp_histogram_reset(&j->connects.latencies[i]);
    for (int source = 0; source < TP_SOURCES; source++)
        j->bounds_ns[0][source] = j->bounds_ns[1][source] = -1;
    j->labels = calloc(limits->labels, sizeof *j->labels);
    if (limits->joined)
        j->joined = calloc(limits->joined, sizeof *j->joined);
    if (!j->labels || (limits->joined && !j->joined)) {
        tp_join_free(j);
        return -ENOMEM;
    }
    /* The first label is for what finds no other: connections whose row is lost, and those beyond the limit. */
    j->label_count = 1;
    return 0;
}

void tp_join_free(struct tp_join *j) {
    for (struct tp_conn *c = j->conns; c; c = c->next)
        c->pending.count = 0;
    while (j->conns)
        tp_conn_free(j, j->conns);
    while (j->flows)
        tp_flow_free(j, j->flows);
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        free(j->inputs[i].by_row);
        free(j->inputs[i].handles);
    }
    for (uint32_t i = 0; i < j->label_count; i++) {
        for (int leg = 0; leg < TP_LEGS; leg++) {
            for (int source = 0; source < TP_SOURCES; source++)
                free(j->labels[i].tails[leg][source]);
        }
    }
    tp_account_free_pings(j);
    free(j->labels);
    free(j->joined);
    memset(j, 0, sizeof *j);
}

void tp_join_input_alive(struct tp_join *j, uint32_t input, bool alive, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    if (in->alive == alive)
        return;
    in->alive = alive;
    int change = alive ? 1 : -1;
    j->wires += in->kind == TP_INPUT_WIRE ? change : 0;
    j->kernels += in->kind == TP_INPUT_KERNEL ? change : 0;
    if (alive)
        return;
    for (struct tp_conn *c = j->conns; c; c = c->next) {
        if (c->has_feed && c->input == input && !c->closed_ns)
            c->closed_ns = now_ns;
    }
    for (struct tp_flow *f = j->flows; f; f = f->next) {
        for (int i = 0; i < TP_OBSERVERS; i++) {
            if (f->observers[i].flow && f->observers[i].input == input)
                f->observers[i].flow = NULL;
        }
    }
    if (in->kind == TP_INPUT_WIRE)
        memset(in->by_row, 0, in->rows * sizeof *in->by_row);
}

int tp_join_input_add(struct tp_join *j, uint32_t input, enum tp_input_kind kind, uint32_t rows,
                      int (*row)(const void *, uint32_t, struct tp_row *), const void *context) {
    struct tp_input *in = &j->inputs[input];
    in->by_row = calloc(rows, sizeof *in->by_row);
    in->handles = calloc(rows, sizeof *in->handles);
    if (!in->by_row || !in->handles) {
        free(in->by_row);
        free(in->handles);
        memset(in, 0, sizeof *in);
        return -ENOMEM;
    }
    in->kind = kind;
    in->mark_ns = INT64_MIN;
    in->rows = rows;
    in->row = row;
    in->context = context;
    tp_join_input_alive(j, input, true, 0);
    return (int)input;
}

/* Beyond these no sum of a few can overflow. */
#define OFFSET_LIMIT (UINT64_C(1) << 60)
#define DURATION_LIMIT_NS (INT64_C(1) << 59)

static bool time_good(int64_t ns) {
    return ns > -TP_TIME_LIMIT_NS && ns < TP_TIME_LIMIT_NS;
}

static bool duration_good(int64_t ns) {
    return ns > -DURATION_LIMIT_NS && ns < DURATION_LIMIT_NS;
}

static bool range_good(uint64_t from, uint64_t to) {
    return from <= to && to < OFFSET_LIMIT;
}

/* A producer that writes nonsense spoils no other's figures. */
static bool record_good(const struct tp_event *e) {
    switch (e->kind) {
    case TP_KIND_SEGMENT:
        return time_good((int64_t)e->segment.seen_ns) && e->source < TP_SOURCES;
    case TP_KIND_READ:
        return time_good(e->time_ns) && time_good((int64_t)e->read.asked_ns) && range_good(e->read.from, e->read.to);
    case TP_KIND_MESSAGE:
        return time_good(e->time_ns) && time_good(e->message.exchange_ns) && e->message.end < OFFSET_LIMIT;
    case TP_KIND_PASSED:
        return time_good(e->time_ns);
    case TP_KIND_MESSAGE_WIDE:
        return duration_good(e->wide.decode_ns) && duration_good(e->wide.parsed_ns) &&
               duration_good(e->wide.published_ns);
    case TP_KIND_READABLE:
    case TP_KIND_COPIED:
        return time_good(e->time_ns) && time_good((int64_t)e->interval.asked_ns) &&
               range_good(e->interval.from, e->interval.to);
    case TP_KIND_CONNECT:
        return time_good(e->time_ns) && e->connect.result < TP_CONNECT_RESULTS &&
               (e->connect.family == 4 || e->connect.family == 6) &&
               e->connect.latency_ns < (uint64_t)DURATION_LIMIT_NS;
    case TP_KIND_PING:
        return time_good(e->time_ns) && e->ping.result < TP_PING_RESULTS && e->ping.proto &&
               e->ping.proto < TP_PING_PROTOS && e->source < TP_PING_SOURCES &&
               (e->ping.result == TP_PING_ERROR || duration_good(e->ping.rtt_ns));
    case TP_KIND_PING_SPLIT:
        return time_good(e->time_ns) && e->split.why < TP_PING_SPLITS && e->split.proto &&
               e->split.proto < TP_PING_PROTOS && e->source < TP_PING_SOURCES &&
               e->split.far_source < TP_PING_SOURCES && duration_good(e->split.path_ns) &&
               duration_good(e->split.out_ns) && e->split.bound_ns >= 0;
    default:
        return true;
    }
}

static void reached(struct tp_conn *c, uint64_t offset) {
    if ((int64_t)offset > c->reached)
        c->reached = (int64_t)offset;
}

static void take_segment(struct tp_join *j, uint32_t input, const struct tp_event *e, int64_t now_ns) {
    const struct tp_segment *s = &e->segment;
    j->totals.segments++;
    if (e->flags & TP_SEGMENT_BAD_CSUM) {
        j->totals.segments_bad_checksum++;
        return;
    }
    struct tp_observer *o = tp_observer_of_row(j, input, e->row, now_ns);
    if (!o) {
        j->totals.segments_no_row++;
        return;
    }
    struct tp_flow *f = o->flow;
    f->used_ns = now_ns;
    int64_t near = f->position;
    if (!f->has_position) {
        near = tp_unwrap_first(s->seq);
        f->has_position = true;
        j->flows_version++;
    } else if (f->conn && f->has_base && f->base + f->conn->reached > near) {
        near = f->base + f->conn->reached; /* the host has gone on while nobody captured */
    }
    int64_t from = tp_unwrap(near, s->seq);
    if (s->tcp_flags & TCP_SYN) {
        from++;
        if (!f->has_base) {
            f->irs = s->seq;
            f->has_irs = true;
            f->base = from;
            f->has_base = true;
            f->settled = from;
        }
    }
    struct tp_span span = {
        .from = from,
        .to = from + s->length,
        .tag = s->frame,
        .observer = input,
        .source = e->source,
        .flags = e->flags & TP_SEGMENT_MERGED ? TP_SPAN_MERGED : 0,
        .bound_ns = s->bound_ns,
    };
    struct tp_placed at = {0};
    int error = tp_timeline_convert(&j->timeline, input, e->clock, s->ifindex, e->time_ns, &at);
    span.first_ns = at.time_ns;
    span.offset_ns = at.offset_ns;
    span.bound_ns += at.bound_ns;
    if (error) {
        span.first_ns = (int64_t)s->seen_ns;
        span.flags |= error == -ERANGE ? TP_SPAN_AMBIGUOUS : TP_SPAN_UNPLACED;
        j->totals.segments_unplaced++;
    }
    span.last_ns = span.first_ns;
    f->position = span.to;
    if (span.to > o->position)
        o->position = span.to;
    if (span.first_ns > o->mark_ns && !error)
        o->mark_ns = span.first_ns;
    if (span.first_ns > j->inputs[input].mark_ns && !error)
        j->inputs[input].mark_ns = span.first_ns;
    unsigned outcome = tp_span_map_add(&f->map, &span);
    if (outcome & (TP_SPAN_AGAIN | TP_SPAN_BEHIND | TP_SPAN_LATE)) {
        j->totals.segments_retransmitted += !!(outcome & TP_SPAN_AGAIN);
        j->totals.segments_reordered += !!(outcome & TP_SPAN_LATE);
        j->totals.segments_late += !!(outcome & TP_SPAN_BEHIND);
    }
}

/* A kernel probe's records come in the order in which the kernel made room for them, each after it read the clock. Not
 * so its HELLO: events of before it may still wait in the kernel. */
static void take_mark(struct tp_input *in, int64_t time_ns) {
    if (time_ns > in->mark_ns)
        in->mark_ns = time_ns;
}

static void take_interval(struct tp_join *j, uint32_t input, const struct tp_event *e, int64_t now_ns) {
    const struct tp_interval *i = &e->interval;
    struct tp_conn *c = tp_conn_of_cookie(j, input, e->row, i->cookie, now_ns);
    if (!c) {
        j->totals.intervals_no_socket++;
        return;
    }
    c->used_ns = now_ns;
    reached(c, i->to);
    if (!c->has_irs) {
        c->irs = i->seq - (uint32_t)i->to - 1;
        c->has_irs = true;
        j->flows_version++;
    }
    struct tp_span span = {
        .from = (int64_t)i->from,
        .to = (int64_t)i->to,
        .first_ns = e->time_ns,
        .last_ns = e->time_ns,
        .tag = i->asked_ns,
    };
    tp_span_map_add(e->kind == TP_KIND_READABLE ? &c->readable : &c->copied, &span);
}

static void take_read(struct tp_join *j, uint32_t input, const struct tp_event *e, int64_t now_ns) {
    const struct tp_read *r = &e->read;
    struct tp_conn *c = tp_conn_of_row(j, input, e->row, now_ns);
    if (!c) {
        j->totals.reads_evicted++;
        return;
    }
    c->used_ns = now_ns;
    reached(c, r->to);
    struct tp_read_item *item = tp_queue_push(&c->reads);
    if (!item && c->reads.count) {
        j->totals.reads_evicted++;
        tp_queue_pop(&c->reads);
        item = tp_queue_push(&c->reads);
    }
    if (!item)
        return;
    item->from = (int64_t)r->from;
    item->to = (int64_t)r->to;
    item->asked_ns = (int64_t)r->asked_ns;
    item->returned_ns = e->time_ns;
    item->sw_ns = r->sw_ns;
    item->drained = e->flags & TP_READ_DRAINED;
}

static void take_message(struct tp_join *j, uint32_t input, const struct tp_event *e, const struct tp_event *wide,
                         int64_t now_ns) {
    const struct tp_message *m = &e->message;
    struct tp_pending p = {
        .received_ns = e->time_ns,
        .exchange_ns = m->exchange_ns,
        .end = (int64_t)m->end,
        .decode_ns = m->decode_ns,
        .parsed_ns = m->parsed_ns,
        .published_ns = m->published_ns,
        .transaction_ns = m->transaction_ns,
        .ordinal = m->ordinal,
        .length = m->length,
        .flags = e->flags,
        .tier = e->source,
    };
    if (wide) {
        p.length = wide->wide.length > UINT32_MAX ? UINT32_MAX : (uint32_t)wide->wide.length;
        p.decode_ns = wide->wide.decode_ns;
        p.parsed_ns = wide->wide.parsed_ns;
        p.published_ns = wide->wide.published_ns;
        p.transaction_ns = wide->wide.transaction_ns;
    } else if (e->flags & TP_MESSAGE_WIDE) {
        p.wide_lost = true;
        j->totals.wide_lost++;
    }
    struct tp_conn *c = tp_conn_of_row(j, input, e->row, now_ns);
    if (!c) {
        j->totals.messages_no_row++;
        tp_finish_orphan(j, &j->labels[0], input, e->row, &p, TP_REASON_ROW_LOST);
        return;
    }
    c->used_ns = now_ns;
    if (p.tier != TP_TIER_C)
        reached(c, m->end);
    if (p.end < c->last_end)
        j->totals.ends_backwards++;
    else
        c->last_end = p.end;
    if (c->has_ordinal && (int32_t)(p.ordinal - c->next_ordinal) > 0)
        c->label->ordinal_gaps += p.ordinal - c->next_ordinal;
    c->has_ordinal = true;
    c->next_ordinal = p.ordinal + 1;
    struct tp_pending *slot;
    while (!(slot = tp_queue_push(&c->pending)) && c->pending.count)
        tp_finish_head(j, c, now_ns, true, TP_REASON_EVICTED);
    if (!slot) {
        j->totals.messages_evicted++;
        tp_finish_orphan(j, c->label, input, e->row, &p, TP_REASON_EVICTED);
        return;
    }
    *slot = p;
    j->totals.pending++;
    tp_conn_set_waiting(j, c);
}

/* A message whose second record came, or did not. */
static void finish_wide(struct tp_join *j, uint32_t input, const struct tp_event *wide, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    if (!in->has_wide_first)
        return;
    in->has_wide_first = false;
    take_message(j, input, &in->wide_first, wide, now_ns);
}

void tp_join_input_remove(struct tp_join *j, uint32_t input, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    finish_wide(j, input, NULL, now_ns);
    tp_join_input_alive(j, input, false, now_ns);
    struct tp_conn *next;
    for (struct tp_conn *c = j->conns; c; c = next) {
        next = c->next;
        if (c->has_feed && c->input == input)
            tp_conn_free(j, c);
    }
    free(in->by_row);
    free(in->handles);
    memset(in, 0, sizeof *in);
}

static void take_connection(struct tp_join *j, uint32_t input, const struct tp_event *e, int64_t now_ns) {
    enum tp_input_kind kind = j->inputs[input].kind;
    if (kind == TP_INPUT_FEED) {
        struct tp_conn *c = tp_conn_of_row(j, input, e->row, now_ns);
        if (!c)
            return;
        tp_conn_refresh(j, c, now_ns);
        if (e->kind == TP_KIND_CLOSED && !c->closed_ns)
            c->closed_ns = e->time_ns;
    } else if (kind == TP_INPUT_WIRE) {
        struct tp_observer *o = tp_observer_of_row(j, input, e->row, now_ns);
        if (o)
            tp_flow_refresh(j, o->flow);
    }
}

static void take_ping(struct tp_join *j, const struct tp_input *in, const struct tp_event *e) {
    struct tp_row row;
    const struct tp_row *found = in->row(in->context, e->row, &row) == 0 ? &row : NULL;
    if (e->kind == TP_KIND_PING)
        tp_account_ping(j, e, found);
    else
        tp_account_ping_split(j, e, found);
}

/* When a record was written, about: on the monotonic clock whatever its stamp's is. */
static int64_t written_ns(const struct tp_event *e) {
    if (e->kind == TP_KIND_SEGMENT)
        return (int64_t)e->segment.seen_ns;
    return e->kind == TP_KIND_CLOCK ? e->reading.after_ns : e->time_ns;
}

void tp_join_records(struct tp_join *j, uint32_t input, const struct tp_event *events, size_t count, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    j->totals.records += count;
    if (count)
        in->last_ns = written_ns(&events[count - 1]);
    for (size_t i = 0; i < count; i++) {
        const struct tp_event *e = &events[i];
        if (!record_good(e)) {
            j->totals.malformed++;
            continue;
        }
        if (in->has_wide_first) {
            bool wide = e->kind == TP_KIND_MESSAGE_WIDE && e->row == in->wide_first.row;
            finish_wide(j, input, wide ? e : NULL, now_ns);
            if (wide)
                continue;
        }
        /* A kind that this sort of producer does not write would be taken for another's row. */
        if ((e->kind == TP_KIND_SEGMENT && in->kind != TP_INPUT_WIRE) ||
            ((e->kind == TP_KIND_READ || e->kind == TP_KIND_MESSAGE) && in->kind != TP_INPUT_FEED) ||
            ((e->kind == TP_KIND_READABLE || e->kind == TP_KIND_COPIED || e->kind == TP_KIND_CONNECT ||
              e->kind == TP_KIND_PASSED) &&
             in->kind != TP_INPUT_KERNEL) ||
            ((e->kind == TP_KIND_PING || e->kind == TP_KIND_PING_SPLIT) && in->kind != TP_INPUT_PING)) {
            j->totals.unknown_kinds++;
            continue;
        }
        switch (e->kind) {
        case TP_KIND_SEGMENT:
            take_segment(j, input, e, now_ns);
            break;
        case TP_KIND_READ:
            take_read(j, input, e, now_ns);
            break;
        case TP_KIND_MESSAGE:
            if (e->flags & TP_MESSAGE_WIDE) {
                in->wide_first = *e;
                in->has_wide_first = true;
            } else {
                take_message(j, input, e, NULL, now_ns);
            }
            break;
        case TP_KIND_READABLE:
        case TP_KIND_COPIED:
            take_mark(in, e->time_ns);
            take_interval(j, input, e, now_ns);
            break;
        case TP_KIND_PASSED:
            take_mark(in, e->time_ns);
            break;
        case TP_KIND_CONNECT:
            take_mark(in, e->time_ns);
            tp_account_connect(j, &e->connect);
            break;
        case TP_KIND_PING:
        case TP_KIND_PING_SPLIT:
            take_ping(j, in, e);
            break;
        case TP_KIND_CLOCK:
            tp_timeline_reading(&j->timeline, input, e);
            break;
        case TP_KIND_OPENED:
        case TP_KIND_CLOSED:
            take_connection(j, input, e, now_ns);
            break;
        case TP_KIND_HELLO:
            /* Before its lock is looked at again: from here on it may be waited for. */
            tp_join_input_alive(j, input, true, now_ns);
            break;
        case TP_KIND_BYE:
            break;
        default:
            j->totals.unknown_kinds++; /* MESSAGE_WIDE without its MESSAGE, or a kind of a later ABI */
        }
    }
}

void tp_join_advance(struct tp_join *j, int64_t now_ns, int64_t horizon_ns, bool flush) {
    j->horizon_ns = horizon_ns;
    for (uint32_t i = 0; flush && i < TP_INPUTS; i++)
        finish_wide(j, i, NULL, now_ns);
    struct tp_conn *next;
    for (struct tp_conn *c = j->waiting; c; c = next) {
        next = c->next_waiting;
        while (c->pending.count && tp_finish_head(j, c, now_ns, flush, TP_REASON_NONE))
            ;
        if (!c->pending.count)
            tp_conn_clear_waiting(c);
    }
    if (now_ns >= j->housekeeping_ns || now_ns < j->housekeeping_ns - TP_HOUSEKEEPING_NS) {
        j->housekeeping_ns = now_ns + TP_HOUSEKEEPING_NS;
        tp_account_age(j, now_ns);
        tp_connections_keep(j, now_ns);
    }
}
