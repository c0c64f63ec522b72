/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines through a counter's readings: the range of its rate from all pairs, and each reading's bounds tightened by the
 * others.
 */
#include "tickpath/fit.h"

#include <stdbool.h>
#include <string.h>

void tp_fit_init(struct tp_fit *fit, double wander_ppb) {
    memset(fit, 0, sizeof(*fit));
    fit->wander = wander_ppb * 1e-9;
}

void tp_fit_restart(struct tp_fit *fit) {
    fit->count = 0;
    fit->after_break = 1;
}

static double ticks_between(const struct tp_fit_point *older, const struct tp_fit_point *newer) {
    return (double)(newer->reading.time_ns - older->reading.time_ns);
}

/* Brackets relative to the newest reading, widened by what truncation hides: a nanosecond of the monotonic clock at the
 * end, a tick of the counter (roughly known from the two ends) at the start. */
static void lay_out(struct tp_fit *fit) {
    const struct tp_fit_point *first = &fit->points[0], *last = &fit->points[fit->count - 1];
    double tick_ns = (double)(last->reading.after_ns - first->reading.before_ns) / ticks_between(first, last);
    fit->origin_ns = last->reading.before_ns;
    for (uint32_t i = 0; i < fit->count; i++) {
        struct tp_fit_point *point = &fit->points[i];
        point->lo_ns = (double)(point->reading.before_ns - fit->origin_ns) - tick_ns;
        point->hi_ns = (double)(point->reading.after_ns - fit->origin_ns) + 1.0;
    }
}

/* The range of the rate that every pair allows. False: none does. */
static bool bound_rate(struct tp_fit *fit) {
    double least = -INFINITY, most = INFINITY;
    for (uint32_t i = 0; i < fit->count; i++) {
        for (uint32_t j = i + 1; j < fit->count; j++) {
            double per_tick = 1.0 / ticks_between(&fit->points[i], &fit->points[j]);
            double slowest = (fit->points[j].lo_ns - fit->points[i].hi_ns) * per_tick;
            double fastest = (fit->points[j].hi_ns - fit->points[i].lo_ns) * per_tick;
            least = slowest > least ? slowest : least;
            most = fastest < most ? fastest : most;
        }
    }
    /* Each pair gave an average, which the wander may have moved off the constant; the rate of a moment may be off it
     * by as much again. */
    double wander = fit->wander * most;
    if (least - wander > most + wander)
        return false;
    fit->slow = fmax(0.0, least - 2 * wander);
    fit->fast = most + 2 * wander;
    return true;
}

/* Each reading's cone passed on to its neighbours, forwards and then backwards. False: two of them do not meet. */
static bool tighten(struct tp_fit *fit) {
    for (uint32_t i = 1; i < fit->count; i++) {
        const struct tp_fit_point *before = &fit->points[i - 1];
        struct tp_fit_point *point = &fit->points[i];
        double ticks = ticks_between(before, point);
        point->lo_ns = fmax(point->lo_ns, before->lo_ns + fit->slow * ticks);
        point->hi_ns = fmin(point->hi_ns, before->hi_ns + fit->fast * ticks);
        if (point->lo_ns > point->hi_ns)
            return false;
    }
    for (uint32_t i = fit->count - 1; i-- > 0;) {
        const struct tp_fit_point *after = &fit->points[i + 1];
        struct tp_fit_point *point = &fit->points[i];
        double ticks = ticks_between(point, after);
        point->lo_ns = fmax(point->lo_ns, after->lo_ns - fit->fast * ticks);
        point->hi_ns = fmin(point->hi_ns, after->hi_ns - fit->slow * ticks);
        if (point->lo_ns > point->hi_ns)
            return false;
    }
    return true;
}

static void measure_residual(struct tp_fit *fit) {
    const struct tp_fit_point *last = &fit->points[fit->count - 1];
    double ns_per_tick = tp_fit_ns_per_tick(fit), middle_ns = 0.5 * (last->lo_ns + last->hi_ns), sum = 0.0;
    for (uint32_t i = 0; i < fit->count; i++) {
        const struct tp_reading *reading = &fit->points[i].reading;
        double read_ns =
            (double)(reading->before_ns - fit->origin_ns) + 0.5 * (double)(reading->after_ns - reading->before_ns);
        double off_ns = read_ns - (middle_ns - ns_per_tick * ticks_between(&fit->points[i], last));
        sum += off_ns * off_ns;
    }
    fit->residual_ns = sqrt(sum / fit->count);
}

static void drop_oldest(struct tp_fit *fit, uint32_t n) {
    fit->count -= n;
    memmove(fit->points, fit->points + n, fit->count * sizeof(fit->points[0]));
}

static bool contradicts(const struct tp_fit *fit, const struct tp_reading *reading) {
    struct tp_converted expected;
    if (reading->time_ns < fit->points[fit->count - 1].reading.time_ns)
        return true;
    if (fit->count < 2)
        return false;
    if (tp_fit_convert(fit, reading->time_ns, &expected) != 0)
        return true;
    return reading->before_ns > expected.time_ns + expected.bound_ns ||
           reading->after_ns < expected.time_ns - expected.bound_ns;
}

int tp_fit_add(struct tp_fit *fit, const struct tp_reading *reading) {
    int outcome = TP_FIT_KEPT;
    if (reading->before_ns > reading->after_ns || reading->before_ns <= -TP_TIME_LIMIT_NS ||
        reading->after_ns >= TP_TIME_LIMIT_NS || reading->time_ns <= -TP_TIME_LIMIT_NS ||
        reading->time_ns >= TP_TIME_LIMIT_NS)
        return -EINVAL;
    if (fit->count) {
        const struct tp_reading *last = &fit->points[fit->count - 1].reading;
        if (reading->before_ns < last->before_ns)
            return -ESTALE;
        if (contradicts(fit, reading)) {
            fit->count = 0;
            fit->after_break = 1;
            fit->breaks++;
            outcome = TP_FIT_BROKE;
        } else if (reading->time_ns == last->time_ns) {
            return -ESTALE; /* read again within one tick */
        }
    }
    if (fit->count == TP_FIT_POINTS)
        drop_oldest(fit, 1);
    fit->points[fit->count++].reading = *reading;
    fit->readings++;
    while (fit->count >= 2) {
        lay_out(fit);
        if (bound_rate(fit) && tighten(fit)) {
            measure_residual(fit);
            break;
        }
        /* The newest reading is in line with the last ones, but the window as a whole is bent: its oldest part goes. */
        drop_oldest(fit, 1);
    }
    return outcome;
}
