/* SPDX-License-Identifier: Apache-2.0
 *
 * The rings, the lock and the drain around the join.
 */
#include "exporter/correlator/correlator.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "exporter/correlator/internal.h"
#include "tickpath/ring.h"

/* Small enough that a batch stays in the cache and a snapshot never waits long for the lock. */
#define BATCH 512u
/* A poll ends after so many records even when producers are faster than it. */
#define POLL_RECORDS (1u << 18)
#define CLOCK_TRIES 3u

struct ring {
    struct tp_ring_reader reader;
    uint64_t skipped;
    bool attached;
    bool dry;
};

struct tp_correlator {
    pthread_mutex_t lock;
    pthread_mutex_t door; /* held on the way to the lock: who drains and takes the lock again at once would get it */
    bool read_clock;
    int watch; /* tells that the realtime clock was set; -1: it cannot be had, steps are seen by readings alone */
    struct tp_join join;
    struct ring rings[TP_INPUTS];
    int64_t alive_checked_ns;
    struct tp_event batch[BATCH];
};

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

struct tp_correlator *tp_correlator_new(const struct tp_correlator_limits *limits, bool read_clock) {
    struct tp_correlator *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (tp_join_init(&c->join, limits) != 0) {
        free(c);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->door, NULL);
    c->read_clock = read_clock;
    int watch = read_clock ? tp_clock_watch_open() : -1;
    c->watch = watch < 0 ? -1 : watch;
    return c;
}

void tp_correlator_delete(struct tp_correlator *c) {
    tp_join_free(&c->join);
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        if (c->rings[i].attached)
            tp_ring_detach(&c->rings[i].reader);
    }
    if (c->watch >= 0)
        close(c->watch);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->door);
    free(c);
}

/* In the order of coming, so that a snapshot of a busy correlator waits for one batch and not for a lucky moment. */
static void enter(struct tp_correlator *c) {
    pthread_mutex_lock(&c->door);
    pthread_mutex_lock(&c->lock);
    pthread_mutex_unlock(&c->door);
}

static int row_of_ring(const void *context, uint32_t handle, struct tp_row *out) {
    int error = -EAGAIN;
    for (int tries = 0; tries < 3 && error == -EAGAIN; tries++)
        error = tp_ring_row(context, handle, out);
    return error;
}

static enum tp_input_kind kind_of(const char *kind) {
    if (strcmp(kind, "feed") == 0)
        return TP_INPUT_FEED;
    if (strcmp(kind, "wire") == 0)
        return TP_INPUT_WIRE;
    if (strcmp(kind, "kernel") == 0)
        return TP_INPUT_KERNEL;
    if (strcmp(kind, "ping") == 0)
        return TP_INPUT_PING;
    return TP_INPUT_OTHER;
}

int tp_correlator_attach(struct tp_correlator *c, const char *path, bool from_start, char *why, size_t why_bytes) {
    struct tp_ring_reader reader;
    int error = tp_ring_attach(&reader, path, why, why_bytes);
    if (error)
        return error;
    if (from_start)
        tp_ring_rewind(&reader);
    enter(c);
    int ring = -ENOSPC;
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        if (c->rings[i].attached)
            continue;
        c->rings[i].reader = reader;
        ring =
            tp_join_input_add(&c->join, i, kind_of(reader.header->kind), reader.rows, row_of_ring, &c->rings[i].reader);
        if (ring >= 0) {
            c->rings[i].attached = true;
            c->rings[i].skipped = reader.cursor;
        }
        break;
    }
    c->alive_checked_ns = 0;
    pthread_mutex_unlock(&c->lock);
    if (ring < 0) {
        tp_ring_detach(&reader);
        snprintf(why, why_bytes, "cannot attach %s: %s", path,
                 ring == -ENOSPC ? "64 rings are attached already; detach one" : "out of memory");
    }
    return ring;
}

static bool attached(const struct tp_correlator *c, uint32_t ring) {
    return ring < TP_INPUTS && c->rings[ring].attached;
}

int tp_correlator_detach(struct tp_correlator *c, uint32_t ring) {
    int result = -ENOENT;
    enter(c);
    if (attached(c, ring)) {
        tp_join_input_remove(&c->join, ring, clock_ns(CLOCK_MONOTONIC));
        tp_ring_detach(&c->rings[ring].reader);
        c->rings[ring].attached = false;
        result = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return result;
}

int tp_correlator_alive(struct tp_correlator *c, uint32_t ring) {
    enter(c);
    int alive = attached(c, ring) ? tp_ring_alive(&c->rings[ring].reader) == 1 : -ENOENT;
    pthread_mutex_unlock(&c->lock);
    return alive;
}

uint64_t tp_correlator_inode(struct tp_correlator *c, uint32_t ring) {
    enter(c);
    bool good = attached(c, ring) && !tp_ring_truncated(&c->rings[ring].reader);
    uint64_t inode = good ? c->rings[ring].reader.inode : 0;
    pthread_mutex_unlock(&c->lock);
    return inode;
}

/* The ring whose last record is the oldest goes first, so that no producer's records run far ahead of the others' and
 * fill the maps. */
static struct ring *next_ring(struct tp_correlator *c, uint32_t *input) {
    struct ring *oldest = NULL;
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        struct ring *r = &c->rings[i];
        if (!r->attached || r->dry)
            continue;
        if (!oldest || c->join.inputs[i].last_ns < c->join.inputs[*input].last_ns) {
            oldest = r;
            *input = i;
        }
    }
    return oldest;
}

