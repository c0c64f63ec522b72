/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a NIC's own clock (PTP hardware clock, /dev/ptpN) bracketed by CLOCK_MONOTONIC, by the best way that the
 * driver has.
 *
 * The kernel brackets by the realtime clock, but since 6.12 by the monotonic one where it is asked to. Realtime
 * brackets are carried over by two readings of the offset of both clocks, around the call: they must agree, so that no
 * step lies between, and what they leave open widens the bracket.
 *
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef TICKPATH_PHC_H
#define TICKPATH_PHC_H

#include <linux/ptp_clock.h>

#include "tickpath/clock.h"

/* Best first. */
enum tp_phc_way {
    TP_PHC_PRECISE = 0,   /* device and host clock latched at one moment; as exact as the device says */
    TP_PHC_MONOTONIC = 1, /* extended: brackets taken by the driver around its one register, monotonic (Linux 6.12) */
    TP_PHC_EXTENDED = 2,  /* the same in realtime (4.21) */
    TP_PHC_BASIC = 3,     /* brackets around the whole call of the driver, realtime */
    TP_PHC_WAYS,
};

/* realtime - monotonic lies in [lo_ns, hi_ns]. */
struct tp_phc_offset {
    int64_t lo_ns;
    int64_t hi_ns;
};

struct tp_phc {
    int fd;
    uint32_t index;
    uint32_t samples; /* brackets per reading, of which the shortest counts */
    enum tp_phc_way way;
};

/* Opens `path` (/dev/ptpN of `index`). `samples`: 1 to PTP_MAX_SAMPLES reads of the device per reading. The way is
 * found with the first reading. -EACCES, -ENOENT, -ENODEV. */
int tp_phc_open(struct tp_phc *, const char *path, uint32_t index, uint32_t samples);
void tp_phc_close(struct tp_phc *);

/* One reading, `out->time_ns` the device's. -EBUSY and the like: the device refuses for now; -EAGAIN: the host's clock
 * was stepped again and again meanwhile; -EPROTO: what came was no time. */
int tp_phc_read(struct tp_phc *, struct tp_reading *out);

/* The same as a whole TP_KIND_CLOCK record. Its frequency is what the device was last told to run at; it is 0 where
 * that cannot be asked. */
int tp_phc_record(struct tp_phc *, struct tp_event *out);

/* What a call's answer comes to; `offset` NULL: its brackets are monotonic. -EPROTO: no sample of it is a bracketed
 * time. */
int tp_phc_from_extended(const struct ptp_sys_offset_extended *, uint32_t samples, const struct tp_phc_offset *offset,
                         struct tp_reading *out);
int tp_phc_from_basic(const struct ptp_sys_offset *, uint32_t samples, const struct tp_phc_offset *offset,
                      struct tp_reading *out);
int tp_phc_from_precise(const struct ptp_sys_offset_precise *, const struct tp_phc_offset *offset,
                        struct tp_reading *out);

/* What two readings of the realtime clock, around a call, leave of the offset. -EAGAIN: it was stepped between. */
int tp_phc_offset_of(const struct tp_reading *before, const struct tp_reading *after, struct tp_phc_offset *out);

#endif
