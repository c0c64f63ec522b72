/* SPDX-License-Identifier: Apache-2.0
 *
 * The join rules of one byte stream: 64-bit unwrapping of TCP sequence numbers, and a bounded map from bytes to the
 * stamp with which they came.
 *
 * A position is a sequence number unwrapped to 64 bits: its low 32 bits are the raw number, always. Only differences of
 * positions mean anything, so a flow can be followed before it is known where its stream begins.
 */
#ifndef TICKPATH_FLOW_H
#define TICKPATH_FLOW_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The position of `seq` nearest to `near`, by signed distance; raw sequence numbers are never compared (RFC 1982). */
static inline int64_t tp_unwrap(int64_t near, uint32_t seq) {
    return near + (int32_t)(seq - (uint32_t)near);
}

/* The position of a sequence number of which nothing else is known: far from both ends of the 64 bits. */
static inline int64_t tp_unwrap_first(uint32_t seq) {
    return (INT64_C(1) << 40) + seq;
}

enum tp_span_flag {
    TP_SPAN_COPIED = 0x01,    /* the same observer saw these bytes again: a retransmission */
    TP_SPAN_REORDERED = 0x02, /* bytes behind them came first */
    TP_SPAN_MERGED = 0x04,    /* the frame was merged of several segments */
    TP_SPAN_AMBIGUOUS = 0x08, /* stamped near a step of its clock: the time is not to be used */
    TP_SPAN_UNPLACED = 0x10,  /* its clock cannot be converted: the same */
};

/* Bytes [from, to) that came together. */
struct tp_span {
    int64_t from;
    int64_t to;
    int64_t first_ns;  /* monotonic, of the first copy */
    int64_t last_ns;   /* of the last copy by the same observer */
    int64_t offset_ns; /* realtime - monotonic as it held for first_ns */
    int64_t bound_ns;  /* how far first_ns may be off, by its source and by its clock's conversion */
    uint64_t tag;      /* the caller's: frame number, or when the application asked */
    uint32_t observer; /* who saw it: copies by one observer are retransmissions, by two they are two views of one */
    uint8_t source;    /* enum tp_source: lower is better */
    uint8_t flags;
};

/* Spans in stream order, without overlap. Grows as needed up to `limit`, then forgets the oldest. */
struct tp_span_map {
    struct tp_span *spans;
    uint32_t start; /* index of the first in use */
    uint32_t count;
    uint32_t capacity;
    uint32_t limit;
    int64_t floor;         /* bytes before it are forgotten; copies of them are not taken again */
    uint64_t overflowed;   /* spans forgotten because the map was full */
    uint64_t behind;       /* bytes before the floor that came again, or too late */
    struct tp_span latest; /* of the forgotten ones, the one that came last; to == from: none */
    uint64_t *budget;      /* bytes that may still be allocated, shared by all maps of an owner; NULL: no bound */
};

static inline void tp_span_map_init(struct tp_span_map *map, uint32_t limit, uint64_t *budget) {
    memset(map, 0, sizeof *map);
    map->limit = limit;
    map->budget = budget;
    map->floor = INT64_MIN;
}

static inline void tp_span_map_free(struct tp_span_map *map) {
    if (map->budget)
        *map->budget += map->capacity * sizeof *map->spans;
    free(map->spans);
    map->spans = NULL;
    map->start = map->count = map->capacity = 0;
}

static inline struct tp_span *tp_span_map_at(const struct tp_span_map *map, uint32_t index) {
    return &map->spans[map->start + index];
}

/* Index of the first span that ends behind `position`; map->count when none does. Streams are consumed at the front and
 * grow at the end: those are looked at first. */
