/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads int64 values from standard input into a tail, the ordinal of each its number; prints the stores it made, then a
 * line per message kept: cell, value, ordinal.
 */
#include <stdio.h>

#include "exporter/correlator/tail.h"

int main(void) {
    static struct tp_tail tail;
    tp_tail_reset(&tail);
    int64_t value_ns;
    uint32_t ordinal = 0;
    unsigned stores = 0;
    for (; fread(&value_ns, sizeof value_ns, 1, stdin) == 1; ordinal++) {
        if (!tp_tail_observe(&tail, value_ns))
            continue;
        const struct tp_exemplar one = {value_ns, ordinal + 1, 7, ordinal, 0};
        tp_tail_keep(&tail, &one);
        stores++;
    }
    printf("%u\n", stores);
    for (unsigned cell = 0; cell < TP_EXEMPLARS; cell++) {
        const struct tp_exemplar *one = &tail.kept[cell];
        if (one->time_ns)
            printf("%u %lld %u\n", cell, (long long)one->value_ns, one->ordinal);
    }
    return 0;
}
