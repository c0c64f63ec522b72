/* SPDX-License-Identifier: Apache-2.0
 *
 * The protobuf writer.
 */
#include "exporter/exposition/protobuf.h"

#include <stdlib.h>

#define VARINT_BYTES 10u
/* A gap of so many empty buckets is written as such; a wider one begins a new span, which costs six bytes. */
#define GAP_BUCKETS 4u

enum wire { VARINT = 0, FIXED64 = 1, DELIMITED = 2 };

void tp_pb_free(struct tp_pb *p) {
    free(p->bytes);
    memset(p, 0, sizeof *p);
}

/* Room for so many bytes more, or NULL. */
static uint8_t *room_for(struct tp_pb *p, size_t bytes) {
    if (p->failed)
        return NULL;
    if (p->room - p->used < bytes) {
        size_t room = p->room ? p->room : 4096;
        while (room - p->used < bytes)
            room *= 2;
        uint8_t *grown = realloc(p->bytes, room);
        if (!grown) {
            p->failed = true;
            return NULL;
        }
        p->bytes = grown;
        p->room = room;
    }
    return p->bytes + p->used;
}

static size_t varint(uint8_t *out, uint64_t value) {
    size_t bytes = 0;
    for (; value >= 0x80; value >>= 7)
        out[bytes++] = (uint8_t)(value | 0x80);
    out[bytes++] = (uint8_t)value;
    return bytes;
}

static void put_varint(struct tp_pb *p, uint64_t value) {
    uint8_t *out = room_for(p, VARINT_BYTES);
    if (out)
        p->used += varint(out, value);
}

static void put_tag(struct tp_pb *p, unsigned field, enum wire wire) {
    put_varint(p, (uint64_t)field << 3 | wire);
}

static uint64_t zigzag(int64_t value) {
    return (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0);
}

size_t tp_pb_open(const struct tp_pb *p) {
    return p->used;
}

void tp_pb_close(struct tp_pb *p, size_t opened, unsigned field) {
    uint8_t head[2 * VARINT_BYTES];
    size_t content = p->used - opened;
    size_t bytes = field ? varint(head, (uint64_t)field << 3 | DELIMITED) : 0;
    bytes += varint(head + bytes, content);
    if (!room_for(p, bytes))
        return;
    memmove(p->bytes + opened + bytes, p->bytes + opened, content);
    memcpy(p->bytes + opened, head, bytes);
    p->used += bytes;
}

void tp_pb_number(struct tp_pb *p, unsigned field, uint64_t value) {
    put_tag(p, field, VARINT);
    put_varint(p, value);
}

void tp_pb_double(struct tp_pb *p, unsigned field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_tag(p, field, FIXED64);
    uint8_t *out = room_for(p, sizeof bits);
    if (!out)
        return;
    for (size_t i = 0; i < sizeof bits; i++)
        out[i] = (uint8_t)(bits >> 8 * i);
    p->used += sizeof bits;
}

void tp_pb_text(struct tp_pb *p, unsigned field, const char *text, size_t bytes) {
    put_tag(p, field, DELIMITED);
    put_varint(p, bytes);
    uint8_t *out = room_for(p, bytes);
    if (!out)
        return;
    memcpy(out, text, bytes);
    p->used += bytes;
}

void tp_pb_time(struct tp_pb *p, unsigned field, int64_t time_ns) {
    size_t opened = tp_pb_open(p);
    tp_pb_number(p, TP_PB_TIME_SECONDS, (uint64_t)(time_ns / INT64_C(1000000000)));
    tp_pb_number(p, TP_PB_TIME_NANOS, (uint64_t)(time_ns % INT64_C(1000000000)));
    tp_pb_close(p, opened, field);
}

/* The slot of the bucket `number` of one sign, counted from the smallest magnitude. */
static unsigned slot_of(bool negative, unsigned number) {
    return negative ? TP_HISTOGRAM_ZERO_SLOT - 1 - number : TP_HISTOGRAM_ZERO_SLOT + 1 + number;
}

static void put_span(struct tp_pb *p, unsigned field, int64_t offset, uint64_t length) {
    size_t opened = tp_pb_open(p);
    tp_pb_number(p, TP_PB_SPAN_OFFSET, zigzag(offset));
    tp_pb_number(p, TP_PB_SPAN_LENGTH, length);
    tp_pb_close(p, opened, field);
}

struct run {
    unsigned from;
    unsigned to; /* behind its last bucket */
};

