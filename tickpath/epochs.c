/* SPDX-License-Identifier: Apache-2.0
 *
 * Step epochs: placing readings, and the conversions that have more than one candidate.
 *
 * Between two epochs lies a gap [older.until_ns, newer.from_ns] in which the step happened. An epoch can therefore have
 * held from the start of the gap before it to the end of the gap after it: its reach.
 */
#include "tickpath/epochs.h"

#include <stdbool.h>

static inline int64_t max_ns(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline int64_t min_ns(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline bool in_range(int64_t ns) {
    return ns > -TP_TIME_LIMIT_NS && ns < TP_TIME_LIMIT_NS;
}

static inline uint64_t oldest(const struct tp_epochs *e) {
    return e->begun > TP_EPOCHS ? e->begun - TP_EPOCHS : 0;
}

static inline const struct tp_epoch *nth(const struct tp_epochs *e, uint64_t n) {
    return &e->ring[n % TP_EPOCHS];
}

static int64_t reach_from(const struct tp_epochs *e, uint64_t n) {
    return n == oldest(e) ? -TP_TIME_LIMIT_NS : nth(e, n - 1)->until_ns;
}

static int64_t reach_until(const struct tp_epochs *e, uint64_t n) {
    return n + 1 == e->begun ? TP_TIME_LIMIT_NS : nth(e, n + 1)->from_ns;
}

static bool agrees(const struct tp_epoch *epoch, const struct tp_epoch *reading) {
    return reading->lo_ns <= epoch->hi_ns && reading->hi_ns >= epoch->lo_ns;
}

/* Recomputed on every change of an epoch, so that a conversion is one comparison as long as no older epoch is meant. */
static void settle(struct tp_epochs *e) {
    e->alone_ns = INT64_MIN;
    if (e->begun < 2) {
        /* Stamps before the first reading are extrapolated: those go the long way, which marks them. */
        e->alone_ns = nth(e, 0)->hi_ns + nth(e, 0)->from_ns;
        return;
    }
    for (uint64_t n = oldest(e); n + 1 < e->begun; n++)
        e->alone_ns = max_ns(e->alone_ns, nth(e, n)->hi_ns + reach_until(e, n));
    e->alone_ns = max_ns(e->alone_ns, nth(e, e->begun - 1)->hi_ns + reach_from(e, e->begun - 1));
}

static void begin(struct tp_epochs *e, const struct tp_epoch *reading) {
    if (e->begun >= TP_EPOCHS)
        e->evicted++;
    e->ring[e->begun % TP_EPOCHS] = *reading;
    e->begun++;
    settle(e);
}

static void narrow(struct tp_epochs *e, uint64_t n, const struct tp_epoch *reading) {
    struct tp_epoch *epoch = &e->ring[n % TP_EPOCHS];
    epoch->lo_ns = max_ns(epoch->lo_ns, reading->lo_ns);
    epoch->hi_ns = min_ns(epoch->hi_ns, reading->hi_ns);
    epoch->from_ns = min_ns(epoch->from_ns, reading->from_ns);
    epoch->until_ns = max_ns(epoch->until_ns, reading->until_ns);
    epoch->readings++;
    settle(e);
}

/* A reading is an epoch of its own until it is placed. It was taken at one moment inside its bracket, so the clock
 * surely showed it not after `after_ns` and not before `before_ns`. */
static int bounds_of(const struct tp_reading *reading, struct tp_epoch *out) {
    if (!in_range(reading->time_ns) || !in_range(reading->before_ns) || !in_range(reading->after_ns) ||
        reading->before_ns > reading->after_ns)
        return -EINVAL;
    out->lo_ns = reading->time_ns - reading->after_ns;
    out->hi_ns = reading->time_ns - reading->before_ns;
    out->from_ns = reading->after_ns;
    out->until_ns = reading->before_ns;
    out->readings = 1;
    return 0;
}

static bool can_hold(const struct tp_epochs *e, uint64_t n, const struct tp_epoch *reading) {
    return reading->from_ns >= reach_from(e, n) && reading->until_ns <= reach_until(e, n) && agrees(nth(e, n), reading);
}

static int place(struct tp_epochs *e, const struct tp_epoch *reading) {
    /* Newest first: nearly every reading belongs to the current epoch. */
    for (uint64_t n = e->begun; n-- > oldest(e);) {
        if (!can_hold(e, n, reading))
            continue;
        /* In the gap after a step too small to tell the sides apart: it bounds neither. */
        if (n > oldest(e) && can_hold(e, n - 1, reading))
            break;
        narrow(e, n, reading);
        return TP_EPOCHS_KEPT;
    }
    if (e->begun == 0 || reading->until_ns > nth(e, e->begun - 1)->until_ns) {
        begin(e, reading);
        return e->begun == 1 ? TP_EPOCHS_KEPT : TP_EPOCHS_STEPPED;
    }
    e->unplaced++;
    return -ESTALE;
}

int tp_epochs_add(struct tp_epochs *e, const struct tp_reading *reading) {
    struct tp_epoch bounds;
    int error = bounds_of(reading, &bounds);
    return error ? error : place(e, &bounds);
}

int tp_epochs_add_after_set(struct tp_epochs *e, const struct tp_reading *reading, int64_t since_ns) {
    struct tp_epoch bounds;
    int error = bounds_of(reading, &bounds);
    if (error)
        return error;
    if (e->begun == 0)
        return place(e, &bounds);
    const struct tp_epoch *current = nth(e, e->begun - 1);
    bool accounted = e->begun > 1 && current->from_ns >= since_ns;
    if (accounted || bounds.from_ns <= current->until_ns)
        return place(e, &bounds);
    begin(e, &bounds);
    return TP_EPOCHS_STEPPED;
}

/* No epoch's reach holds the stamp: the clock was set forward past it, in the gap between two epochs. Only a further
 * step inside that gap can have shown it, so the gap itself is the bound. */
static int in_a_gap(const struct tp_epochs *e, int64_t clock_ns, struct tp_converted *out) {
    int64_t lo_ns = INT64_MAX, hi_ns = INT64_MIN;
    for (uint64_t n = oldest(e); n + 1 < e->begun; n++) {
        const struct tp_epoch *older = nth(e, n), *newer = nth(e, n + 1);
        if (clock_ns - older->hi_ns > newer->from_ns && clock_ns - newer->lo_ns < older->until_ns) {
            lo_ns = min_ns(lo_ns, older->until_ns);
            hi_ns = max_ns(hi_ns, newer->from_ns);
        }
    }
    if (lo_ns > hi_ns)
        return -ERANGE; /* a moment out of range */
    tp_converted_set(out, lo_ns, hi_ns, TP_MARK_AMBIGUOUS);
    return 0;
}

int tp_epochs_search(const struct tp_epochs *e, int64_t clock_ns, struct tp_converted *out) {
    if (e->begun == 0)
        return -EAGAIN;
    if (!in_range(clock_ns))
        return -ERANGE;
    int64_t lo_ns = INT64_MAX, hi_ns = INT64_MIN;
    unsigned candidates = 0;
    for (uint64_t n = oldest(e); n < e->begun; n++) {
        int64_t first_ns = max_ns(clock_ns - nth(e, n)->hi_ns, reach_from(e, n));
        int64_t last_ns = min_ns(clock_ns - nth(e, n)->lo_ns, reach_until(e, n));
        if (first_ns > last_ns)
            continue;
        candidates++;
        lo_ns = min_ns(lo_ns, first_ns);
        hi_ns = max_ns(hi_ns, last_ns);
    }
    if (candidates == 0)
        return in_a_gap(e, clock_ns, out);
    uint32_t marks = candidates > 1 ? TP_MARK_AMBIGUOUS : 0;
    if (lo_ns < nth(e, oldest(e))->from_ns || hi_ns > nth(e, e->begun - 1)->until_ns)
        marks |= TP_MARK_UNCONFIRMED;
    tp_converted_set(out, lo_ns, hi_ns, marks);
    return 0;
}

int tp_epochs_from_monotonic(const struct tp_epochs *e, int64_t monotonic_ns, struct tp_converted *out) {
    if (e->begun == 0)
        return -EAGAIN;
    if (!in_range(monotonic_ns))
        return -ERANGE;
    int64_t lo_ns = INT64_MAX, hi_ns = INT64_MIN;
    unsigned candidates = 0;
    for (uint64_t n = e->begun; n-- > oldest(e) && monotonic_ns <= reach_until(e, n);) {
        if (monotonic_ns < reach_from(e, n))
            continue;
        candidates++;
        lo_ns = min_ns(lo_ns, nth(e, n)->lo_ns);
        hi_ns = max_ns(hi_ns, nth(e, n)->hi_ns);
    }
    uint32_t marks = candidates > 1 ? TP_MARK_AMBIGUOUS : 0;
    if (monotonic_ns < nth(e, oldest(e))->from_ns || monotonic_ns > nth(e, e->begun - 1)->until_ns)
        marks |= TP_MARK_UNCONFIRMED;
    tp_converted_set(out, monotonic_ns + lo_ns, monotonic_ns + hi_ns, marks);
    return 0;
}
