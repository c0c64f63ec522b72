/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops over one step of a hot path each.
 */
#include "lab/bench/loops.h"

#include <time.h>

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int64_t tp_bench_cpu_ns(void) {
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int64_t tp_bench_clock(size_t count) {
    int64_t began = tp_bench_cpu_ns();
    for (size_t n = 0; n < count; n++) {
        int64_t now = clock_ns(CLOCK_MONOTONIC);
        __asm__ volatile("" : : "r"(now));
    }
    return tp_bench_cpu_ns() - began;
}

int64_t tp_bench_observe(struct tp_histogram *h, const int64_t *values_ns, size_t count, size_t rounds) {
    int64_t began = tp_bench_cpu_ns();
    for (size_t round = 0; round < rounds; round++) {
        for (size_t n = 0; n < count; n++)
            tp_histogram_observe(h, values_ns[n]);
        __asm__ volatile("" : : "r"(h) : "memory");
    }
    return tp_bench_cpu_ns() - began;
}
