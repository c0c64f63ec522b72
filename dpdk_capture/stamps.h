/* SPDX-License-Identifier: Apache-2.0
 *
 * The stamp of a received frame: the port's own where the table of drivers knows its clock, else one reading of the TSC
 * per burst.
 *
 * A record carries the raw stamp; so that a reader can convert it, the first loop of a port publishes readings of the
 * clock behind it. A counter of fewer than 64 bits is unwrapped against where it must be by now, as the last reading
 * and its rate tell all loops of the port: however often it came round since.
 */
#ifndef TICKPATH_DPDK_STAMPS_H
#define TICKPATH_DPDK_STAMPS_H

#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "dpdk_capture/port.h"
#include "tickpath/event.h"
#include "tickpath/fit.h"

struct tp_dpdk_stamps {
    const struct tp_dpdk_driver *driver; /* NULL: no stamp of the port's is used */
    uint16_t port;
    uint32_t device;
    int offset;
    uint64_t flag;
    uint64_t tsc_hz;
    _Atomic int64_t reference; /* the counter at its last reading, unwrapped */
    _Atomic int64_t bound_ns;  /* of the fit at its last reading; 0: no fit yet */
    _Atomic uint64_t reference_tsc;
    _Atomic double ticks_per_tsc; /* 0: no fit yet */
    struct tp_fit fit;            /* of who reads */
    bool read_before;
};

/* Uses the port's own stamps where they can be: they are there, their clock is known and can be read. 0, or negative
 * with one line in `why` where they are asked for and the TSC will serve instead: -ENOTSUP, -errno of the driver. */
int tp_dpdk_stamps_open(struct tp_dpdk_stamps *, const struct tp_dpdk_port *, char *why, size_t why_bytes);

/* Reads the clock that stamps come from, shortest of a few brackets, into a whole CLOCK record. One thread: the port's
 * first loop. -EAGAIN: there is nothing to publish, the clock is the host's own. -errno of the driver. */
int tp_dpdk_stamps_read(struct tp_dpdk_stamps *, struct tp_event *out);

/* Where the counter, unwrapped, is at `tsc`: as the last reading says, where no rate is known yet. */
static inline int64_t tp_dpdk_stamps_now(const struct tp_dpdk_stamps *stamps, uint64_t tsc) {
    int64_t reference = atomic_load_explicit(&stamps->reference, memory_order_relaxed);
    double rate = atomic_load_explicit(&stamps->ticks_per_tsc, memory_order_relaxed);
    int64_t since = (int64_t)(tsc - atomic_load_explicit(&stamps->reference_tsc, memory_order_relaxed));
    return rate > 0 ? reference + (int64_t)((double)since * rate) : reference;
}

static inline int64_t tp_dpdk_unwrap(const struct tp_dpdk_stamps *stamps, uint64_t raw, int64_t now) {
    unsigned bits = stamps->driver->bits;
    if (bits >= 64)
        return (int64_t)raw;
    uint64_t ahead = (raw - (uint64_t)now) << (64 - bits);
    return now + ((int64_t)ahead >> (64 - bits));
}

/* Stamps that a burst of now can have: after a step of the clock, until a reading shows it, they are none of these. */
struct tp_dpdk_plausible {
    int64_t now;
    int64_t first;
    int64_t last;
};

static inline struct tp_dpdk_plausible tp_dpdk_stamps_plausible(const struct tp_dpdk_stamps *stamps, uint64_t tsc) {
    if (!stamps->driver)
        return (struct tp_dpdk_plausible){0, INT64_MIN, INT64_MAX};
    int64_t now = tp_dpdk_stamps_now(stamps, tsc);
    double rate = atomic_load_explicit(&stamps->ticks_per_tsc, memory_order_relaxed);
    if (rate <= 0)
        return (struct tp_dpdk_plausible){now, INT64_MIN, INT64_MAX};
    int64_t second = (int64_t)((double)stamps->tsc_hz * rate);
    return (struct tp_dpdk_plausible){now, now - second, now + second / 1000};
}

/* Puts the port's own stamp of a frame into its record. false: the frame has none that can be. */
static inline bool tp_dpdk_stamp(const struct tp_dpdk_stamps *stamps, const struct tp_dpdk_plausible *plausible,
                                 const struct rte_mbuf *frame, struct tp_event *event) {
    const struct tp_dpdk_driver *driver = stamps->driver;
    if (!(frame->ol_flags & stamps->flag))
        return false;
    uint64_t raw = *RTE_MBUF_DYNFIELD(frame, stamps->offset, const rte_mbuf_timestamp_t *);
    if (driver->reading == TP_DPDK_READ_HOST) {
        event->source = driver->source;
        event->clock = TP_CLOCK_REALTIME;
        event->time_ns = (int64_t)(raw * driver->tick_ns);
        event->segment.bound_ns = driver->tick_ns;
        return true;
    }
    int64_t time = tp_dpdk_unwrap(stamps, raw, plausible->now);
    if (time < plausible->first || time > plausible->last)
        return false;
    event->source = driver->source;
    event->clock = TP_CLOCK_NIC;
    event->time_ns = time;
    int64_t bound_ns = atomic_load_explicit(&stamps->bound_ns, memory_order_relaxed);
    event->segment.bound_ns = bound_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)bound_ns;
    return true;
}

#endif
