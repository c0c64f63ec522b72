/* SPDX-License-Identifier: Apache-2.0
 *
 * Read in the sources of DPDK 22.11. Left out: drivers that stamp PTP packets alone (e1000, ixgbe, i40e, hns3, sfc's
 * low-rate path), and those without any stamp (ena, virtio, vmxnet3, gve).
 */
#include "dpdk_capture/drivers.h"

#include <string.h>

#include "tickpath/event.h"

static const struct tp_dpdk_driver drivers[] = {
    /* The device clock runs free unless firmware says REAL_TIME_CLOCK_ENABLE=1; the call reads whichever is stamped.
     * Renamed from mlx5_pci when the auxiliary bus came. */
    {"mlx5_pci", "tick of the device clock", NULL, 0, 64, TP_DPDK_READ_CLOCK, TP_SOURCE_HW, 1},
    {"mlx5_auxiliary", "tick of the device clock", NULL, 0, 64, TP_DPDK_READ_CLOCK, TP_SOURCE_HW, 1},
    /* ice's read_clock is the host's: the stamps are of the card's PTP clock. */
    {"net_ice", "ns of the PTP clock", NULL, 0, 64, TP_DPDK_READ_TIMESYNC, TP_SOURCE_HW, 1},
    {"net_igc", "ns of the PTP clock", NULL, 0, 64, TP_DPDK_READ_TIMESYNC, TP_SOURCE_HW, 1},
    {"net_cn9k", "tick of the PTP clock", NULL, 0, 64, TP_DPDK_READ_CLOCK, TP_SOURCE_HW, 1},
    {"net_cn10k", "tick of the PTP clock", NULL, 0, 64, TP_DPDK_READ_CLOCK, TP_SOURCE_HW, 1},
    /* A virtual function is given its stamps by the card and no way to read the clock behind them. */
    {"net_iavf", "ns of the PTP clock", NULL, 0, 64, TP_DPDK_READ_NONE, TP_SOURCE_HW, 1},
    /* What libpcap says of the frame: the kernel's stamp of a live interface, or what a file holds. */
    {"net_pcap", "us of the host's realtime clock", "tests that play a file", 1000, 64, TP_DPDK_READ_HOST, TP_SOURCE_SW,
     0},
};

const struct tp_dpdk_driver *tp_dpdk_driver_at(size_t index) {
    return index < sizeof(drivers) / sizeof(drivers[0]) ? &drivers[index] : NULL;
}

const struct tp_dpdk_driver *tp_dpdk_driver_find(const char *name) {
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
        if (strcmp(drivers[i].name, name) == 0)
            return &drivers[i];
    return NULL;
}
