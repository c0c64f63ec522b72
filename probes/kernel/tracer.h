/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads the BPF programs, attaches them for as long as this process lives, and carries their records into a ring.
 */
#ifndef TICKPATH_TRACER_H
#define TICKPATH_TRACER_H

#include <stdbool.h>
#include <stddef.h>

#include "kernel.h"
#include "sockets.h"

/* Records taken at a time, so that a flood cannot keep the loop from its stop. */
#define TP_KERNEL_DRAIN 16384

struct bpf_object;
struct bpf_link;
struct ring_buffer;

#define TP_KERNEL_HOOKS 3

struct tp_tracer {
    struct bpf_object *object;
    struct bpf_link *links[TP_KERNEL_HOOKS];
    struct ring_buffer *events;
    int counters_fd;
    int programs[TP_KERNEL_HOOKS]; /* descriptors, the object's */
    int processors;
    uint64_t *values; /* one counter of each processor */
    uint64_t lost;    /* as counted so far */
    uint64_t unsupported;
    int taken; /* of this drain */
    struct tp_ring_writer *ring;
    struct tp_kernel_sockets sockets;
};

/* Loads the object file with this configuration; nothing is attached yet. Its ring buffer has `buffer_bytes`, a power
 * of two and a multiple of the page size.
 *
 * @return 0, or with one line in `why`: -ENOENT (the kernel has no BTF), -EOPNOTSUPP (it has no such tracepoint),
 *         -EPERM, -errno of a failed call. */
int tp_tracer_load(struct tp_tracer *, const char *path, const struct tp_kernel_config *, uint32_t buffer_bytes,
                   char *why, size_t why_bytes);

/* From now on the programs run, and records wait in the buffer. 0, or as above. */
int tp_tracer_attach(struct tp_tracer *, char *why, size_t why_bytes);

/* `ring`, of so many rows, outlives the tracer. -ENOMEM, -EINVAL. */
int tp_tracer_write_to(struct tp_tracer *, struct tp_ring_writer *ring, uint32_t rows);

/* Carries records over every `interval_ms` until `stop_fd` is readable; detaches then, and carries over what is left.
 * 0; -ESTALE: the ring's file was cut short; -errno. */
int tp_tracer_run(struct tp_tracer *, int stop_fd, int interval_ms);

/* Harmless on one that is closed, or all zero. */
void tp_tracer_close(struct tp_tracer *);

#endif
