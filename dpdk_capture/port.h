/* SPDX-License-Identifier: Apache-2.0
 *
 * One Ethernet port of DPDK: found by its name, set up for capture, started.
 *
 * Functions return 0 or a negative errno; `why` then holds one line for the operator.
 */
#ifndef TICKPATH_DPDK_PORT_H
#define TICKPATH_DPDK_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dpdk_capture/drivers.h"

struct rte_mempool;

#define TP_DPDK_NAME_BYTES 64

struct tp_dpdk_port_config {
    uint16_t rx_queues;
    uint16_t tx_queues; /* none in mirror mode */
    uint16_t descriptors;
    uint32_t buffers;
    uint16_t mtu;
    bool promiscuous;
    bool stamps;          /* ask for the port's own stamps */
    uint64_t tx_offloads; /* RTE_ETH_TX_OFFLOAD_...: taken where the port has them */
    uint8_t told_reading; /* what reads their clock, for drivers that the table does not know (enum tp_dpdk_reading) */
    uint8_t told_bits;
};

struct tp_dpdk_port {
    uint16_t id;
    uint16_t rx_queues;
    uint16_t tx_queues;
    uint16_t descriptors; /* as the driver rounded them */
    uint16_t mtu;
    uint8_t mac[6];
    int16_t node;            /* NUMA node; -1: not known */
    uint32_t device;         /* what stands for an ifindex in records */
    uint64_t offloads_asked; /* RTE_ETH_RX_OFFLOAD_... */
    uint64_t offloads;       /* granted */
    uint64_t tx_offloads;    /* granted */
    bool rss;                /* several queues, and both directions of a connection on the same one */
    bool promiscuous;        /* it was asked for and is on */
    bool started;
    char name[TP_DPDK_NAME_BYTES];
    char driver_name[TP_DPDK_NAME_BYTES];
    const struct tp_dpdk_driver *driver; /* NULL: its stamps are not known */
    struct tp_dpdk_driver told;          /* what the operator says of it */
    struct rte_mempool *pool;
    int stamp_offset; /* of the stamp in a buffer; -1: there is none */
    uint64_t stamp_flag;
};

/* Names of the ports that are there, separated by spaces: for messages. */
void tp_dpdk_port_names(char *out, size_t bytes);

/* -ENODEV: no such port; -EINVAL: more queues than it has, an MTU that it does not do; -ENOMEM; -errno of DPDK. */
int tp_dpdk_port_open(struct tp_dpdk_port *, const char *name, const struct tp_dpdk_port_config *, char *why,
                      size_t why_bytes);
void tp_dpdk_port_close(struct tp_dpdk_port *);

/* What the port itself counted since it was started. `up`: its link is. */
struct tp_dpdk_port_counts {
    uint64_t received;
    uint64_t missed;
    uint64_t errors;
    uint64_t no_buffers;
    uint64_t sent;
    uint64_t unsent; /* taken to be sent, and lost */
    bool up;
};

int tp_dpdk_port_count(const struct tp_dpdk_port *, struct tp_dpdk_port_counts *out);

#endif
