/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded first-in first-out queue of fixed-size items that grows by doubling out of a shared budget.
 */
#ifndef TICKPATH_CORRELATOR_QUEUE_H
#define TICKPATH_CORRELATOR_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct tp_queue {
    char *items;
    uint64_t *budget; /* bytes that may still be allocated */
    uint32_t item_bytes;
    uint32_t head; /* index of the oldest */
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t limit;    /* a power of two */
};

static inline void tp_queue_init(struct tp_queue *q, uint32_t item_bytes, uint32_t limit, uint64_t *budget) {
    memset(q, 0, sizeof *q);
    q->item_bytes = item_bytes;
    q->limit = limit;
    q->budget = budget;
}

static inline void tp_queue_free(struct tp_queue *q) {
    *q->budget += (uint64_t)q->capacity * q->item_bytes;
    free(q->items);
    q->items = NULL;
    q->head = q->count = q->capacity = 0;
}

/* The item at `index` from the oldest. */
static inline void *tp_queue_at(const struct tp_queue *q, uint32_t index) {
    return q->items + (size_t)((q->head + index) & (q->capacity - 1)) * q->item_bytes;
}

static inline void tp_queue_pop(struct tp_queue *q) {
    q->head++;
    q->count--;
}

/* Room for one more at the end, or NULL: full. */
static inline void *tp_queue_push(struct tp_queue *q) {
    if (q->count == q->capacity) {
        uint32_t wanted = q->capacity ? q->capacity * 2 : q->limit < 16 ? 1 : 16;
        uint64_t more = (uint64_t)(wanted - q->capacity) * q->item_bytes;
        if (wanted > q->limit || *q->budget < more)
            return NULL;
        char *grown = malloc((size_t)wanted * q->item_bytes);
        if (!grown)
            return NULL;
        for (uint32_t i = 0; i < q->count; i++)
            memcpy(grown + (size_t)i * q->item_bytes, tp_queue_at(q, i), q->item_bytes);
        free(q->items);
        q->items = grown;
        q->head = 0;
        q->capacity = wanted;
        *q->budget -= more;
    }
    return tp_queue_at(q, q->count++);
}

#endif
