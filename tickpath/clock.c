/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the host's clocks.
 */
#include "tickpath/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <unistd.h>

int tp_clock_read_bracketed(clockid_t id, unsigned tries, struct tp_reading *out) {
    int64_t shortest = INT64_MAX;
    if (tries == 0)
        return -EINVAL;
    int64_t before = tp_monotonic_ns();
    for (unsigned i = 0; i < tries; i++) {
        struct timespec read;
        if (clock_gettime(id, &read) != 0)
            return -errno;
        int64_t after = tp_monotonic_ns();
        if (after - before < shortest) {
            shortest = after - before;
            out->time_ns = (int64_t)read.tv_sec * INT64_C(1000000000) + read.tv_nsec;
            out->before_ns = before;
            out->after_ns = after;
        }
        before = after; /* the end of one bracket is the start of the next: one clock read less per try */
    }
    return 0;
}

int tp_clock_status_read(struct tp_clock_status *out) {
    struct timex timex = {.modes = 0};
    *out = (struct tp_clock_status){.max_error_ns = INT64_MAX};
    int state = adjtimex(&timex);
    if (state < 0)
        return -errno;
    out->frequency = timex.freq;
    out->tai_offset_s = timex.tai;
    /* Unsynchronised, the kernel's maxerror sits at its ceiling of 16 s and bounds nothing. */
    out->synchronised = state != TIME_ERROR && !(timex.status & STA_UNSYNC);
    if (out->synchronised)
        out->max_error_ns = (int64_t)timex.maxerror * 1000;
    return 0;
}

static void fill_record(enum tp_clock clock, const struct tp_reading *reading, const struct tp_clock_status *status,
                        bool stepped, struct tp_event *out) {
    memset(out, 0, sizeof(*out));
    out->kind = TP_KIND_CLOCK;
    out->clock = (uint8_t)clock;
    out->flags = (uint8_t)((status->synchronised ? TP_CLOCK_SYNCHRONISED : 0) | (stepped ? TP_CLOCK_STEPPED : 0));
    out->row = TP_ROW_NONE;
    out->time_ns = reading->time_ns;
    out->reading.before_ns = reading->before_ns;
    out->reading.after_ns = reading->after_ns;
    out->reading.max_error_ns = status->max_error_ns;
    out->reading.frequency = status->frequency;
    out->reading.tai_offset_s = status->tai_offset_s;
}

int tp_clock_records(int watch_fd, unsigned tries, struct tp_event out[2]) {
    struct tp_reading realtime, tai;
    struct tp_clock_status status;
    bool stepped = false;
    /* Read again when the clock was set meanwhile: a reading must not be on one side of a set and its flag on the
     * other. */
    for (bool was_read = false;; was_read = true) {
        int fired = watch_fd < 0 ? 0 : tp_clock_watch_fired(watch_fd);
        if (fired < 0)
            return fired;
        stepped |= fired != 0;
        if (was_read && !fired)
            break;
        int error = tp_clock_read_bracketed(CLOCK_REALTIME, tries, &realtime);
        if (!error)
            error = tp_clock_read_bracketed(CLOCK_TAI, tries, &tai);
        if (error)
            return error;
    }
    (void)tp_clock_status_read(&status); /* a failure is in the records: not synchronised, bound unknown */
    fill_record(TP_CLOCK_REALTIME, &realtime, &status, stepped, &out[0]);
    fill_record(TP_CLOCK_TAI, &tai, &status, stepped, &out[1]);
    return 0;
}

int tp_clock_watch_open(void) {
    /* An expiry that no host lives to see: only the cancellation matters. */
    const struct itimerspec never = {.it_value = {.tv_sec = INT64_C(1) << 33}};
    int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

int tp_clock_watch_fired(int fd) {
    uint64_t expirations;
    if (read(fd, &expirations, sizeof(expirations)) >= 0)
        return 0;
    /* The kernel keeps the timer on its cancel list: the next set is reported too, without arming it again. */
    if (errno == ECANCELED)
        return 1;
    return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}
