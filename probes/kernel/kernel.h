/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What crosses between the BPF programs and their loader: configuration down, records and counters up.
 *
 * Intervals and CLOSED come up as struct tp_event as the tickpath ring holds them, without their row; a connection is
 * announced once, before its first record, by a struct tp_kernel_opened.
 */
#ifndef TICKPATH_KERNEL_H
#define TICKPATH_KERNEL_H

#include <stdint.h>

#include "tickpath/event.h"

#define TP_KERNEL_SELECTORS 16

/* Sockets with this peer. */
struct tp_kernel_selector {
    uint32_t remote[4]; /* network order, IPv4 as ::ffff:a.b.c.d; unless any_remote */
    uint16_t port;      /* network order */
    uint8_t any_remote;
    uint8_t reserved;
};

struct tp_kernel_config {
    uint64_t cgroup; /* id of the version 2 cgroup that made the socket; 0: any */
    uint32_t selectors;
    uint32_t reserved;
    struct tp_kernel_selector selector[TP_KERNEL_SELECTORS]; /* none: any peer */
};

struct tp_kernel_opened {
    struct tp_event event; /* TP_KIND_OPENED */
    uint32_t local[4];     /* network order, IPv4 as ::ffff:a.b.c.d */
    uint32_t remote[4];
    uint16_t local_port; /* host order */
    uint16_t remote_port;
    uint32_t irs;
    uint64_t netns; /* inode */
};

/* Indices of the per-processor counters. */
enum tp_kernel_counter {
    TP_KERNEL_LOST = 0,        /* records for which the buffer had no room, and sockets without storage */
    TP_KERNEL_UNSUPPORTED = 1, /* selected sockets whose bytes cannot be told by sequence numbers */
    TP_KERNEL_COUNTERS = 2,
};

#endif
