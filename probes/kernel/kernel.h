/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What crosses between the BPF programs and their loader: configuration down, records and counters up.
 *
 * Intervals and CLOSED come up as struct tp_event as the tickpath ring holds them, without their row; a connection is
 * announced once, before its first record, by a struct tp_kernel_opened. An attempt to connect comes up as a struct
 * tp_kernel_connect; behind tp_kernel_opened where it succeeded.
 */
#ifndef TICKPATH_KERNEL_H
#define TICKPATH_KERNEL_H

#include <stdint.h>

#include "tickpath/event.h"

#define TP_KERNEL_SELECTORS 16
#define TP_KERNEL_PIDS 16

/* Sockets with this peer. */
struct tp_kernel_selector {
    uint32_t remote[4]; /* network order, IPv4 as ::ffff:a.b.c.d; unless any_remote */
    uint16_t port;      /* network order */
    uint8_t any_remote;
    uint8_t reserved;
};

struct tp_kernel_config {
    uint64_t cgroup; /* id of a version 2 cgroup: the socket was made in it or below; 0: anywhere */
    uint32_t selectors;
    uint32_t pids;
    struct tp_kernel_selector selector[TP_KERNEL_SELECTORS]; /* none: any peer */
    uint32_t pid[TP_KERNEL_PIDS];                            /* none: anybody's; in the initial pid namespace */
    uint8_t asked;                                           /* the hooks of tcp_recvmsg are there */
    uint8_t connects_only;                                   /* nothing of what passes on the connections */
    uint8_t reserved[6];
};

/* What is kept of a socket: where the next interval of each kind begins. Moved on whether or not the event could be
 * handed on, so that a lost one is a gap and never makes the next one's time that of older bytes. */
struct tp_kernel_progress {
    uint64_t readable;
    uint64_t copied;
    uint64_t cookie;       /* 0: nothing is kept yet but `claimed` */
    uint32_t out_of_order; /* segments, counted so far */
    uint32_t retransmits;
    uint8_t announced;
    uint8_t unsupported;
    uint8_t claimed; /* one of the wanted processes uses it */
    uint8_t closed;
    uint8_t reserved[4];
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

struct tp_kernel_connect {
    struct tp_kernel_opened opened; /* TP_KIND_CONNECT; irs where it succeeded */
    char comm[16];
};

/* Attempts under way at a time; those beyond are counted as lost. */
#define TP_KERNEL_CONNECTING 8192

/* Indices of the per-processor counters. */
enum tp_kernel_counter {
    TP_KERNEL_LOST = 0,        /* records for which the buffer had no room; sockets, attempts without storage */
    TP_KERNEL_UNSUPPORTED = 1, /* selected sockets whose bytes cannot be told by sequence numbers */
    TP_KERNEL_NO_COOKIE = 2,   /* events of selected sockets that have no cookie, and nothing to be known by */
    TP_KERNEL_OUT_OF_ORDER = 3,
    TP_KERNEL_RETRANSMITS = 4,
    TP_KERNEL_COUNTERS = 5,
};

#endif
