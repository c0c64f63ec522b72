/* SPDX-License-Identifier: Apache-2.0
 *
 * Any segments into an interval map under tight limits: its spans stay ordered and apart, within their bound and their
 * budget, and hold the bytes that came; unwrapping keeps the raw number.
 */
#include "fuzz.h"
#include "tickpath/flow.h"

#define BUDGET 20000u

static void check(const struct tp_span_map *map, uint64_t budget) {
    must(map->count <= map->limit && map->start + map->count <= map->capacity, "the map is bounded");
    must(budget + map->capacity * sizeof(*map->spans) == BUDGET, "the budget adds up");
    int64_t end = INT64_MIN;
    for (uint32_t index = 0; index < map->count; index++) {
        const struct tp_span *span = tp_span_map_at(map, index);
        must(span->from < span->to, "a span holds bytes");
        must(span->from >= end && span->to >= map->floor, "spans are in order and apart, none behind the floor");
        must(tp_span_map_find(map, span->from) == span && tp_span_map_find(map, span->to - 1) == span, "and found");
        end = span->to;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    struct input input = {bytes, size};
    struct tp_span_map map;
    uint64_t budget = BUDGET;
    tp_span_map_init(&map, 1 + (uint32_t)take_number(&input, 1) % 80, &budget);
    uint32_t seq = (uint32_t)take_number(&input, 4);
    int64_t position = tp_unwrap_first(seq), now_ns = 1000;
    while (input.left) {
        uint64_t how = take_number(&input, 1);
        seq += (uint32_t)(int16_t)take_number(&input, 2);
        now_ns += (int64_t)take_number(&input, 2);
        position = tp_unwrap(position, seq);
        must((uint32_t)position == seq, "the low 32 bits are the raw number");
        if (how % 8 == 0) {
            tp_span_map_forget(&map, position, now_ns);
            must(map.floor >= position, "what is forgotten is behind the floor");
        } else {
            struct tp_span span = {.from = position,
                                   .to = position + (int64_t)(how & 0xf8),
                                   .first_ns = now_ns,
                                   .last_ns = now_ns,
                                   .observer = how & 1,
                                   .source = how >> 1 & 3};
            uint64_t overflowed = map.overflowed;
            int64_t floor = map.floor;
            unsigned outcome = tp_span_map_add(&map, &span);
            must(span.to > span.from || outcome == 0, "nothing changes nothing");
            if (map.overflowed == overflowed)
                for (int64_t at = span.from > floor ? span.from : floor; at < span.to; at += 7)
                    must(tp_span_map_find(&map, at) != NULL, "what came is held");
        }
        check(&map, budget);
    }
    tp_span_map_free(&map);
    must(budget == BUDGET, "everything is given back");
    return 0;
}
