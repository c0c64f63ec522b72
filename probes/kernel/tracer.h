/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads the BPF programs, attaches them for as long as this process lives, and carries their records into a ring.
 */
#ifndef TICKPATH_TRACER_H
#define TICKPATH_TRACER_H

#include <stdbool.h>
#include <stddef.h>

#include "cost.h"
#include "kernel.h"
#include "rungs.h"
#include "passed.h"
#include "sockets.h"

/* Records taken at a time, so that a flood cannot keep the loop from its stop. */
#define TP_KERNEL_DRAIN 16384

struct ring_buffer;

struct tp_tracer {
    struct tp_rungs rungs;
    struct ring_buffer *events; /* NULL: closed */
    int processors;
    uint64_t *values; /* one counter of each processor */
    uint64_t lost;    /* as counted so far */
    uint64_t left_out;
    uint64_t unsupported;
    uint64_t no_cookie;
    uint64_t out_of_order;
    uint64_t retransmits;
    int taken; /* of this drain */
    struct tp_ring_writer *ring;
    struct tp_kernel_sockets sockets;
    struct tp_kernel_passed passed;
    struct tp_kernel_cost cost;
};

/* Attaches the best programs that this kernel lets us have: from now on they run, and their records wait in the buffer.
 * On a tracer that is all zero, or closed.
 *
 * @return as tp_rungs_attach(). */
int tp_tracer_open(struct tp_tracer *, const struct tp_rungs_wanted *, char *why, size_t why_bytes);

/* As tp_tracer_open(), of what bcc attached; takes the descriptors over, also where it fails. -ENOMEM, -errno. */
int tp_tracer_adopt(struct tp_tracer *, const struct tp_adopted *, char *why, size_t why_bytes);

/* `ring` outlives the tracer. `rows`, for connections: one less than it has, which tells the modes. -ENOMEM, -EINVAL.
 */
int tp_tracer_write_to(struct tp_tracer *, struct tp_ring_writer *ring, uint32_t rows);

/* Carries records over every `interval_ms` until `stop_fd` is readable; detaches then, and carries over what is left.
 * 0; -ESTALE: the ring's file was cut short; -errno. */
int tp_tracer_run(struct tp_tracer *, int stop_fd, int interval_ms);

/* Harmless on one that is closed, or all zero. */
void tp_tracer_close(struct tp_tracer *);

#endif
