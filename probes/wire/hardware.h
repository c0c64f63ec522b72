/* SPDX-License-Identifier: Apache-2.0
 *
 * The NICs that stamp for the wire probe: which clock each one's stamps are of, reading those clocks, and finding out
 * that one stamps nothing although it was told to and said it would.
 */
#ifndef TICKPATH_WIRE_HARDWARE_H
#define TICKPATH_WIRE_HARDWARE_H

#include "tickpath/phc.h"
#include "tickpath/ring.h"

#define TP_WIRE_NICS 16u
/* So many frames in a row without a stamp, over so long: no gap in a NIC that can stamp. Found out in less than 5 s of
 * traffic, if that is more than a frame a second. */
#define TP_WIRE_MISSING_FRAMES 3u
#define TP_WIRE_MISSING_NS INT64_C(2000000000)

struct tp_wire_nic {
    uint32_t ifindex;
    uint32_t phc; /* which of the clocks */
};

struct tp_wire_hardware {
    struct tp_wire_nic nics[TP_WIRE_NICS];
    struct tp_phc phcs[TP_WIRE_NICS];
    int64_t offsets_ns[TP_WIRE_NICS]; /* of each clock: it minus monotonic, about, by the last reading */
    uint32_t nic_count;
    uint32_t phc_count;
    int64_t every_ns; /* clocks are not read more often; 0: no NIC stamps */
    int64_t next_ns;
    uint32_t missing; /* frames in a row that had no stamp */
    int64_t missing_since_ns;
};

/* Believes the stamps of interface `ifindex` to be of the clock `phc`, and reads that from `path`, `samples` times each
 * time, at most every `every_ns` (the longest of all NICs'). What tp_phc_open says; -ENOSPC: too many. */
int tp_wire_hardware_add(struct tp_wire_hardware *, uint32_t ifindex, uint32_t phc, const char *path, uint32_t samples,
                         int64_t every_ns);

/* No NIC stamps any longer. */
void tp_wire_hardware_clear(struct tp_wire_hardware *);

/* enum tp_clock of the stamps of interface `ifindex`, and the offset of that clock; TP_CLOCK_NIC where nobody reads it.
 */
static inline uint8_t tp_wire_hardware_clock(const struct tp_wire_hardware *hardware, uint32_t ifindex,
                                             int64_t *offset_ns) {
    for (uint32_t i = 0; i < hardware->nic_count; i++) {
        uint32_t phc = hardware->nics[i].phc;
        if (hardware->nics[i].ifindex != ifindex)
            continue;
        *offset_ns = hardware->offsets_ns[phc];
        return (uint8_t)(TP_CLOCK_PHC + hardware->phcs[phc].index);
    }
    return TP_CLOCK_NIC;
}

/* One record of every clock into the ring. */
void tp_wire_hardware_read(struct tp_wire_hardware *, struct tp_ring_writer *, int64_t now_ns);

/* Whether a frame had a stamp. True: the NIC has been found to stamp nothing. */
static inline bool tp_wire_hardware_missed(struct tp_wire_hardware *hardware, bool stamped, int64_t now_ns) {
    if (stamped) {
        hardware->missing = 0;
        return false;
    }
    if (hardware->missing++ == 0)
        hardware->missing_since_ns = now_ns;
    return hardware->missing >= TP_WIRE_MISSING_FRAMES && now_ns - hardware->missing_since_ns >= TP_WIRE_MISSING_NS;
}

#endif
