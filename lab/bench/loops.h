/* SPDX-License-Identifier: Apache-2.0
 *
 * What one step of a hot path costs, in a loop of them.
 */
#ifndef TICKPATH_LAB_LOOPS_H
#define TICKPATH_LAB_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#include "tickpath/histogram.h"

/* CPU time of the calling thread. */
int64_t tp_bench_cpu_ns(void);

/* ns of CPU for `count` readings of CLOCK_MONOTONIC. */
int64_t tp_bench_clock(size_t count);

/* ns of CPU for `rounds` times observing all `count` values. */
int64_t tp_bench_observe(struct tp_histogram *h, const int64_t *values_ns, size_t count, size_t rounds);

#endif