/* Up to when all rings have been drained. */
static int64_t horizon(const struct tp_correlator *c, int64_t now_ns) {
    int64_t until_ns = now_ns;
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        if (c->rings[i].attached && !c->rings[i].dry && c->join.inputs[i].last_ns < until_ns)
            until_ns = c->join.inputs[i].last_ns;
    }
    return until_ns;
}

static void read_own_clock(struct tp_correlator *c) {
    struct tp_event events[2];
    if (tp_clock_records(c->watch, CLOCK_TRIES, events) != 0)
        return;
    for (int i = 0; i < 2; i++)
        tp_timeline_reading(&c->join.timeline, TP_TIMELINE_SELF, &events[i]);
}

static size_t take_batch(struct tp_correlator *c, uint32_t input, int64_t now_ns) {
    struct ring *r = &c->rings[input];
    size_t count = tp_ring_read(&r->reader, c->batch, BATCH);
    r->dry = count < BATCH;
    tp_join_records(&c->join, input, c->batch, count, now_ns);
    return count;
}

/* A dead producer's last records are taken before it is given up: those too that it wrote after its ring was dry. */
static void check_alive(struct tp_correlator *c, int64_t now_ns) {
    if (c->alive_checked_ns && now_ns - c->alive_checked_ns < TP_HOUSEKEEPING_NS)
        return;
    c->alive_checked_ns = now_ns;
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        struct ring *r = &c->rings[i];
        if (!r->attached || !r->dry)
            continue;
        bool alive = tp_ring_alive(&r->reader) == 1;
        if (!alive) {
            take_batch(c, i, now_ns);
            if (!r->dry)
                continue;
            alive = tp_ring_alive(&r->reader) == 1; /* a successor may have begun in them */
        }
        tp_join_input_alive(&c->join, i, alive, now_ns);
    }
}

uint64_t tp_correlator_poll(struct tp_correlator *c, int64_t now_ns) {
    uint64_t handled = 0;
    uint32_t input = 0;
    int64_t now = now_ns < 0 ? clock_ns(CLOCK_MONOTONIC) : now_ns;
    enter(c);
    if (c->read_clock)
        read_own_clock(c);
    for (uint32_t i = 0; i < TP_INPUTS; i++)
        c->rings[i].dry = false;
    struct ring *r;
    while (handled < POLL_RECORDS && (r = next_ring(c, &input))) {
        size_t count = take_batch(c, input, now);
        handled += count;
        if (count && c->join.inputs[input].kind == TP_INPUT_FEED)
            tp_join_advance(&c->join, now, horizon(c, now), false);
        /* A snapshot may be waiting: between batches everything adds up. */
        pthread_mutex_unlock(&c->lock);
        enter(c);
    }
    check_alive(c, now);
    tp_join_advance(&c->join, now, horizon(c, now), false);
    pthread_mutex_unlock(&c->lock);
    return handled;
}

void tp_correlator_flush(struct tp_correlator *c, int64_t now_ns) {
    int64_t now = now_ns < 0 ? clock_ns(CLOCK_MONOTONIC) : now_ns;
    enter(c);
    tp_join_advance(&c->join, now, now, true);
    pthread_mutex_unlock(&c->lock);
}

size_t tp_correlator_joined(struct tp_correlator *c, struct tp_joined *out, size_t max) {
    size_t taken = 0;
    enter(c);
    struct tp_join *j = &c->join;
    while (taken < max && j->joined_fetched < j->joined_written)
        out[taken++] = j->joined[j->joined_fetched++ % j->limits.joined];
    pthread_mutex_unlock(&c->lock);
    return taken;
}

/* Into one that is all zero: most of its buckets never hold anything, and the lock is held. */
static void copy_histogram(struct tp_histogram *out, const struct tp_histogram *h) {
    memcpy(out, h, offsetof(struct tp_histogram, counts));
    if (h->max_ns < h->min_ns)
        return;
    unsigned first = tp_histogram_slot(h->min_ns);
    unsigned last = tp_histogram_slot(h->max_ns);
    memcpy(out->counts + first, h->counts + first, (last - first + 1) * sizeof *h->counts);
}

