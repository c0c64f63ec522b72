/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the span map of flow.h: `add FROM TO FIRST OBSERVER SOURCE`, `forget POSITION`, `find POSITION`,
 * `unwrap NEAR SEQ` on standard input; one line of answer each. The first argument is the map's limit.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tickpath/flow.h"

static void show(const struct tp_span_map *map) {
    for (uint32_t i = 0; i < map->count; i++) {
        const struct tp_span *s = tp_span_map_at(map, i);
        printf("%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %u %u;", s->from, s->to, s->first_ns, s->last_ns,
               s->observer, s->flags & TP_SPAN_COPIED);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    uint64_t budget = UINT64_C(1) << 20;
    struct tp_span_map map;
    char word[16];
    if (argc != 2)
        return 2;
    tp_span_map_init(&map, (uint32_t)strtoul(argv[1], NULL, 10), &budget);
    while (scanf("%15s", word) == 1) {
        struct tp_span span = {0};
        int64_t position;
        uint32_t seq;
        if (strcmp(word, "add") == 0) {
            unsigned source;
            if (scanf("%" SCNd64 " %" SCNd64 " %" SCNd64 " %u %u", &span.from, &span.to, &span.first_ns, &span.observer,
                      &source) != 5)
                return 2;
            span.source = (uint8_t)source;
            span.last_ns = span.first_ns;
            tp_span_map_add(&map, &span);
            show(&map);
        } else if (strcmp(word, "forget") == 0 && scanf("%" SCNd64, &position) == 1) {
            tp_span_map_forget(&map, position, INT64_MAX);
            show(&map);
        } else if (strcmp(word, "find") == 0 && scanf("%" SCNd64, &position) == 1) {
            const struct tp_span *found = tp_span_map_find(&map, position);
            printf("%" PRId64 "\n", found ? found->first_ns : -1);
        } else if (strcmp(word, "unwrap") == 0 && scanf("%" SCNd64 " %" SCNu32, &position, &seq) == 2) {
            printf("%" PRId64 "\n", tp_unwrap(position, seq));
        } else {
            return 2;
        }
    }
    tp_span_map_free(&map);
    return budget == UINT64_C(1) << 20 ? 0 : 3;
}
