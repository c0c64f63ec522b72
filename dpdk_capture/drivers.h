/* SPDX-License-Identifier: Apache-2.0
 *
 * What the receive stamps of each DPDK driver are: which clock, in which unit, and which call reads that clock. DPDK
 * itself leaves unit and origin undefined (rte_mbuf_dyn.h), so what is not in this table is not believed.
 */
#ifndef TICKPATH_DPDK_DRIVERS_H
#define TICKPATH_DPDK_DRIVERS_H

#include <stddef.h>
#include <stdint.h>

enum tp_dpdk_reading {
    TP_DPDK_READ_NONE = 0,     /* nothing reads it */
    TP_DPDK_READ_CLOCK = 1,    /* rte_eth_read_clock */
    TP_DPDK_READ_TIMESYNC = 2, /* rte_eth_timesync_read_time */
    TP_DPDK_READ_HOST = 3,     /* it is the host's own realtime clock */
};

struct tp_dpdk_driver {
    const char *name;     /* as rte_eth_dev_info gives it */
    const char *unit;     /* of one tick */
    const char *verified; /* how the row was seen to be true; NULL: it was read in the driver's source and never run */
    uint32_t tick_ns;     /* of READ_HOST; else the rate is found by readings */
    uint8_t bits;         /* the counter wraps after so many */
    uint8_t reading;      /* enum tp_dpdk_reading */
    uint8_t source;       /* enum tp_source of a stamp */
    uint8_t advertised;   /* whether the driver says RTE_ETH_RX_OFFLOAD_TIMESTAMP of itself */
};

/* NULL: not in the table. */
const struct tp_dpdk_driver *tp_dpdk_driver_find(const char *name);

/* The table by index; NULL past its end. */
const struct tp_dpdk_driver *tp_dpdk_driver_at(size_t index);

#endif
