/* SPDX-License-Identifier: Apache-2.0
 *
 * One direction of the wire. A frame comes in, may be dropped or corrupted, goes down the delay line, and at its end
 * may be set aside (swapped, or held for a burst) before it is written, with its copies behind it. The delay line keeps
 * the order; only swaps, bursts among candidates, and copies written apart change it.
 */
#ifndef TICKPATH_LAB_SHUTTLE_LINE_H
#define TICKPATH_LAB_SHUTTLE_LINE_H

#include "lab/shuttle/faults.h"
#include "lab/shuttle/log.h"

#include <stdbool.h>
#include <stddef.h>

struct tp_frame {
    struct tp_frame *next;
    int64_t due_ns;        /* CLOCK_MONOTONIC; its meaning is the queue's */
    uint64_t passing_left; /* swapped: how many candidates are still to go first */
    struct tp_truth record;
    uint8_t bytes[];
};

struct tp_queue {
    struct tp_frame *first;
    struct tp_frame **last;
    uint64_t length;
};

struct tp_line {
    int from; /* TAPs */
    int to;
    enum tp_direction direction;
    uint64_t seed;
    const struct tp_faults *faults;
    struct tp_log *log;
    bool armed;

    uint64_t frames;
    uint64_t candidates;
    struct tp_queue delayed;
    struct tp_queue swapped;
    struct tp_queue held; /* one burst; ends at its first frame's due_ns */
    struct tp_queue copies;

    struct tp_frame *free;
    void *memory;
    size_t room_bytes; /* for one frame */
};

/* @return 0 or -ENOMEM. The other fields above `frames` are the caller's to set before. */
int tp_line_open(struct tp_line *line, uint32_t frame_bytes);

/* Whether a frame can be taken in. When not, the kernel keeps them until there is room. */
static inline bool tp_line_has_room(const struct tp_line *line) {
    return line->free != NULL;
}

/* Take in one frame, if there is one. @return 1, or 0 when there is none, or a negative errno. */
int tp_line_receive(struct tp_line *line);

/* Write what is due. @return 0 or a negative errno; *next_ns becomes the time of the next frame if that is earlier. */
int tp_line_release(struct tp_line *line, int64_t *next_ns);

/* Log what was still waiting, and free the memory. */
int tp_line_close(struct tp_line *line);

int64_t tp_now_ns(int clock);

#endif
