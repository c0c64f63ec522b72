/* SPDX-License-Identifier: Apache-2.0
 *
 * From the clocks of the records to the one internal timeline, CLOCK_MONOTONIC.
 */
#include "exporter/correlator/timeline.h"

#include <string.h>

void tp_timeline_init(struct tp_timeline *t) {
    memset(t, 0, sizeof *t);
    t->max_error_ns = INT64_MAX;
    for (uint32_t i = 0; i < TP_TIMELINE_RINGS; i++)
        t->realtime_since_ns[i] = t->tai_since_ns[i] = TP_EPOCHS_SINCE_UNKNOWN;
}

/* A device matters to free counters alone: a PHC has its index in the clock's number. */
static bool same_clock(const struct tp_timeline_fit *f, uint8_t clock, uint32_t device) {
    return f->clock == clock && (clock != TP_CLOCK_NIC || f->device == device);
}

static struct tp_timeline_fit *fit_for(struct tp_timeline *t, uint8_t clock, uint32_t device) {
    for (int i = 0; i < TP_TIMELINE_FITS; i++) {
        struct tp_timeline_fit *f = &t->fits[i];
        if (f->clock == TP_CLOCK_NONE) {
            tp_fit_init(&f->fit, clock >= TP_CLOCK_PHC ? TP_FIT_PHC_WANDER_PPB : TP_FIT_WANDER_PPB);
            f->clock = clock;
            f->device = device;
        }
        if (same_clock(f, clock, device))
            return f;
    }
    return NULL;
}

static void broke(struct tp_timeline_fit *f, const struct tp_event *event) {
    f->broken = true;
    f->broke_ns = event->reading.after_ns;
    f->slowest = f->fastest = event->reading.frequency;
    memset(f->since, 0, sizeof f->since);
}

/* Whoever disciplines a PHC tells the kernel how fast it is to run: a change beyond what a line may wander is known
 * before readings show it. */
static void follow_frequency(struct tp_timeline_fit *f, const struct tp_event *event) {
    const double limit = TP_FIT_PHC_WANDER_PPB * 65536.0 / 1000.0;
    int64_t frequency = event->reading.frequency;
    if (f->fit.readings == 0)
        f->slowest = f->fastest = frequency;
    f->slowest = frequency < f->slowest ? frequency : f->slowest;
    f->fastest = frequency > f->fastest ? frequency : f->fastest;
    if ((double)f->fastest - (double)f->slowest <= limit)
        return;
    tp_fit_restart(&f->fit);
    broke(f, event);
}

static int take_reading(struct tp_timeline_fit *f, uint32_t ring, const struct tp_event *event) {
    const struct tp_reading reading = {event->time_ns, event->reading.before_ns, event->reading.after_ns};
    if (event->clock >= TP_CLOCK_PHC)
        follow_frequency(f, event);
    int outcome = tp_fit_add(&f->fit, &reading);
    if (outcome == TP_FIT_BROKE)
        broke(f, event);
    else if (reading.before_ns > f->broke_ns && f->since[ring] < TP_TIMELINE_TRUSTED)
        f->since[ring]++; /* also when another ring's is newer */
    return outcome;
}

void tp_timeline_reading(struct tp_timeline *t, uint32_t ring, const struct tp_event *event) {
    const struct tp_clock_reading *r = &event->reading;
    int outcome = -EINVAL;
    if (event->clock == TP_CLOCK_REALTIME) {
        outcome = tp_epochs_add_record(&t->realtime, event, &t->realtime_since_ns[ring]);
        if (outcome >= 0)
            t->max_error_ns = event->flags & TP_CLOCK_SYNCHRONISED ? r->max_error_ns : INT64_MAX;
    } else if (event->clock == TP_CLOCK_TAI) {
        outcome = tp_epochs_add_record(&t->tai, event, &t->tai_since_ns[ring]);
    } else if (event->clock > TP_CLOCK_TAI) {
        struct tp_timeline_fit *f = fit_for(t, event->clock, r->device);
        if (f)
            outcome = take_reading(f, ring, event);
    }
    t->refused += outcome < 0;
}

