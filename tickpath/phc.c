/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a PTP hardware clock.
 */
#define _GNU_SOURCE /* clock_adjtime */
#include "tickpath/phc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timex.h>
#include <unistd.h>

#define ATTEMPTS 3

/* Of a descriptor its dynamic clock (man 2 clock_gettime). */
#define FD_TO_CLOCKID(fd) ((clockid_t)((~(unsigned)(fd) << 3) | 3))

static bool time_of(const struct ptp_clock_time *t, int64_t *out) {
    if (t->sec < 0 || t->sec >= TP_TIME_LIMIT_NS / 1000000000 || t->nsec >= 1000000000)
        return false;
    *out = t->sec * INT64_C(1000000000) + t->nsec;
    return true;
}

/* The host's time at both ends; a nanosecond is what truncation hides. */
static void place(int64_t before_ns, int64_t after_ns, const struct tp_phc_offset *offset, struct tp_reading *out) {
    out->before_ns = offset ? before_ns - offset->hi_ns : before_ns;
    out->after_ns = (offset ? after_ns - offset->lo_ns : after_ns) + 1;
}

static int shortest(const struct ptp_clock_time *first, uint32_t samples, uint32_t stride,
                    const struct tp_phc_offset *offset, struct tp_reading *out) {
    int64_t best_ns = INT64_MAX;
    for (uint32_t i = 0; i < samples; i++, first += stride) {
        int64_t before_ns, time_ns, after_ns;
        if (!time_of(&first[0], &before_ns) || !time_of(&first[1], &time_ns) || !time_of(&first[2], &after_ns))
            return -EPROTO;
        if (after_ns < before_ns || after_ns - before_ns >= best_ns)
            continue; /* backwards: the host's clock was set in between */
        best_ns = after_ns - before_ns;
        out->time_ns = time_ns;
        place(before_ns, after_ns, offset, out);
    }
    return best_ns == INT64_MAX ? -EPROTO : 0;
}

int tp_phc_from_extended(const struct ptp_sys_offset_extended *answer, uint32_t samples,
                         const struct tp_phc_offset *offset, struct tp_reading *out) {
    return samples > PTP_MAX_SAMPLES ? -EPROTO : shortest(answer->ts[0], samples, 3, offset, out);
}

int tp_phc_from_basic(const struct ptp_sys_offset *answer, uint32_t samples, const struct tp_phc_offset *offset,
                      struct tp_reading *out) {
    return samples > PTP_MAX_SAMPLES ? -EPROTO : shortest(answer->ts, samples, 2, offset, out);
}

int tp_phc_from_precise(const struct ptp_sys_offset_precise *answer, const struct tp_phc_offset *offset,
                        struct tp_reading *out) {
    int64_t host_ns;
    if (!time_of(&answer->device, &out->time_ns) || !time_of(&answer->sys_realtime, &host_ns))
        return -EPROTO;
    place(host_ns - 1, host_ns, offset, out);
    return 0;
}

int tp_phc_offset_of(const struct tp_reading *before, const struct tp_reading *after, struct tp_phc_offset *out) {
    int64_t lo_ns[] = {before->time_ns - before->after_ns, after->time_ns - after->after_ns};
    int64_t hi_ns[] = {before->time_ns - before->before_ns, after->time_ns - after->before_ns};
    /* One more on both sides for what truncation hides. */
    out->lo_ns = (lo_ns[0] > lo_ns[1] ? lo_ns[0] : lo_ns[1]) - 1;
    out->hi_ns = (hi_ns[0] < hi_ns[1] ? hi_ns[0] : hi_ns[1]) + 1;
    return out->lo_ns <= out->hi_ns ? 0 : -EAGAIN;
}

int tp_phc_open(struct tp_phc *phc, const char *path, uint32_t index, uint32_t samples) {
    if (samples == 0 || samples > PTP_MAX_SAMPLES)
        return -EINVAL;
    /* Writing is not meant, but before Linux 6.15 even its frequency is told only to who may write. */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    *phc = (struct tp_phc){.fd = fd, .index = index, .samples = samples, .way = TP_PHC_PRECISE};
    if (fd < 0)
        return -errno;
    struct ptp_clock_caps caps;
    if (ioctl(fd, PTP_CLOCK_GETCAPS, &caps)) {
        int error = -errno;
        tp_phc_close(phc);
        return error;
    }
    if (!caps.cross_timestamping)
        phc->way = TP_PHC_MONOTONIC;
    return 0;
}

