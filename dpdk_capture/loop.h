/* SPDX-License-Identifier: Apache-2.0
 *
 * The poll loop of one receive queue: burst, stamp, parse, publish, and only then hand on.
 */
#ifndef TICKPATH_DPDK_LOOP_H
#define TICKPATH_DPDK_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dpdk_capture/exception.h"
#include "dpdk_capture/port.h"
#include "dpdk_capture/stamps.h"
#include "tickpath/histogram.h"
#include "tickpath/packet_look.h"
#include "tickpath/ring.h"
#include "tickpath/wire_flows.h"

#define TP_DPDK_BURST_MAX 512u
#define TP_DPDK_KNOWN_BITS 8u

/* Totals since they were last published, written by the loop alone. */
struct tp_dpdk_tally {
    uint64_t received;
    uint64_t other;
    uint64_t malformed;
    uint64_t fragments;
    uint64_t unstamped;
    uint64_t polls;
    uint64_t idle;
    uint64_t busy_tsc;
    uint64_t to_kernel;
    uint64_t from_kernel;
    uint64_t held;
};

/* What the port counts is read by whoever has the time, and published by the first loop. */
struct tp_dpdk_losses {
    _Atomic uint64_t missed;
    _Atomic uint64_t errors;
    _Atomic uint64_t unsent;
};

/* A connection, and what its frames look like. */
struct tp_dpdk_known {
    struct tp_packet_look look;
    struct tp_wire_flow *flow;
};

struct tp_dpdk_loop {
    const struct tp_dpdk_port *port;
    struct tp_dpdk_stamps *stamps;
    struct tp_dpdk_losses *losses;
    struct tp_ring_writer *ring;
    struct tp_wire_flows flows;
    const struct tp_wire_selector *selectors;
    uint32_t selector_count;
    uint16_t queue;
    uint16_t burst;
    uint32_t idle_sleep_us;         /* sleep so long after a poll that brought nothing; 0: never, poll again */
    bool first;                     /* of its port: publishes clock and losses */
    struct tp_exception *exception; /* inline: the way to the kernel; NULL: mirror, frames end here */
    _Atomic bool stop;

    struct tp_dpdk_known known[1 << TP_DPDK_KNOWN_BITS];
    struct tp_dpdk_known *latest; /* the last frame's, if that was remembered */
    uint32_t ports_at;            /* where TCP begins in what was remembered last */
    uint64_t frames;              /* published so far */
    uint64_t frames_told;
    uint64_t emptied_tsc; /* when the last poll began that took all there was */
    uint64_t due_tsc;     /* of what is done now and then */
    uint64_t clocks;      /* readings so far */
    int64_t second_ns;    /* when the present second of the histograms began */
    uint64_t missed_told;
    uint64_t errors_told;
    uint64_t unsent_told;
    uint64_t holes_told;
    uint64_t to_kernel_dropped_told;
    uint64_t from_kernel_dropped_told;
    uint16_t waiting; /* of to_send: frames of the kernel that the port has had no room for */
    struct rte_mbuf *to_send[TP_DPDK_BURST_MAX];
    double ns_per_tsc;
    struct tp_dpdk_tally tally;
    struct tp_histogram residence; /* a burst's time from its stamp to its last buffer being handed on */
    struct tp_histogram bounds;    /* what its stamp may be off by */
};

/* Publishes the clock's first readings, so that what is captured from now on can be placed. Some 20 ms. Before
 * tp_dpdk_loop_run, in any one thread. */
void tp_dpdk_loop_prepare(struct tp_dpdk_loop *);

/* Runs until `stop`. 0; -ESTALE: the ring's file was cut short; -EBADFD: inline, and the TAP was removed. */
int tp_dpdk_loop_run(struct tp_dpdk_loop *);

#endif
