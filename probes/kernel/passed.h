/* SPDX-License-Identifier: Apache-2.0
 *
 * Up to when everything that the programs saw has been carried over: where it is quiet, no record of theirs says so.
 */
#ifndef TICKPATH_KERNEL_PASSED_H
#define TICKPATH_KERNEL_PASSED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tickpath/ring.h"

struct tp_kernel_passed {
    void *pages; /* the buffer's two positions, each in a page of its own; NULL: closed */
    size_t page_bytes;
    int64_t began_ns;  /* this look at it */
    uint64_t reserved; /* bytes by then */
    int64_t told_ns;
};

/* `events_fd`: the BPF ring buffer. 0, or a negative errno. */
int tp_kernel_passed_open(struct tp_kernel_passed *, int events_fd);
void tp_kernel_passed_close(struct tp_kernel_passed *);

/* Whether there is a record that was not taken. */
bool tp_kernel_passed_left_over(const struct tp_kernel_passed *);

/* Before the records are taken. */
void tp_kernel_passed_begin(struct tp_kernel_passed *, int64_t now_ns);

/* After it. `quiet`: none was taken. Writes a PASSED record now and then, where all that had room before is taken. */
void tp_kernel_passed_end(struct tp_kernel_passed *, bool quiet, struct tp_ring_writer *ring);

#endif