int64_t tp_timeline_offset(const struct tp_timeline *t, int64_t monotonic_ns) {
    struct tp_converted out;
    if (tp_epochs_from_monotonic(&t->realtime, monotonic_ns, &out) != 0)
        return TP_OFFSET_UNKNOWN;
    return out.marks & TP_MARK_AMBIGUOUS ? TP_OFFSET_STEP : out.time_ns - monotonic_ns;
}

static int convert_by_fit(const struct tp_timeline_fit *f, uint32_t ring, int64_t stamp, struct tp_converted *out) {
    bool phc = f->clock >= TP_CLOCK_PHC;
    if (phc && f->broken && f->since[ring] < TP_TIMELINE_TRUSTED)
        return -ERANGE;
    int error = tp_fit_convert(&f->fit, stamp, out);
    if (error == -ENODATA)
        return phc ? -ERANGE : -EAGAIN;
    return error || (phc && out->marks & TP_MARK_UNCONFIRMED) ? -EAGAIN : 0;
}

int tp_timeline_convert(const struct tp_timeline *t, uint32_t ring, uint8_t clock, uint32_t device, int64_t stamp_ns,
                        struct tp_placed *out) {
    struct tp_converted at = {.time_ns = stamp_ns};
    int error = -EAGAIN;
    out->offset_ns = TP_OFFSET_UNKNOWN;
    if (clock == TP_CLOCK_MONOTONIC) {
        error = 0;
    } else if (clock == TP_CLOCK_REALTIME) {
        error = tp_epochs_to_monotonic(&t->realtime, stamp_ns, &at);
    } else if (clock == TP_CLOCK_TAI) {
        error = tp_epochs_to_monotonic(&t->tai, stamp_ns, &at);
    } else {
        for (int i = 0; i < TP_TIMELINE_FITS && t->fits[i].clock != TP_CLOCK_NONE; i++) {
            if (same_clock(&t->fits[i], clock, device))
                error = convert_by_fit(&t->fits[i], ring, stamp_ns, &at);
        }
    }
    if (error)
        return error == -ERANGE && clock >= TP_CLOCK_PHC ? -ERANGE : -EAGAIN;
    out->time_ns = at.time_ns;
    out->bound_ns = at.bound_ns;
    if (at.marks & TP_MARK_AMBIGUOUS)
        return -ERANGE;
    /* What a realtime stamp was converted with is what the venue's time is to be converted with. */
    out->offset_ns = clock == TP_CLOCK_REALTIME ? stamp_ns - at.time_ns : tp_timeline_offset(t, at.time_ns);
    return 0;
}

static uint32_t view_epochs(const struct tp_timeline *t, const struct tp_epochs *e, uint32_t clock,
                            struct tp_clock_state *out) {
    const struct tp_epoch *now = tp_epochs_current(e);
    if (!now)
        return 0;
    *out = (struct tp_clock_state){
        .clock = clock,
        .steps = tp_epochs_steps(e),
        .offset_ns = now->lo_ns + (now->hi_ns - now->lo_ns) / 2,
        .bound_ns = (now->hi_ns - now->lo_ns + 1) / 2,
        .max_error_ns = t->max_error_ns,
    };
    return 1;
}

uint32_t tp_timeline_view(const struct tp_timeline *t, struct tp_clock_state *out) {
    uint32_t count = view_epochs(t, &t->realtime, TP_CLOCK_REALTIME, out);
    int64_t realtime_bound_ns = count ? out->bound_ns : 0;
    count += view_epochs(t, &t->tai, TP_CLOCK_TAI, out + count);
    for (int i = 0; i < TP_TIMELINE_FITS && t->fits[i].clock != TP_CLOCK_NONE; i++) {
        const struct tp_timeline_fit *f = &t->fits[i];
        struct tp_converted at;
        if (f->fit.count == 0)
            continue;
        int64_t newest = f->fit.points[f->fit.count - 1].reading.time_ns;
        if (tp_fit_convert(&f->fit, newest, &at) != 0)
            continue;
        /* To be UTC it must be read as realtime, whose own bound is then added. */
        out[count++] = (struct tp_clock_state){
            .clock = f->clock,
            .device = f->device,
            .steps = f->fit.breaks,
            .offset_ns = newest - at.time_ns,
            .bound_ns = at.bound_ns + realtime_bound_ns,
            .max_error_ns = t->max_error_ns,
        };
    }
    return count;
}
