/* SPDX-License-Identifier: Apache-2.0
 *
 * A counter (PHC, TSC, a NIC's own) on the monotonic timeline: a line through its last bracketed readings, with hard
 * bounds.
 *
 * What is assumed: over the kept readings (and for as long as one extrapolates) the counter's rate against
 * CLOCK_MONOTONIC stays within `wander` of one constant. Every pair of readings then bounds that constant, all pairs
 * together give its range [slow, fast]; between readings the truth lies in the cones that leave each bracket with those
 * rates. A reading outside the cone of those before it contradicts the assumption (the counter was stepped, reset, or
 * its rate changed): it is counted as a break and the fit starts again from it. A counter is known to one tick: the
 * bound includes it.
 *
 * Arithmetic is in double, relative to the newest reading: exact to 1e-4 ns for differences below 10^12 ns or ticks,
 * and rounded outwards. No allocation, no locks: whoever owns the struct serialises its use.
 */
#ifndef TICKPATH_FIT_H
#define TICKPATH_FIT_H

#include <errno.h>
#include <math.h>

#include "tickpath/clock.h"

#define TP_FIT_POINTS 64u

/* A crystal at rest stays within some 10 ppb over a minute; a disciplined host clock is slewed by a few tens. */
#define TP_FIT_WANDER_PPB 100.0
/* A NIC's clock that a servo (ptp4l) disciplines, or that is held against a host's that is slewed. */
#define TP_FIT_PHC_WANDER_PPB 1000.0

struct tp_fit_point {
    struct tp_reading reading;
    double lo_ns; /* moment of this counter value, relative to origin_ns, by all readings together */
    double hi_ns;
};

struct tp_fit {
    struct tp_fit_point points[TP_FIT_POINTS]; /* oldest first */
    uint32_t count;
    uint32_t after_break; /* there was a break: before the oldest point the line may not hold */
    uint64_t readings;    /* ever taken in */
    uint64_t breaks;
    int64_t origin_ns;
    double wander;      /* relative */
    double slow;        /* ns per tick, least */
    double fast;        /* ns per tick, most */
    double residual_ns; /* root mean square distance of the brackets' middles from the line */
};

enum tp_fit_outcome {
    TP_FIT_KEPT = 0,
    TP_FIT_BROKE = 1, /* the reading contradicts those before it, which were dropped */
};

void tp_fit_init(struct tp_fit *, double wander_ppb);

/* The counter is known to run differently from now on: what was read is forgotten, and not held against the next. */
void tp_fit_restart(struct tp_fit *);

/* Returns an outcome, or -EINVAL: a bracket that ends before it starts or a time out of range; -ESTALE: not newer than
 * the last reading. Some 10 us with a full window: for the thread that reads clocks, not for the one that converts
 * stamps. */
int tp_fit_add(struct tp_fit *, const struct tp_reading *);

/* Nanoseconds of monotonic time per tick; 0 with fewer than two readings. */
static inline double tp_fit_ns_per_tick(const struct tp_fit *fit) {
    return fit->count < 2 ? 0.0 : 0.5 * (fit->slow + fit->fast);
}

/* The moment at which the counter showed `counter`. -EAGAIN: fewer than two readings; -ENODATA: before the last break;
 * -ERANGE: further away than an int64 of nanoseconds. */
static inline int tp_fit_convert(const struct tp_fit *fit, int64_t counter, struct tp_converted *out) {
    if (fit->count < 2)
        return -EAGAIN;
    if (counter <= -TP_TIME_LIMIT_NS || counter >= TP_TIME_LIMIT_NS)
        return -ERANGE;
    uint32_t next = fit->count; /* stamps are young: the newest points are the likely neighbours */
    while (next > 0 && fit->points[next - 1].reading.time_ns > counter)
        next--;
    double lo_ns = -INFINITY, hi_ns = INFINITY;
    out->marks = next == fit->count || next == 0 ? TP_MARK_UNCONFIRMED : 0;
    if (next > 0) {
        const struct tp_fit_point *left = &fit->points[next - 1];
        double ticks = (double)(counter - left->reading.time_ns);
        lo_ns = left->lo_ns + fit->slow * ticks;
        hi_ns = left->hi_ns + fit->fast * ticks;
        if (ticks == 0)
            out->marks = 0;
    } else if (fit->after_break) {
        return -ENODATA;
    }
    if (next < fit->count) {
        const struct tp_fit_point *right = &fit->points[next];
        double ticks = (double)(right->reading.time_ns - counter);
        double right_lo_ns = right->lo_ns - fit->fast * ticks, right_hi_ns = right->hi_ns - fit->slow * ticks;
        lo_ns = right_lo_ns > lo_ns ? right_lo_ns : lo_ns;
        hi_ns = right_hi_ns < hi_ns ? right_hi_ns : hi_ns;
    }
    hi_ns += fit->fast; /* the stamp, too, is known to one tick */
    /* A wild counter value: it would not fit an int64. */
    if (!(fabs(lo_ns) < (double)TP_TIME_LIMIT_NS && fabs(hi_ns) < (double)TP_TIME_LIMIT_NS))
        return -ERANGE;
    int64_t first_ns = (int64_t)floor(lo_ns), last_ns = (int64_t)ceil(hi_ns);
    out->time_ns = fit->origin_ns + first_ns + (last_ns - first_ns) / 2;
    out->bound_ns = fit->origin_ns + last_ns - out->time_ns;
    return 0;
}

#endif
