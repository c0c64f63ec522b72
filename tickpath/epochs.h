/* SPDX-License-Identifier: Apache-2.0
 *
 * Realtime (or TAI) and CLOCK_MONOTONIC differ by one constant per step epoch: NTP slews both alike, and only setting
 * the clock moves one against the other. Readings bound that constant; a reading outside the joint bounds is a step.
 *
 * What can be known: each reading bounds the offset hard, so within an epoch the offset lies in the intersection of all
 * its readings' bounds. A step larger than the bounds on its two sides together is always seen. A smaller one can hide
 * in them (then the claimed bound is wrong by less than those bounds) unless a watch reported it
 * (tp_epochs_add_after_set); so can a pair of steps between two readings that undo each other.
 *
 * A stamp is safe to convert once a reading taken after it has been added: until then a step may lie between, and a
 * stamp after a backward step looks like an older one. So: drain the stamps, read the clock, convert.
 *
 * Readings may come in any order (several producers, drained one after the other). No allocation, no locks: whoever
 * owns the struct serialises its use.
 */
#ifndef TICKPATH_EPOCHS_H
#define TICKPATH_EPOCHS_H

#include <errno.h>

#include "tickpath/clock.h"

#define TP_EPOCHS 64u

struct tp_epoch {
    int64_t lo_ns; /* clock - monotonic is in [lo_ns, hi_ns] */
    int64_t hi_ns;
    int64_t from_ns;  /* monotonic: it surely held at some moment not after this */
    int64_t until_ns; /* monotonic: it surely held at some moment not before this */
    uint64_t readings;
};

struct tp_epochs {
    struct tp_epoch ring[TP_EPOCHS];
    uint64_t begun;    /* epochs ever begun; the current one is ring[(begun - 1) % TP_EPOCHS] */
    uint64_t evicted;  /* epochs forgotten because the ring was full */
    uint64_t unplaced; /* late readings that fitted no epoch, or two: not used */
    int64_t alone_ns;  /* the clock's time above which only the current epoch can be meant */
};

/* All-zero is a valid, empty struct: no init. */

enum tp_epochs_outcome {
    TP_EPOCHS_KEPT = 0,    /* in line with an epoch already known */
    TP_EPOCHS_STEPPED = 1, /* a new epoch began */
};

/* Returns an outcome, or -EINVAL: a bracket that ends before it starts or a time out of range; -ESTALE: a late reading
 * that fits no epoch or two (counted in `unplaced`). */
int tp_epochs_add(struct tp_epochs *, const struct tp_reading *);

/* The same for a reading flagged TP_CLOCK_STEPPED: the clock was set after `since_ns` (monotonic, the same producer's
 * reading before). Begins an epoch even when the step is too small to see, except where one that began after `since_ns`
 * already accounts for it. */
int tp_epochs_add_after_set(struct tp_epochs *, const struct tp_reading *, int64_t since_ns);

#define TP_EPOCHS_SINCE_UNKNOWN INT64_MIN

/* The same for a CLOCK record from a ring. `since_ns` is kept by the caller per ring and clock, starts as
 * TP_EPOCHS_SINCE_UNKNOWN, and moves on with every record: a set that the first one reports may long be known. */
static inline int tp_epochs_add_record(struct tp_epochs *e, const struct tp_event *event, int64_t *since_ns) {
    const struct tp_reading reading = {event->time_ns, event->reading.before_ns, event->reading.after_ns};
    bool set = (event->flags & TP_CLOCK_STEPPED) && *since_ns != TP_EPOCHS_SINCE_UNKNOWN;
    int result = set ? tp_epochs_add_after_set(e, &reading, *since_ns) : tp_epochs_add(e, &reading);
    if (result != -EINVAL)
        *since_ns = reading.before_ns;
    return result;
}

/* Steps seen since the first reading. */
static inline uint64_t tp_epochs_steps(const struct tp_epochs *e) {
    return e->begun ? e->begun - 1 : 0;
}

/* The current epoch, or NULL before the first reading. */
static inline const struct tp_epoch *tp_epochs_current(const struct tp_epochs *e) {
    return e->begun ? &e->ring[(e->begun - 1) % TP_EPOCHS] : NULL;
}

static inline void tp_converted_set(struct tp_converted *out, int64_t lo_ns, int64_t hi_ns, uint32_t marks) {
    out->time_ns = lo_ns + (hi_ns - lo_ns) / 2;
    out->bound_ns = hi_ns - out->time_ns;
    out->marks = marks;
}

int tp_epochs_search(const struct tp_epochs *, int64_t clock_ns, struct tp_converted *out);

/* A stamp of the clock as a moment on the monotonic timeline. -EAGAIN: no reading yet; -ERANGE: a stamp out of range.
 */
static inline int tp_epochs_to_monotonic(const struct tp_epochs *e, int64_t clock_ns, struct tp_converted *out) {
    if (e->begun && clock_ns > e->alone_ns && clock_ns < TP_TIME_LIMIT_NS) {
        const struct tp_epoch *now = &e->ring[(e->begun - 1) % TP_EPOCHS];
        int64_t lo_ns = clock_ns - now->hi_ns, hi_ns = clock_ns - now->lo_ns;
        tp_converted_set(out, lo_ns, hi_ns, hi_ns > now->until_ns ? TP_MARK_UNCONFIRMED : 0);
        return 0;
    }
    return tp_epochs_search(e, clock_ns, out);
}

/* What the clock showed at a monotonic moment. -EAGAIN: no reading yet; -ERANGE: out of range. */
int tp_epochs_from_monotonic(const struct tp_epochs *, int64_t monotonic_ns, struct tp_converted *out);

#endif
