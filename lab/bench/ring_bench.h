/* SPDX-License-Identifier: Apache-2.0
 *
 * How many records a second pass from one process to another: through a ring, and through the barest thing that could
 * pass them at all.
 */
#ifndef TICKPATH_LAB_RING_BENCH_H
#define TICKPATH_LAB_RING_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tp_bench_path {
    TP_BENCH_RING = 0, /* tp_ring_write, tp_ring_read */
    TP_BENCH_BARE = 1, /* a line a record, its number stored last: no overwriting is noticed, no head is kept */
};

struct tp_bench_ring_plan {
    enum tp_bench_path path;
    const char *file;    /* the ring's */
    uint64_t capacity;   /* slots */
    int64_t duration_ns; /* of writing */
    uint64_t rate;       /* records a second; 0: as fast as it goes */
    int writer_cpu;      /* -1: wherever */
    int reader_cpu;
    bool restless;  /* the reader asks again at once when it found nothing */
    bool real_time; /* both under SCHED_FIFO, so that other work on the host does not stand in */
};

struct tp_bench_ring_result {
    uint64_t written;
    uint64_t received;
    uint64_t lost;      /* by the reader's own count */
    uint64_t wrong;     /* records whose words do not belong together */
    int64_t elapsed_ns; /* from the first record written until the last was read */
    uint64_t preempted; /* involuntary switches of the two */
    bool real_time;     /* it was granted */
};

/* Forks a writer and reads itself.
 * @return 0; -errno of a failed call; -EIO: the writer failed. */
int tp_bench_ring(const struct tp_bench_ring_plan *plan, struct tp_bench_ring_result *result, char *why,
                  size_t why_bytes);

#endif