/* The next run of buckets in use from `at` on, small gaps included; `to` 0: there is none. */
static struct run next_run(const struct tp_histogram *h, bool negative, unsigned at, unsigned end) {
    struct run found = {0, 0};
    for (unsigned gap = 0; at < end && gap <= GAP_BUCKETS; at++) {
        if (h->counts[slot_of(negative, at)]) {
            if (!found.to)
                found.from = at;
            found.to = at + 1;
            gap = 0;
        } else if (found.to) {
            gap++;
        }
    }
    return found;
}

static void put_side(struct tp_pb *p, const struct tp_histogram *h, bool negative) {
    unsigned first = tp_histogram_slot(h->min_ns);
    unsigned last = tp_histogram_slot(h->max_ns);
    if (h->max_ns < h->min_ns || (negative ? first >= TP_HISTOGRAM_ZERO_SLOT : last <= TP_HISTOGRAM_ZERO_SLOT))
        return;
    unsigned end = negative ? TP_HISTOGRAM_ZERO_SLOT - first : last - TP_HISTOGRAM_ZERO_SLOT;
    unsigned at = 0;
    struct run run;
    for (int64_t behind = -(int64_t)TP_HISTOGRAM_MIN_INDEX; (run = next_run(h, negative, at, end)).to; at = run.to) {
        put_span(p, negative ? TP_PB_HISTOGRAM_NEGATIVE_SPAN : TP_PB_HISTOGRAM_POSITIVE_SPAN,
                 (int64_t)run.from - behind, run.to - run.from);
        behind = run.to;
    }
    size_t opened = tp_pb_open(p);
    uint64_t before = 0;
    for (at = 0; (run = next_run(h, negative, at, end)).to; at = run.to) {
        for (unsigned bucket = run.from; bucket < run.to; bucket++) {
            uint64_t count = h->counts[slot_of(negative, bucket)];
            put_varint(p, zigzag((int64_t)(count - before)));
            before = count;
        }
    }
    tp_pb_close(p, opened, negative ? TP_PB_HISTOGRAM_NEGATIVE_DELTA : TP_PB_HISTOGRAM_POSITIVE_DELTA);
}

static void put_thresholds(struct tp_pb *p, const struct tp_histogram *h, const struct tp_pb_threshold *thresholds,
                           size_t count) {
    uint64_t total = 0;
    unsigned slot = tp_histogram_next(h, 0);
    for (size_t i = 0; i < count; i++) {
        unsigned last = slot_of(false, (unsigned)(thresholds[i].index - TP_HISTOGRAM_MIN_INDEX));
        for (; slot <= last && slot < TP_HISTOGRAM_SLOTS; slot = tp_histogram_next(h, slot + 1))
            total += h->counts[slot];
        size_t opened = tp_pb_open(p);
        tp_pb_number(p, TP_PB_BUCKET_COUNT, total);
        tp_pb_double(p, TP_PB_BUCKET_BOUND, thresholds[i].bound);
        tp_pb_close(p, opened, TP_PB_HISTOGRAM_BUCKET);
    }
}

static double sum_seconds(const struct tp_histogram *h) {
    __int128 sum_ns = (__int128)((unsigned __int128)(uint64_t)h->sum_high << 64 | h->sum_low);
    return (double)((long double)sum_ns / 1e9L);
}

void tp_pb_histogram(struct tp_pb *p, const struct tp_histogram *h, const struct tp_pb_threshold *thresholds,
                     size_t count, int64_t created_ns) {
    tp_pb_number(p, TP_PB_HISTOGRAM_COUNT, tp_histogram_count(h));
    tp_pb_double(p, TP_PB_HISTOGRAM_SUM, sum_seconds(h));
    put_thresholds(p, h, thresholds, count);
    tp_pb_number(p, TP_PB_HISTOGRAM_SCHEMA, zigzag(TP_HISTOGRAM_SCHEMA));
    if (h->counts[TP_HISTOGRAM_ZERO_SLOT])
        tp_pb_number(p, TP_PB_HISTOGRAM_ZERO_COUNT, h->counts[TP_HISTOGRAM_ZERO_SLOT]);
    put_side(p, h, true);
    put_side(p, h, false);
    /* Without a span and with nothing at zero it would be taken for a classic one. */
    if (h->max_ns < h->min_ns)
        put_span(p, TP_PB_HISTOGRAM_POSITIVE_SPAN, 0, 0);
    if (created_ns >= 0)
        tp_pb_time(p, TP_PB_HISTOGRAM_CREATED, created_ns);
}
