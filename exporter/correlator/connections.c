/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is who: connections by row and cookie, wire flows by 4-tuple, and which flow carries which connection.
 */
#include "exporter/correlator/internal.h"

/* Observers of one flow see it open at slightly different moments, and the feed learns of its connection after the
 * handshake that the wire saw. */
#define OPEN_SLACK_NS INT64_C(1000000000)

static uint32_t hash_cookie(uint64_t cookie) {
    return (uint32_t)((cookie * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (TP_BUCKETS - 1);
}

static uint32_t hash_tuple(const struct tp_tuple *tuple) {
    const unsigned char *bytes = (const unsigned char *)tuple;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof *tuple; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(hash >> 32) & (TP_BUCKETS - 1);
}

static struct tp_tuple tuple_of(const struct tp_row *row) {
    struct tp_tuple tuple;
    memset(&tuple, 0, sizeof tuple);
    memcpy(tuple.local, row->local, sizeof tuple.local);
    memcpy(tuple.remote, row->remote, sizeof tuple.remote);
    tuple.local_port = row->local_port;
    tuple.remote_port = row->remote_port;
    return tuple;
}

static bool tuple_equal(const struct tp_tuple *a, const struct tp_tuple *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static bool remote_equal(const struct tp_tuple *a, const struct tp_tuple *b) {
    return a->remote_port == b->remote_port && memcmp(a->remote, b->remote, sizeof a->remote) == 0;
}

static bool overlap(int64_t opened_a, int64_t closed_a, int64_t opened_b, int64_t closed_b) {
    return (closed_b == 0 || opened_a <= closed_b + OPEN_SLACK_NS) &&
           (closed_a == 0 || opened_b <= closed_a + OPEN_SLACK_NS);
}

/* Two that are open at the same time, not merely one after the other. */
static bool coexist(const struct tp_conn *a, const struct tp_conn *b) {
    return (b->closed_ns == 0 || a->opened_ns < b->closed_ns) && (a->closed_ns == 0 || b->opened_ns < a->closed_ns);
}

/* ---- connections ---- */

static void conn_unhash(struct tp_join *j, struct tp_conn *c) {
    if (!c->cookie)
        return;
    struct tp_conn **at = &j->by_cookie[hash_cookie(c->cookie)];
    while (*at && *at != c)
        at = &(*at)->next_by_cookie;
    if (*at)
        *at = c->next_by_cookie;
}

static void conn_hash(struct tp_join *j, struct tp_conn *c, uint64_t cookie) {
    conn_unhash(j, c);
    c->cookie = cookie;
    if (!cookie)
        return;
    struct tp_conn **bucket = &j->by_cookie[hash_cookie(cookie)];
    c->next_by_cookie = *bucket;
    *bucket = c;
}

void tp_conn_set_waiting(struct tp_join *j, struct tp_conn *c) {
    if (c->waiting_link)
        return;
    c->next_waiting = j->waiting;
    if (j->waiting)
        j->waiting->waiting_link = &c->next_waiting;
    c->waiting_link = &j->waiting;
    j->waiting = c;
}

void tp_conn_clear_waiting(struct tp_conn *c) {
    if (!c->waiting_link)
        return;
    *c->waiting_link = c->next_waiting;
    if (c->next_waiting)
        c->next_waiting->waiting_link = c->waiting_link;
    c->waiting_link = NULL;
}

static void flow_release(struct tp_join *j, struct tp_flow *f) {
    if (f->conn)
        f->conn->flow = NULL;
    f->conn = NULL;
    j->flows_version++;
}

void tp_conn_free(struct tp_join *j, struct tp_conn *c) {
    while (c->pending.count)
        tp_finish_head(j, c, c->used_ns, true, TP_REASON_EVICTED);
    if (c->flow) {
        struct tp_flow *f = c->flow;
        flow_release(j, f);
        /* The stream is over: a successor with the same tuple is another stream. */
        if (c->closed_ns && !f->closed_ns)
            f->closed_ns = c->closed_ns;
    }
    if (c->has_feed) {
        struct tp_input *in = &j->inputs[c->input];
        uint32_t index = c->handle & 0xffffu;
        if (in->by_row && index < in->rows && in->by_row[index] == c)
            in->by_row[index] = NULL;
    }
    conn_unhash(j, c);
    tp_conn_clear_waiting(c);
    tp_span_map_free(&c->readable);
    tp_span_map_free(&c->copied);
    tp_queue_free(&c->reads);
    tp_queue_free(&c->pending);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    j->totals.connections--;
    free(c);
}

static struct tp_conn *conn_new(struct tp_join *j, int64_t now_ns) {
    if (j->totals.connections >= j->limits.connections) {
        struct tp_conn *oldest = j->conns;
        for (struct tp_conn *c = j->conns; c; c = c->next) {
            bool older = c->used_ns < oldest->used_ns;
            if (!!c->closed_ns > !!oldest->closed_ns || (!!c->closed_ns == !!oldest->closed_ns && older))
                oldest = c;
        }
        j->totals.connections_evicted++;
        tp_conn_free(j, oldest);
    }
    struct tp_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    tp_span_map_init(&c->readable, j->limits.segments, &j->budget);
    tp_span_map_init(&c->copied, j->limits.segments, &j->budget);
    tp_queue_init(&c->reads, sizeof(struct tp_read_item), 1024, &j->budget);
    tp_queue_init(&c->pending, sizeof(struct tp_pending), j->limits.pending, &j->budget);
    c->used_ns = now_ns;
    c->emptied_ns = INT64_MIN;
    c->next = j->conns;
    c->link = &j->conns;
    if (j->conns)
        j->conns->link = &c->next;
    j->conns = c;
    j->totals.connections++;
    return c;
}

static void conn_take_row(struct tp_join *j, struct tp_conn *c, const struct tp_row *row) {
    c->tuple = tuple_of(row);
    if (!c->opened_ns)
        c->opened_ns = row->opened_ns;
    if (row->state == TP_ROW_CLOSED && !c->closed_ns)
        c->closed_ns = row->closed_ns ? row->closed_ns : c->used_ns;
    if (row->flags & TP_ROW_HAS_IRS) {
        c->irs = row->irs;
        c->has_irs = true;
    }
    if (row->cookie && row->cookie != c->cookie)
        conn_hash(j, c, row->cookie);
}

void tp_conn_refresh(struct tp_join *j, struct tp_conn *c, int64_t now_ns) {
    struct tp_row row;
    const struct tp_input *in = &j->inputs[c->input];
    if (!c->has_feed || !in->row)
        return;
    int error = in->row(in->context, c->handle, &row);
    if (error == 0)
        conn_take_row(j, c, &row);
    else if (error == -ESTALE && !c->closed_ns)
        c->closed_ns = now_ns; /* its row is another's by now: its end was overwritten */
}

/* The other probe's half of the same socket: by cookie, or by tuple where one side does not know the cookie. */
static struct tp_conn *conn_half(struct tp_join *j, const struct tp_row *row, uint64_t cookie, bool want_feed) {
    struct tp_tuple tuple = tuple_of(row);
    if (cookie) {
        for (struct tp_conn *c = j->by_cookie[hash_cookie(cookie)]; c; c = c->next_by_cookie) {
            if (c->cookie == cookie && c->has_feed == want_feed)
                return c;
        }
    }
    for (struct tp_conn *c = j->conns; c; c = c->next) {
        if (c->has_feed == want_feed && c->has_kernel == !want_feed && (!c->cookie || !cookie) &&
            tuple_equal(&c->tuple, &tuple) && overlap(c->opened_ns, c->closed_ns, row->opened_ns, row->closed_ns))
            return c;
    }
    return NULL;
}

/* True: the handle stands for `known`, NULL where nothing can be read of it. False: it is new, and its row is `row`. */
static bool settled(const struct tp_input *in, uint32_t handle, void **known, struct tp_row *row) {
    uint32_t index = handle & 0xffffu;
    *known = NULL;
    if (handle == TP_ROW_NONE || index >= in->rows)
        return true;
    if (in->by_row[index] && in->handles[index] == handle)
        *known = in->by_row[index];
    return *known || in->row(in->context, handle, row) != 0;
}

struct tp_conn *tp_conn_of_row(struct tp_join *j, uint32_t input, uint32_t handle, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    uint32_t index = handle & 0xffffu;
    struct tp_row row;
    void *known;
    if (settled(in, handle, &known, &row))
        return known;
    struct tp_conn *old = in->by_row[index];
    if (old && !old->closed_ns)
        old->closed_ns = row.opened_ns ? row.opened_ns : now_ns;
    struct tp_conn *c = conn_half(j, &row, row.cookie, false);
    if (!c)
        c = conn_new(j, now_ns);
    if (!c)
        return NULL;
    c->has_feed = true;
    c->input = input;
    c->handle = handle;
    c->opened_ns = 0;
    conn_take_row(j, c, &row);
    c->label = tp_label_of(j, &row);
    in->by_row[index] = c;
    in->handles[index] = handle;
    j->flows_version++;
    return c;
}

struct tp_conn *tp_conn_of_cookie(struct tp_join *j, uint32_t input, uint32_t handle, uint64_t cookie, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    struct tp_row row;
    for (struct tp_conn *c = j->by_cookie[hash_cookie(cookie)]; c; c = c->next_by_cookie) {
        if (c->cookie == cookie) {
            c->has_kernel = true;
            return c;
        }
    }
    if (!cookie)
        return NULL;
    bool has_row = handle != TP_ROW_NONE && in->row(in->context, handle, &row) == 0;
    if (!has_row) {
        memset(&row, 0, sizeof row);
        row.opened_ns = now_ns;
    }
    struct tp_conn *c = has_row ? conn_half(j, &row, 0, true) : NULL;
    if (!c) {
        c = conn_new(j, now_ns);
        if (!c)
            return NULL;
        conn_take_row(j, c, &row);
    }
    conn_hash(j, c, cookie);
    c->has_kernel = true;
    return c;
}

/* ---- flows ---- */

void tp_flow_free(struct tp_join *j, struct tp_flow *f) {
    struct tp_flow **at = &j->by_tuple[hash_tuple(&f->tuple)];
    while (*at && *at != f)
        at = &(*at)->next_hashed;
    if (*at)
        *at = f->next_hashed;
    flow_release(j, f);
    for (int i = 0; i < TP_OBSERVERS; i++) {
        struct tp_observer *o = &f->observers[i];
        if (!o->flow)
            continue;
        struct tp_input *in = &j->inputs[o->input];
        uint32_t index = o->handle & 0xffffu;
        if (in->by_row && index < in->rows && in->by_row[index] == o)
            in->by_row[index] = NULL;
    }
    j->totals.spans_evicted += f->map.overflowed;
    tp_span_map_free(&f->map);
    *f->link = f->next;
    if (f->next)
        f->next->link = f->link;
    j->totals.flows--;
    free(f);
}

static struct tp_flow *flow_new(struct tp_join *j, const struct tp_row *row, int64_t now_ns) {
    if (j->totals.flows >= j->limits.connections) {
        struct tp_flow *oldest = NULL;
        for (struct tp_flow *f = j->flows; f; f = f->next) {
            if (!oldest || !!f->conn < !!oldest->conn || (!f->conn == !oldest->conn && f->used_ns < oldest->used_ns))
                oldest = f;
        }
        j->totals.flows_evicted++;
        tp_flow_free(j, oldest);
    }
    struct tp_flow *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->tuple = tuple_of(row);
    f->opened_ns = row->opened_ns;
    f->used_ns = now_ns;
    f->settled_ns = f->unknown_ns = INT64_MIN;
    tp_span_map_init(&f->map, j->limits.segments, &j->budget);
    struct tp_flow **bucket = &j->by_tuple[hash_tuple(&f->tuple)];
    f->next_hashed = *bucket;
    *bucket = f;
    f->next = j->flows;
    f->link = &j->flows;
    if (j->flows)
        j->flows->link = &f->next;
    j->flows = f;
    j->totals.flows++;
    j->flows_version++;
    return f;
}

static void flow_take_row(struct tp_join *j, struct tp_flow *f, const struct tp_row *row) {
    if (row->opened_ns && row->opened_ns < f->opened_ns)
        f->opened_ns = row->opened_ns;
    f->closed_ns = row->state == TP_ROW_CLOSED ? row->closed_ns : 0;
    if ((row->flags & TP_ROW_HAS_IRS) && !f->has_irs) {
        f->irs = row->irs;
        f->has_irs = true;
        j->flows_version++;
    }
}

void tp_flow_refresh(struct tp_join *j, struct tp_flow *f) {
    for (int i = 0; i < TP_OBSERVERS; i++) {
        const struct tp_observer *o = &f->observers[i];
        const struct tp_input *in = &j->inputs[o->input];
        struct tp_row row;
        if (o->flow && in->row && in->row(in->context, o->handle, &row) == 0)
            flow_take_row(j, f, &row);
    }
}

struct tp_observer *tp_observer_of_row(struct tp_join *j, uint32_t input, uint32_t handle, int64_t now_ns) {
    struct tp_input *in = &j->inputs[input];
    uint32_t index = handle & 0xffffu;
    struct tp_row row;
    void *known;
    if (settled(in, handle, &known, &row))
        return known;
    struct tp_observer *old = in->by_row[index];
    if (old) {
        if (!old->flow->closed_ns)
            old->flow->closed_ns = row.opened_ns;
        old->flow = NULL;
        in->by_row[index] = NULL;
    }
    struct tp_tuple tuple = tuple_of(&row);
    struct tp_flow *f = j->by_tuple[hash_tuple(&tuple)];
    /* A producer that starts again, or a second one: the same flow goes on, unless it began anew. */
    while (f && (!tuple_equal(&f->tuple, &tuple) || (f->has_irs && (row.flags & TP_ROW_HAS_IRS) && f->irs != row.irs) ||
                 (f->conn && f->conn->closed_ns && row.opened_ns > f->conn->closed_ns)))
        f = f->next_hashed;
    if (!f)
        f = flow_new(j, &row, now_ns);
    if (!f)
        return NULL;
    flow_take_row(j, f, &row);
    struct tp_observer *o = NULL;
    for (int i = 0; i < TP_OBSERVERS; i++) {
        if (!f->observers[i].flow)
            o = o ? o : &f->observers[i];
        else if (f->observers[i].input == input) {
            o = &f->observers[i];
            uint32_t was = o->handle & 0xffffu;
            if (in->by_row[was] == o)
                in->by_row[was] = NULL;
            break;
        }
    }
    if (!o)
        return NULL;
    o->flow = f;
    o->position = INT64_MIN;
    o->mark_ns = INT64_MIN;
    o->input = input;
    o->handle = handle;
    in->by_row[index] = o;
    in->handles[index] = handle;
    return o;
}

/* ---- which flow carries which connection ---- */

static bool irs_conflict(const struct tp_flow *f, const struct tp_conn *c) {
    return f->has_irs && c->has_irs && f->irs != c->irs;
}

static bool in_receive_window(const struct tp_flow *f, const struct tp_conn *c) {
    if (!c->has_irs || !f->has_position)
        return false;
    if (f->has_irs)
        return f->irs == c->irs;
    int64_t distance = (int32_t)(c->irs + 1 + (uint32_t)c->reached - (uint32_t)f->position);
    return c->reached && distance >= -TP_RECEIVE_WINDOW_BYTES && distance <= TP_RECEIVE_WINDOW_BYTES;
}

static struct tp_flow *flow_for(struct tp_join *j, struct tp_conn *c, bool *ambiguous) {
    struct tp_flow *found = NULL;
    *ambiguous = false;
    for (struct tp_flow *f = j->by_tuple[hash_tuple(&c->tuple)]; f; f = f->next_hashed) {
        if (!tuple_equal(&f->tuple, &c->tuple) || irs_conflict(f, c) ||
            !overlap(f->opened_ns, f->closed_ns, c->opened_ns, c->closed_ns))
            continue;
        *ambiguous |= found != NULL;
        found = f;
    }
    if (found)
        return found;
    for (struct tp_flow *f = j->flows; f; f = f->next) {
        if (f->conn || !remote_equal(&f->tuple, &c->tuple) || !in_receive_window(f, c) ||
            !overlap(f->opened_ns, f->closed_ns, c->opened_ns, c->closed_ns))
            continue;
        *ambiguous |= found != NULL;
        found = f;
    }
    return found;
}

static bool another_fits(const struct tp_join *j, const struct tp_conn *c, const struct tp_flow *f) {
    for (const struct tp_conn *other = j->conns; other; other = other->next) {
        if (other != c && other->has_feed && tuple_equal(&other->tuple, &c->tuple) && coexist(other, c) &&
            !irs_conflict(f, other))
            return true;
    }
    return false;
}

static void flow_set_base(struct tp_flow *f, int64_t base) {
    f->base = base;
    f->has_base = true;
    f->settled = base;
}

/* The wire's own handshake is the best word on where its stream begins; then what the feed or the kernel knows. The
 * multiple of 2^32 comes from the stream offset that the host has reached. */
static void flow_find_base(struct tp_join *j, struct tp_flow *f, struct tp_conn *c, int64_t now_ns) {
    if (!f->has_irs)
        tp_flow_refresh(j, f);
    if (!f->has_irs && !c->has_irs)
        tp_conn_refresh(j, c, now_ns);
    if ((!f->has_irs && !c->has_irs) || !f->has_position || c->reached == 0)
        return;
    uint32_t irs = f->has_irs ? f->irs : c->irs;
    flow_set_base(f, tp_unwrap(f->position, irs + 1 + (uint32_t)c->reached) - c->reached);
}

void tp_conn_bind(struct tp_join *j, struct tp_conn *c, int64_t now_ns) {
    if (c->flow && c->flow->has_base)
        return;
    if (c->bind_version == j->flows_version && now_ns < c->bind_retry_ns)
        return;
    c->bind_version = j->flows_version;
    c->bind_retry_ns = now_ns + TP_BIND_RETRY_NS;
    if (!c->flow) {
        if (!c->has_irs)
            tp_conn_refresh(j, c, now_ns);
        struct tp_flow *f = flow_for(j, c, &c->ambiguous);
        if (!f || c->ambiguous)
            return;
        if (another_fits(j, c, f)) {
            c->ambiguous = true;
            if (f->conn && f->conn != c && coexist(f->conn, c)) {
                f->conn->ambiguous = true;
                flow_release(j, f);
                c->bind_version = j->flows_version;
            }
            return;
        }
        if (f->conn)
            return; /* its predecessor on the same tuple still waits for results */
        f->conn = c;
        c->flow = f;
    }
    if (!c->flow->has_base)
        flow_find_base(j, c->flow, c, now_ns);
}

/* ---- housekeeping ---- */

void tp_connections_keep(struct tp_join *j, int64_t now_ns) {
    struct tp_conn *next_conn;
    for (struct tp_conn *c = j->conns; c; c = next_conn) {
        next_conn = c->next;
        if (!c->closed_ns)
            tp_conn_refresh(j, c, now_ns);
        bool idle_half = !c->has_feed && now_ns > c->used_ns + 60 * INT64_C(1000000000);
        bool over =
            c->closed_ns && now_ns > c->closed_ns + j->limits.window_ns && now_ns > c->used_ns + j->limits.window_ns;
        if (!c->pending.count && (over || idle_half))
            tp_conn_free(j, c);
    }
    struct tp_flow *next_flow;
    for (struct tp_flow *f = j->flows; f; f = next_flow) {
        next_flow = f->next;
        bool seen = false;
        for (int i = 0; i < TP_OBSERVERS; i++)
            seen |= f->observers[i].flow != NULL;
        bool over = f->closed_ns && now_ns > f->closed_ns + j->limits.window_ns;
        if (!f->conn && now_ns > f->used_ns + j->limits.window_ns && (over || !seen))
            tp_flow_free(j, f);
    }
}