void tp_phc_close(struct tp_phc *phc) {
    if (phc->fd >= 0)
        close(phc->fd);
    phc->fd = -1;
}

static int ask(const struct tp_phc *phc, const struct tp_phc_offset *offset, bool parse, void *answer,
               struct tp_reading *out) {
    struct ptp_sys_offset_precise *precise = answer;
    struct ptp_sys_offset_extended *extended = answer;
    struct ptp_sys_offset *basic = answer;
    switch (phc->way) {
    case TP_PHC_PRECISE:
        if (parse)
            return tp_phc_from_precise(precise, offset, out);
        memset(precise, 0, sizeof(*precise));
        return ioctl(phc->fd, PTP_SYS_OFFSET_PRECISE, precise) ? -errno : 0;
    case TP_PHC_MONOTONIC:
    case TP_PHC_EXTENDED:
        if (parse)
            return tp_phc_from_extended(extended, phc->samples, phc->way == TP_PHC_EXTENDED ? offset : NULL, out);
        memset(extended, 0, sizeof(*extended));
        extended->n_samples = phc->samples;
        /* The clock's id since 6.12; before, whatever is not 0 here is refused. CLOCK_REALTIME is 0. */
        extended->rsv[0] = phc->way == TP_PHC_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME;
        return ioctl(phc->fd, PTP_SYS_OFFSET_EXTENDED, extended) ? -errno : 0;
    default:
        if (parse)
            return tp_phc_from_basic(basic, phc->samples, offset, out);
        memset(basic, 0, sizeof(*basic));
        basic->n_samples = phc->samples;
        return ioctl(phc->fd, PTP_SYS_OFFSET, basic) ? -errno : 0;
    }
}

static int read_once(const struct tp_phc *phc, struct tp_reading *out) {
    union {
        struct ptp_sys_offset_precise precise;
        struct ptp_sys_offset_extended extended;
        struct ptp_sys_offset basic;
    } answer;
    struct tp_reading before, after;
    struct tp_phc_offset offset;
    int error = tp_clock_read_bracketed(CLOCK_REALTIME, 3, &before);
    if (!error)
        error = ask(phc, NULL, false, &answer, NULL);
    if (!error)
        error = tp_clock_read_bracketed(CLOCK_REALTIME, 3, &after);
    if (!error)
        error = tp_phc_offset_of(&before, &after, &offset);
    if (!error)
        error = ask(phc, &offset, true, &answer, out);
    return error;
}

/* What a driver or a kernel says that lacks a way; one time-out of the precise way is a bus that cannot do it. */
static bool lacks(enum tp_phc_way way, int error) {
    return error == -EOPNOTSUPP || error == -EINVAL || error == -ENOTTY || error == -ENODEV ||
           (way == TP_PHC_PRECISE && error == -ETIMEDOUT);
}

int tp_phc_read(struct tp_phc *phc, struct tp_reading *out) {
    for (;;) {
        int error = -EAGAIN;
        for (int attempt = 0; attempt < ATTEMPTS && error == -EAGAIN; attempt++)
            error = read_once(phc, out);
        if (!lacks(phc->way, error) || phc->way == TP_PHC_BASIC)
            return error;
        phc->way++;
    }
}

int tp_phc_record(struct tp_phc *phc, struct tp_event *out) {
    struct tp_reading reading;
    struct tp_clock_status status;
    struct timex timex = {.modes = 0};
    int error = tp_phc_read(phc, &reading);
    if (error)
        return error;
    (void)tp_clock_status_read(&status);
    memset(out, 0, sizeof(*out));
    out->kind = TP_KIND_CLOCK;
    out->clock = (uint8_t)(TP_CLOCK_PHC + phc->index);
    out->row = TP_ROW_NONE;
    out->time_ns = reading.time_ns;
    out->reading.before_ns = reading.before_ns;
    out->reading.after_ns = reading.after_ns;
    out->reading.max_error_ns = INT64_MAX;
    if (clock_adjtime(FD_TO_CLOCKID(phc->fd), &timex) >= 0)
        out->reading.frequency = timex.freq;
    out->reading.tai_offset_s = status.tai_offset_s;
    out->reading.device = phc->index;
    return 0;
}
