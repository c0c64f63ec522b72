/* SPDX-License-Identifier: Apache-2.0
 *
 * The faults of one direction, and whether one of them befalls a frame. A decision depends on the seed, the direction,
 * the fault and the number of the frame among the candidates, and on nothing else: the same seed harms the same frames.
 */
#ifndef TICKPATH_LAB_SHUTTLE_FAULTS_H
#define TICKPATH_LAB_SHUTTLE_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

enum tp_fault {
    TP_FAULT_DROP = 1,
    TP_FAULT_CORRUPT,
    TP_FAULT_DUPLICATE,
    TP_FAULT_SWAP,
    TP_FAULT_HOLD,
    TP_FAULT_DELAY,
    TP_FAULT_JITTER,
};

/* Befalls every n-th candidate, and each one with a probability. */
struct tp_trigger {
    double probability;
    uint64_t every; /* 0: never */
};

struct tp_faults {
    struct tp_trigger drop;
    struct tp_trigger corrupt;
    struct tp_trigger duplicate;
    struct tp_trigger swap;
    struct tp_trigger hold;
    struct tp_trigger delay;
    uint64_t duplicate_copies; /* at most 255 */
    uint64_t duplicate_apart_ns;
    uint64_t swap_by; /* how many later candidates go first */
    uint64_t swap_wait_ns;
    uint64_t hold_ns;
    uint64_t hold_frames;
    uint64_t delay_ns;
    uint64_t delay_jitter_ns;
    uint64_t only_payload; /* candidates are TCP segments with payload; else all frames */
    uint64_t port;         /* candidates are TCP segments from or to this port; 0: any */
};

/* The finalizer of SplitMix64: every bit of the input moves every bit of the output. */
static inline uint64_t tp_mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t tp_draw(uint64_t seed, unsigned direction, enum tp_fault fault, uint64_t candidate) {
    uint64_t stream = tp_mix(seed + (direction * 16u + fault) * 0x9e3779b97f4a7c15u);
    return tp_mix(stream + candidate * 0x9e3779b97f4a7c15u);
}

static inline bool tp_befalls(const struct tp_trigger *trigger, uint64_t draw, uint64_t candidate) {
    if (trigger->every && candidate % trigger->every == 0)
        return true;
    /* 53 bits are what a double holds exactly: 1.0 is always, 0.0 never. */
    return (double)(draw >> 11) * 0x1p-53 < trigger->probability;
}

#endif
