/* SPDX-License-Identifier: Apache-2.0
 *
 * A histogram and a few of the messages in its tail: what an exemplar is made of.
 *
 * The tail is what lies above the bucket that holds the 90th percentile, so that at most one observation in ten is
 * kept. It is cut into as many cells as there are places, equally wide in buckets, and each keeps its newest message:
 * what is kept is spread from there to the slowest, and never older than its cell's last message.
 */
#ifndef TICKPATH_CORRELATOR_TAIL_H
#define TICKPATH_CORRELATOR_TAIL_H

#include <assert.h>
#include <stddef.h>

#include "tickpath/histogram.h"

#define TP_EXEMPLARS 4u
#define TP_TAIL_LINE 64
#define TP_TAIL_FIRST_LOOK 16u
#define TP_TAIL_PAUSE 1024u /* observations between two looks at where the tail begins */

struct tp_exemplar {
    int64_t value_ns;
    int64_t time_ns; /* since 1970, when the message was received; 0: no exemplar */
    uint64_t cookie;
    uint32_t ordinal;
    uint32_t reserved;
};

struct tp_tail {
    /* What every observation touches besides its bucket is one cache line. */
    _Alignas(TP_TAIL_LINE) int64_t floor_ns; /* what is above is the tail's */
    uint32_t until;                          /* observations until the next look */
    uint32_t pause;
    struct tp_histogram histogram;
    uint64_t seen; /* observations up to the last look */
    uint32_t first_slot;
    uint32_t slots;
    struct tp_exemplar kept[TP_EXEMPLARS];
};

static_assert(offsetof(struct tp_tail, histogram.counts) == TP_TAIL_LINE, "the buckets begin with the next line");

static inline void tp_tail_reset(struct tp_tail *t) {
    memset(t, 0, sizeof *t);
    t->floor_ns = INT64_MIN;
    t->until = t->pause = TP_TAIL_FIRST_LOOK;
    tp_histogram_reset(&t->histogram);
}

/* The cell that a value belongs to; before the first look, when no tail is known, all in turn. */
static inline uint32_t tp_tail_cell(const struct tp_tail *t, int64_t value_ns) {
    if (t->slots == 0)
        return t->until % TP_EXEMPLARS;
    unsigned slot = tp_histogram_slot(value_ns);
    uint32_t cell = slot < t->first_slot ? 0 : (slot - t->first_slot) * TP_EXEMPLARS / t->slots;
    return cell < TP_EXEMPLARS ? cell : TP_EXEMPLARS - 1;
}

static inline void tp_tail_keep(struct tp_tail *t, const struct tp_exemplar *one) {
    t->kept[tp_tail_cell(t, one->value_ns)] = *one;
}

/* Looks where the tail begins now, and gives what is kept its place in it. */
static inline void tp_tail_look(struct tp_tail *t) {
    const struct tp_histogram *h = &t->histogram;
    t->seen += t->pause;
    t->pause = t->pause < TP_TAIL_PAUSE ? t->pause * 2 : TP_TAIL_PAUSE;
    t->until = t->pause;
    unsigned last = tp_histogram_slot(h->max_ns);
    unsigned slot = last;
    for (uint64_t above = h->counts[slot]; above <= t->seen / 10; above += h->counts[slot])
        slot--;
    int64_t low;
    tp_histogram_slot_range(h, slot, &low, &t->floor_ns);
    t->first_slot = slot + 1;
    t->slots = last > slot ? last - slot : 1;
    struct tp_exemplar before[TP_EXEMPLARS];
    memcpy(before, t->kept, sizeof before);
    memset(t->kept, 0, sizeof t->kept);
    for (uint32_t i = 0; i < TP_EXEMPLARS; i++) {
        uint32_t cell = tp_tail_cell(t, before[i].value_ns);
        if (before[i].time_ns > t->kept[cell].time_ns)
            t->kept[cell] = before[i];
    }
}

/* True: the value is in the tail, and is to be kept. */
static inline int tp_tail_observe(struct tp_tail *t, int64_t value_ns) {
    tp_histogram_observe(&t->histogram, value_ns);
    if (--t->until == 0)
        tp_tail_look(t);
    return value_ns > t->floor_ns;
}

#endif