static inline uint32_t tp_span_map_search(const struct tp_span_map *map, int64_t position) {
    uint32_t low = 0, high = map->count;
    if (high == 0 || tp_span_map_at(map, 0)->to > position)
        return 0;
    if (tp_span_map_at(map, high - 1)->to <= position)
        return high;
    if (tp_span_map_at(map, 1)->to > position)
        return 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (tp_span_map_at(map, middle)->to > position)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The span that holds the byte at `position`, or NULL. Good until the map changes. */
static inline struct tp_span *tp_span_map_find(const struct tp_span_map *map, int64_t position) {
    uint32_t index = tp_span_map_search(map, position);
    if (index == map->count || tp_span_map_at(map, index)->from > position)
        return NULL;
    return tp_span_map_at(map, index);
}

static inline void tp_span_map_drop_first(struct tp_span_map *map, int64_t not_after_ns) {
    const struct tp_span *first = tp_span_map_at(map, 0);
    if (first->first_ns <= not_after_ns &&
        (map->latest.from == map->latest.to || first->first_ns >= map->latest.first_ns))
        map->latest = *first;
    map->floor = first->to;
    map->start++;
    map->count--;
}

/* Forgets the spans that end at or before `position`, whose bytes were delivered by `not_after_ns`: what came later was
 * another copy, and is not remembered as the latest. */
static inline void tp_span_map_forget(struct tp_span_map *map, int64_t position, int64_t not_after_ns) {
    while (map->count && tp_span_map_at(map, 0)->to <= position)
        tp_span_map_drop_first(map, not_after_ns);
    if (position > map->floor)
        map->floor = position;
}

/* Makes room for one more. 0; -ENOSPC: at the limit, or out of memory: forget one first. */
static inline int tp_span_map_room(struct tp_span_map *map) {
    if (map->count >= map->limit)
        return -ENOSPC;
    if (map->start + map->count < map->capacity)
        return 0;
    uint32_t wanted = map->capacity ? map->capacity * 2 : 32;
    uint64_t more = (wanted - map->capacity) * sizeof *map->spans;
    struct tp_span *grown = NULL;
    bool refused = map->budget && *map->budget < more;
    if (map->count > map->capacity / 2 || map->capacity == 0) {
        grown = refused ? NULL : malloc(wanted * sizeof *grown);
        if (!grown && map->start == 0)
            return -ENOSPC;
    }
    struct tp_span *into = grown ? grown : map->spans;
    if (map->count)
        memmove(into, tp_span_map_at(map, 0), map->count * sizeof *into);
    map->start = 0;
    if (grown) {
        free(map->spans);
        map->spans = grown;
        map->capacity = wanted;
        if (map->budget)
            *map->budget -= more;
    }
    return 0;
}

/* Puts `span` before the one at `index`; forgets the oldest when there is no room. Returns where it stands, or -1 when
 * it was itself the oldest. */
static inline int64_t tp_span_map_insert(struct tp_span_map *map, uint32_t index, const struct tp_span *span) {
    while (tp_span_map_room(map) != 0) {
        map->overflowed++;
        if (index == 0) {
            if (span->to > map->floor)
                map->floor = span->to;
            return -1;
        }
        tp_span_map_drop_first(map, INT64_MAX);
        index--;
    }
    if (index < map->count)
        memmove(tp_span_map_at(map, index + 1), tp_span_map_at(map, index), (map->count - index) * sizeof *map->spans);
    *tp_span_map_at(map, index) = *span;
    map->count++;
    return index;
}

/* Cuts the span at `index` in two at `position`, which lies inside it. Returns the index of the second part. */
static inline int64_t tp_span_map_split(struct tp_span_map *map, uint32_t index, int64_t position) {
    struct tp_span second = *tp_span_map_at(map, index);
    second.from = position;
    tp_span_map_at(map, index)->to = position;
    return tp_span_map_insert(map, index + 1, &second);
}

/* Two observers' stamps of one frame differ by less; two copies of a segment come further apart (the least
 * retransmission timeout of Linux is 200 ms, a fast retransmission takes a round trip). */
#define TP_SAME_FRAME_NS INT64_C(1000000)

/* Whether `copy` is to be believed rather than `held`. One observer: its earliest. Two: of one frame the better source,
 * of different copies the first. */
static inline bool tp_span_prefer(const struct tp_span *held, const struct tp_span *copy) {
    int64_t later_ns = copy->first_ns - held->first_ns;
    if (held->observer == copy->observer || held->source == copy->source)
        return later_ns < 0;
    if (later_ns > TP_SAME_FRAME_NS || later_ns < -TP_SAME_FRAME_NS)
        return later_ns < 0;
    return copy->source < held->source;
}

/* Another copy of bytes already held. */
static inline void tp_span_meet(struct tp_span *held, const struct tp_span *copy) {
    struct tp_span was = *held;
    bool again = was.observer == copy->observer;
    if (tp_span_prefer(&was, copy)) {
        *held = *copy;
        held->from = was.from;
        held->to = was.to;
    }
    if (again) {
        held->last_ns = was.last_ns > copy->last_ns ? was.last_ns : copy->last_ns;
        held->flags |= TP_SPAN_COPIED | (was.flags & TP_SPAN_REORDERED);
    }
}

enum tp_span_outcome {
    TP_SPAN_NEW = 0x01,    /* some bytes were not held before */
    TP_SPAN_AGAIN = 0x02,  /* the same observer had seen some of them */
    TP_SPAN_BEHIND = 0x04, /* some lie before what is still held */
    TP_SPAN_LATE = 0x08,   /* new bytes came when others behind them had come */
};

/* Takes what came as `span`: bytes not held become spans of its stamp, held ones meet it, partial overlaps are cut.
 * Returns a set of enum tp_span_outcome. */
static inline unsigned tp_span_map_add(struct tp_span_map *map, const struct tp_span *span) {
    struct tp_span rest = *span;
    unsigned outcome = 0;
    if (rest.to <= rest.from)
        return 0;
    if (rest.from < map->floor) {
        int64_t until = rest.to < map->floor ? rest.to : map->floor;
        map->behind += (uint64_t)(until - rest.from);
        outcome |= TP_SPAN_BEHIND;
        rest.from = until;
    }
    bool appended = map->count == 0 || tp_span_map_at(map, map->count - 1)->to <= rest.from;
    int64_t index = appended ? map->count : tp_span_map_search(map, rest.from);
    while (rest.from < rest.to && index >= 0) {
        struct tp_span piece = rest;
        if (index == map->count || tp_span_map_at(map, (uint32_t)index)->from > rest.from) {
            if (index < map->count) {
                const struct tp_span *next = tp_span_map_at(map, (uint32_t)index);
                if (next->from < piece.to)
                    piece.to = next->from;
                piece.flags |= TP_SPAN_REORDERED;
                outcome |= TP_SPAN_LATE;
            }
            rest.from = piece.to;
            outcome |= TP_SPAN_NEW;
            index = tp_span_map_insert(map, (uint32_t)index, &piece);
            if (index < 0) {
                index = 0; /* refused: it was older than all that is held */
                continue;
            }
            index++;
            continue;
        }
        if (tp_span_map_at(map, (uint32_t)index)->from < rest.from)
            index = tp_span_map_split(map, (uint32_t)index, rest.from);
        if (tp_span_map_at(map, (uint32_t)index)->to > rest.to)
            index = tp_span_map_split(map, (uint32_t)index, rest.to) - 1;
        if (index < 0)
            break; /* the first part was forgotten to make room for the second */
        struct tp_span *held = tp_span_map_at(map, (uint32_t)index);
        if (held->observer == rest.observer)
            outcome |= TP_SPAN_AGAIN;
        tp_span_meet(held, &rest);
        rest.from = held->to;
        index++;
    }
    return outcome;
}

#endif
