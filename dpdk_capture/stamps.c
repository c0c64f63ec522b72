/* SPDX-License-Identifier: Apache-2.0 */
#include "dpdk_capture/stamps.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <string.h>

#define TRIES 8

static int read_device(const struct tp_dpdk_stamps *stamps, uint64_t *out) {
    if (stamps->driver->reading == TP_DPDK_READ_CLOCK)
        return rte_eth_read_clock(stamps->port, out);
    struct timespec time;
    int error = rte_eth_timesync_read_time(stamps->port, &time);
    *out = (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
    return error;
}

int tp_dpdk_stamps_open(struct tp_dpdk_stamps *stamps, const struct tp_dpdk_port *port, char *why, size_t why_bytes) {
    memset(stamps, 0, sizeof(*stamps));
    stamps->port = port->id;
    stamps->device = port->device;
    stamps->tsc_hz = rte_get_tsc_hz();
    stamps->offset = -1;
    tp_fit_init(&stamps->fit, TP_FIT_WANDER_PPB);
    why[0] = '\0';
    if (!port->driver) {
        snprintf(why, why_bytes, "what the stamps of driver %s mean is not known", port->driver_name);
        return -ENOTSUP;
    }
    if (port->stamp_offset < 0) {
        snprintf(why, why_bytes, "%s does not stamp what it receives on this port", port->driver_name);
        return -ENOTSUP;
    }
    if (port->driver->reading == TP_DPDK_READ_NONE) {
        snprintf(why, why_bytes, "%s stamps, and has no call that reads its clock", port->driver_name);
        return -ENOTSUP;
    }
    stamps->driver = port->driver;
    stamps->offset = port->stamp_offset;
    stamps->flag = port->stamp_flag;
    if (port->driver->reading == TP_DPDK_READ_HOST)
        return 0;
    uint64_t now;
    if (port->driver->reading == TP_DPDK_READ_TIMESYNC)
        (void)rte_eth_timesync_enable(port->id); /* some only read what this starts; an error shows below */
    int error = read_device(stamps, &now);
    if (error) {
        snprintf(why, why_bytes, "the clock of %s cannot be read: %s", port->driver_name, strerror(-error));
        stamps->driver = NULL;
        return error;
    }
    return 0;
}

int tp_dpdk_stamps_read(struct tp_dpdk_stamps *stamps, struct tp_event *out) {
    bool tsc = !stamps->driver;
    int64_t shortest = INT64_MAX;
    struct tp_reading best = {0};
    uint64_t raw, read_tsc = 0;
    if (!tsc && stamps->driver->reading == TP_DPDK_READ_HOST)
        return -EAGAIN;
    int64_t before = tp_monotonic_ns();
    for (int i = 0; i < TRIES; i++) {
        int error = 0;
        if (tsc)
            raw = rte_rdtsc_precise();
        else
            error = read_device(stamps, &raw);
        if (error)
            return error;
        int64_t after = tp_monotonic_ns();
        if (after - before < shortest) {
            shortest = after - before;
            best = (struct tp_reading){(int64_t)raw, before, after};
            read_tsc = rte_rdtsc();
        }
        before = after;
    }
    *out = (struct tp_event){.kind = TP_KIND_CLOCK, .clock = tsc ? TP_CLOCK_TSC : TP_CLOCK_NIC, .row = TP_ROW_NONE};
    if (!tsc) {
        if (stamps->read_before)
            best.time_ns = tp_dpdk_unwrap(stamps, (uint64_t)best.time_ns, tp_dpdk_stamps_now(stamps, read_tsc));
        stamps->read_before = true;
        atomic_store_explicit(&stamps->reference, best.time_ns, memory_order_relaxed);
        struct tp_converted at;
        int outcome = tp_fit_add(&stamps->fit, &best);
        if (outcome == TP_FIT_BROKE)
            out->flags = TP_CLOCK_STEPPED;
        int64_t bound_ns = tp_fit_convert(&stamps->fit, best.time_ns, &at) == 0 ? at.bound_ns : 0;
        atomic_store_explicit(&stamps->bound_ns, bound_ns, memory_order_relaxed);
        double ns_per_tick = tp_fit_ns_per_tick(&stamps->fit);
        double ticks_per_tsc = ns_per_tick > 0 ? 1e9 / (double)stamps->tsc_hz / ns_per_tick : 0;
        atomic_store_explicit(&stamps->reference_tsc, read_tsc, memory_order_relaxed);
        atomic_store_explicit(&stamps->ticks_per_tsc, ticks_per_tsc, memory_order_relaxed);
    }
    out->time_ns = best.time_ns;
    out->reading.before_ns = best.before_ns;
    out->reading.after_ns = best.after_ns;
    out->reading.max_error_ns = INT64_MAX;
    out->reading.device = tsc ? 0 : stamps->device;
    return 0;
}
