/* SPDX-License-Identifier: Apache-2.0
 *
 * From the clocks of the records to the one internal timeline, CLOCK_MONOTONIC.
 */
#ifndef TICKPATH_CORRELATOR_TIMELINE_H
#define TICKPATH_CORRELATOR_TIMELINE_H

#include "exporter/correlator/correlator.h"
#include "tickpath/epochs.h"
#include "tickpath/fit.h"

#define TP_TIMELINE_FITS 8    /* counters (PHC, TSC, NIC) that are followed at once */
#define TP_TIMELINE_RINGS 65u /* 64 inputs and the correlator itself */
#define TP_TIMELINE_SELF 64u
#define TP_TIMELINE_CLOCKS (2 + TP_TIMELINE_FITS)

/* After a break, so many readings of a ring are waited for until its stamps are believed: a wire probe writes with each
 * reading the frames that had come by then, but those of the block that was being filled with the next. */
#define TP_TIMELINE_TRUSTED 3u

struct tp_timeline_fit {
    struct tp_fit fit;
    uint32_t device;
    uint8_t clock;                    /* TP_CLOCK_NONE: free */
    bool broken;                      /* it broke once: `since` counts */
    uint8_t since[TP_TIMELINE_RINGS]; /* readings of each ring from after the last break, up to TP_TIMELINE_TRUSTED */
    int64_t broke_ns;
    int64_t slowest; /* what it was told to run at since then, 2^-16 ppm */
    int64_t fastest;
};

/* A stamp on the monotonic timeline: it lies in [time_ns - bound_ns, time_ns + bound_ns]. */
struct tp_placed {
    int64_t time_ns;
    int64_t bound_ns;
    int64_t offset_ns; /* realtime - monotonic as it held then, or what stands for it */
};

struct tp_timeline {
    struct tp_epochs realtime;
    struct tp_epochs tai;
    int64_t realtime_since_ns[TP_TIMELINE_RINGS];
    int64_t tai_since_ns[TP_TIMELINE_RINGS];
    struct tp_timeline_fit fits[TP_TIMELINE_FITS];
    int64_t max_error_ns; /* the kernel's bound on UTC, as last said; INT64_MAX: unknown */
    uint64_t refused;     /* readings that could not be used */
};

void tp_timeline_init(struct tp_timeline *);

/* Takes a CLOCK record of input `ring`. */
void tp_timeline_reading(struct tp_timeline *, uint32_t ring, const struct tp_event *);

/* Values of an offset that is none. */
#define TP_OFFSET_UNKNOWN INT64_MIN    /* nobody has read the realtime clock */
#define TP_OFFSET_STEP (INT64_MIN + 1) /* near a step: one of two */

/* A stamp that came from input `ring`. `device` is the ifindex behind TP_CLOCK_NIC. A PHC's is placed only between two
 * readings: a step could hide behind the last.
 * 0; -EAGAIN: no readings of that clock are known; -ERANGE: near a step of its clock, the time is not to be used. */
int tp_timeline_convert(const struct tp_timeline *, uint32_t ring, uint8_t clock, uint32_t device, int64_t stamp_ns,
                        struct tp_placed *out);

/* realtime - monotonic at a monotonic moment, or what stands for it. */
int64_t tp_timeline_offset(const struct tp_timeline *, int64_t monotonic_ns);

/* What a snapshot shows of the clocks, at most TP_TIMELINE_CLOCKS; returns how many. */
uint32_t tp_timeline_view(const struct tp_timeline *, struct tp_clock_state *out);

#endif
