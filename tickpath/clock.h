/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the host's clocks: bracketed readings, what the kernel says about its UTC, and a watch that tells when the
 * realtime clock was set. Conversions between clocks are in epochs.h (slope 1) and fit.h (lines).
 *
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef TICKPATH_CLOCK_H
#define TICKPATH_CLOCK_H

#include <stdbool.h>
#include <time.h>

#include "tickpath/event.h"

/* Times further out than 73 years from either end of int64 are refused, so that sums and differences cannot overflow.
 */
#define TP_TIME_LIMIT_NS (INT64_C(1) << 61)

/* The clock showed `time_ns` at some moment not before `before_ns` and not after `after_ns`, both CLOCK_MONOTONIC. For
 * a counter (TSC, a NIC's) `time_ns` is its raw value. */
struct tp_reading {
    int64_t time_ns;
    int64_t before_ns;
    int64_t after_ns;
};

/* What a converted stamp is worth: the true value lies in [time_ns - bound_ns, time_ns + bound_ns]. */
struct tp_converted {
    int64_t time_ns;
    int64_t bound_ns;
    uint32_t marks; /* enum tp_mark */
};

enum tp_mark {
    TP_MARK_AMBIGUOUS = 0x01,   /* near a step: it may belong to either side, and the bound covers both */
    TP_MARK_UNCONFIRMED = 0x02, /* outside the moments between the first and the last reading: extrapolated */
};

static inline int64_t tp_clock_ns(clockid_t id) {
    struct timespec now;
    if (clock_gettime(id, &now) != 0)
        return -1;
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline int64_t tp_monotonic_ns(void) {
    return tp_clock_ns(CLOCK_MONOTONIC);
}

/* The reading with the shortest bracket out of `tries` (at least 1). `id` may be a PHC's dynamic clock id.
 * -EINVAL: no such clock, or no tries; what clock_gettime says otherwise. */
int tp_clock_read_bracketed(clockid_t id, unsigned tries, struct tp_reading *out);

/* What adjtimex(2) says. */
struct tp_clock_status {
    int64_t max_error_ns; /* bound on UTC; INT64_MAX: unknown (not synchronised, or adjtimex is forbidden) */
    int64_t frequency;    /* 2^-16 ppm */
    int32_t tai_offset_s; /* TAI - UTC; 0: nobody has set it */
    bool synchronised;
};

/* Fills `out` in any case: with "unknown" where adjtimex fails, whose errno is then returned. */
int tp_clock_status_read(struct tp_clock_status *out);

/* Fills two whole TP_KIND_CLOCK records, TP_CLOCK_REALTIME then TP_CLOCK_TAI, ready for a ring. `watch_fd` is this
 * producer's own tp_clock_watch_open, or -1: both are flagged TP_CLOCK_STEPPED when the clock was set since the call
 * before, and no set falls between a flag and its reading. */
int tp_clock_records(int watch_fd, unsigned tries, struct tp_event out[2]);

/* A descriptor that becomes readable when the realtime clock is set (settimeofday, adjtimex step, leap second, resume
 * from suspend): a timerfd with TFD_TIMER_CANCEL_ON_SET. Close it with close(2). Returns it, or a negative errno. */
int tp_clock_watch_open(void);

/* 1: the clock was set since the last call; 0: it was not; else a negative errno. One system call; never blocks. */
int tp_clock_watch_fired(int fd);

#endif
