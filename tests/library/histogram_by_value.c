/* SPDX-License-Identifier: Apache-2.0
 *
 * Uses the histogram from plain C, embedded by value: reads lines of int64 from standard input, the first half into one
 * histogram, the others into a second, merges them and prints "count sum_high sum_low min max p50", then one line
 * "slot count" per slot that holds something.
 */
#include "tickpath/histogram.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct series {
    uint32_t id;
    struct tp_histogram halves[2];
};

int main(int argc, char **argv) {
    struct series *series = malloc(sizeof *series);
    long total = argc == 2 ? atol(argv[1]) : 0;
    int64_t value, median = 0;

    tp_histogram_reset(&series->halves[0]);
    tp_histogram_reset(&series->halves[1]);
    for (long i = 0; scanf("%" SCNd64, &value) == 1; i++)
        tp_histogram_observe(&series->halves[i >= total / 2], value);
    tp_histogram_merge(&series->halves[0], &series->halves[1]);
    const struct tp_histogram *h = &series->halves[0];
    if (tp_histogram_quantile_ns(h, 0.5, &median) != 0)
        return 1;
    printf("%" PRIu64 " %" PRId64 " %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", tp_histogram_count(h),
           h->sum_high, h->sum_low, h->min_ns, h->max_ns, median);
    for (unsigned s = tp_histogram_next(h, 0); s < TP_HISTOGRAM_SLOTS; s = tp_histogram_next(h, s + 1))
        printf("%u %" PRIu64 "\n", s, h->counts[s]);
    free(series);
    return 0;
}
