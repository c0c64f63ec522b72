/* SPDX-License-Identifier: Apache-2.0
 *
 * What the programs cost, by the kernel's own statistics of run time: switched on for all programs of the host.
 */
#ifndef TICKPATH_KERNEL_COST_H
#define TICKPATH_KERNEL_COST_H

#include "rungs.h"

#include "tickpath/ring.h"

struct tp_kernel_cost {
    int stats_fd; /* the statistics are on while somebody holds one; 0: closed */
    uint64_t told[TP_HOOKS];
    struct {
        uint64_t ns;
        uint64_t runs;
        uint64_t told;
    } counted[TP_HOOKS];
};

/* 0, or a negative errno: -EPERM (it wants CAP_SYS_ADMIN). */
int tp_kernel_cost_open(struct tp_kernel_cost *);
void tp_kernel_cost_close(struct tp_kernel_cost *);

/* A record was taken that one of this hook's programs wrote. */
static inline void tp_kernel_cost_told(struct tp_kernel_cost *cost, enum tp_hook hook) {
    cost->told[hook]++;
}

/* Of a hook's programs, since they were loaded. A run of one and of the other that stands in for it is one run. */
void tp_kernel_cost_of(const struct tp_attached *, uint64_t *ns, uint64_t *runs);

/* Carries what came since the last time into the ring's counters. Nothing where it is closed. */
void tp_kernel_cost_count(struct tp_kernel_cost *, const struct tp_rungs *, struct tp_ring_writer *ring);

#endif
