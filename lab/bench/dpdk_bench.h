/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps of the DPDK capture's poll loop one by one, on frames that a virtual device makes out of nothing.
 */
#ifndef TICKPATH_LAB_DPDK_BENCH_H
#define TICKPATH_LAB_DPDK_BENCH_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "tickpath/histogram.h"

/* Writes a frame into every buffer of the pool, which net_null then hands out as received: of `count` frames of `bytes`
 * each, one behind the other, in turns. -ENOENT: no such pool. */
int tp_bench_dpdk_fill(const char *pool, const uint8_t *frames, size_t bytes, unsigned count);

enum tp_bench_dpdk_step {
    TP_BENCH_DPDK_BURST = 0, /* receive and free */
    TP_BENCH_DPDK_STAMP = 1, /* and read the clocks once a burst */
    TP_BENCH_DPDK_PARSE = 2, /* and parse each frame */
};

/* Frames taken from queue 0 in about `duration_ns`, and the CPU time of this thread. */
int tp_bench_dpdk_run(const char *port, enum tp_bench_dpdk_step step, int64_t duration_ns, uint64_t *frames,
                      int64_t *cpu_ns);

/* Frames come at a rate: the i-th is due at i / rate. Owned by the callback while it is installed. */
struct tp_bench_dpdk_pace {
    double frames_per_tsc;
    double ns_per_tsc;
    uint64_t began_tsc;
    uint64_t given;
    uint64_t oldest; /* number of the first frame of the burst that the loop has now; `given` where it has none */
    uint64_t late;   /* bursts that left frames waiting */
    struct tp_histogram residence; /* due until the loop asked again: of the oldest frame of each burst */
};

/* Holds frames of queue 0 back until they are due. `frames_per_s` 0: no longer. */
int tp_bench_dpdk_pace(struct tp_bench_dpdk_pace *, const char *port, double frames_per_s);

#endif