static void view_series(const struct tp_join *j, struct tp_correlator_view *out) {
    for (uint32_t label = 0; label < j->label_count; label++) {
        for (uint32_t leg = 0; leg < TP_LEGS; leg++) {
            for (uint32_t source = 0; source < TP_SOURCES; source++) {
                const struct tp_tail *t = j->labels[label].tails[leg][source];
                if (!t)
                    continue;
                struct tp_series *s = &out->series[out->series_count++];
                s->label = label;
                s->leg = leg;
                s->source = source;
                copy_histogram(&s->histogram, &t->histogram);
                memcpy(s->exemplars, t->kept, sizeof s->exemplars);
            }
        }
    }
}

static void view_pings(const struct tp_join *j, struct tp_correlator_view *out) {
    if (j->ping_count)
        memcpy(out->pings, j->pings, j->ping_count * sizeof *out->pings);
    out->ping_count = j->ping_count;
    for (uint32_t account = 0; account < j->ping_count; account++) {
        for (uint32_t series = 0; series < TP_PING_WAYS * TP_PING_SOURCES; series++) {
            uint32_t way = series / TP_PING_SOURCES, source = series % TP_PING_SOURCES;
            const struct tp_histogram *h = j->pings[account].series[way][source];
            if (!h)
                continue;
            struct tp_ping_series *s = &out->ping_series[out->ping_series_count++];
            s->account = account;
            s->way = way;
            s->source = source;
            copy_histogram(&s->histogram, h);
        }
    }
}

static void view_ring(const struct tp_correlator *c, uint32_t ring, struct tp_ring_state *out) {
    const struct tp_ring_reader *reader = &c->rings[ring].reader;
    memset(out, 0, sizeof *out);
    out->ring = ring;
    out->alive = tp_ring_alive(reader) == 1;
    out->stopped = !out->alive && tp_ring_stopped(reader);
    out->lost = reader->lost;
    out->skipped = c->rings[ring].skipped;
    out->cursor = reader->cursor;
    memcpy(out->name, reader->header->name, sizeof out->name);
    memcpy(out->kind, reader->header->kind, sizeof out->kind);
    for (int counter = 0; counter < TP_COUNTERS; counter++)
        out->counters[counter] = tp_ring_counter(reader, (enum tp_counter)counter);
}

struct room {
    uint32_t labels, series, pings, ping_series;
};

static struct room needed(const struct tp_join *j) {
    return (struct room){j->label_count, j->series, j->ping_count, j->ping_series};
}

/* Memory for what there is now. It is taken before the lock: zeroing it takes longer than filling it. */
static int view_room(struct tp_correlator_view *out, struct room room) {
    memset(out, 0, sizeof *out);
    out->labels = calloc(room.labels, sizeof *out->labels);
    out->series = calloc(room.series ? room.series : 1, sizeof *out->series);
    out->pings = calloc(room.pings ? room.pings : 1, sizeof *out->pings);
    out->ping_series = calloc(room.ping_series ? room.ping_series : 1, sizeof *out->ping_series);
    out->rings = calloc(TP_INPUTS, sizeof *out->rings);
    out->clocks = calloc(TP_TIMELINE_CLOCKS, sizeof *out->clocks);
    if (out->labels && out->series && out->rings && out->clocks && out->pings && out->ping_series)
        return 0;
    tp_correlator_view_free(out);
    return -ENOMEM;
}

int tp_correlator_view(struct tp_correlator *c, struct tp_correlator_view *out) {
    struct tp_join *j = &c->join;
    struct room room;
    enter(c);
    for (;;) {
        room = needed(j);
        pthread_mutex_unlock(&c->lock);
        int error = view_room(out, room);
        if (error)
            return error;
        enter(c);
        struct room now = needed(j);
        if (memcmp(&room, &now, sizeof room) == 0)
            break;
        tp_correlator_view_free(out);
    }
    memcpy(out->labels, j->labels, room.labels * sizeof *out->labels);
    out->label_count = room.labels;
    view_series(j, out);
    view_pings(j, out);
    for (uint32_t i = 0; i < TP_INPUTS; i++) {
        if (c->rings[i].attached)
            view_ring(c, i, &out->rings[out->ring_count++]);
    }
    out->clock_count = tp_timeline_view(&j->timeline, out->clocks);
    out->totals = j->totals;
    out->connects = j->connects;
    for (int source = 0; source < TP_SOURCES; source++) {
        int64_t now_ns = j->bounds_ns[0][source], before_ns = j->bounds_ns[1][source];
        out->bounds_ns[source] = now_ns > before_ns ? now_ns : before_ns;
    }
    for (const struct tp_flow *f = j->flows; f; f = f->next)
        out->totals.spans_evicted += f->map.overflowed;
    out->totals.memory_bytes = j->limits.memory_bytes - j->budget;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

void tp_correlator_view_free(struct tp_correlator_view *view) {
    free(view->labels);
    free(view->series);
    free(view->rings);
    free(view->clocks);
    free(view->pings);
    free(view->ping_series);
    memset(view, 0, sizeof *view);
}
