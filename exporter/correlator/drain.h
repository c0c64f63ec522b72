/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread that polls a correlator by itself, so that nothing an interpreter does can hold it up.
 */
#ifndef TICKPATH_CORRELATOR_DRAIN_H
#define TICKPATH_CORRELATOR_DRAIN_H

#include "exporter/correlator/correlator.h"

struct tp_drain;

/* How it goes about it: after a poll that brought at least `behind_records` the next follows at once; after one that
 * brought any, a rest of `busy_ns`; then rests twice as long each time, up to `idle_ns`. */
struct tp_drain_pace {
    int64_t busy_ns;
    int64_t idle_ns;
    uint64_t behind_records;
};

struct tp_drain_state {
    int64_t last_ns;               /* monotonic: when the last poll began; 0: none did */
    struct tp_histogram intervals; /* from the beginning of one poll to that of the next */
};

/* 0, or a negative errno: the host gives no thread. */
int tp_drain_start(struct tp_correlator *, const struct tp_drain_pace *, struct tp_drain **out);
/* Waits for the poll that is running, and frees. */
void tp_drain_stop(struct tp_drain *);
void tp_drain_look(struct tp_drain *, struct tp_drain_state *out);

#endif
