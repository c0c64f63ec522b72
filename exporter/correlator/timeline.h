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

struct tp_timeline_fit {
    struct tp_fit fit;
    uint32_t device;
    uint8_t clock; /* TP_CLOCK_NONE: free */
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

/* A stamp as a monotonic time, and realtime - monotonic as it held then, or what stands for it. `device` is the ifindex
 * behind TP_CLOCK_NIC.
 * 0; -EAGAIN: no readings of that clock are known; -ERANGE: near a step of its clock, the time is not to be used. */
int tp_timeline_convert(const struct tp_timeline *, uint8_t clock, uint32_t device, int64_t stamp_ns,
                        int64_t *monotonic_ns, int64_t *offset_ns);

/* realtime - monotonic at a monotonic moment, or what stands for it. */
int64_t tp_timeline_offset(const struct tp_timeline *, int64_t monotonic_ns);

/* What a snapshot shows of the clocks, at most TP_TIMELINE_CLOCKS; returns how many. */
uint32_t tp_timeline_view(const struct tp_timeline *, struct tp_clock_state *out);

#endif
