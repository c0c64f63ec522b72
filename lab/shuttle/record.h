/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shuttle writes down: one record for each frame that it wrote, dropped or could not deliver, in that order.
 * The log is anonymous memory shared with whoever started the shuttle: a page with the header, then the records.
 */
#ifndef TICKPATH_LAB_SHUTTLE_RECORD_H
#define TICKPATH_LAB_SHUTTLE_RECORD_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define TP_TRUTH_HEADER_BYTES 4096

enum tp_direction {
    TP_TO_CLIENT = 0,
    TP_TO_SERVER = 1,
};

/* What became of a frame; several may hold. */
enum tp_fate {
    TP_FATE_FORWARDED = 1 << 0, /* written, and the kernel took it */
    TP_FATE_DROPPED = 1 << 1,
    TP_FATE_CORRUPTED = 1 << 2, /* its TCP checksum is wrong */
    TP_FATE_COPY = 1 << 3,      /* not the frame itself but a duplicate of it, number `copy` */
    TP_FATE_DELAYED = 1 << 4,
    TP_FATE_HELD = 1 << 5,    /* released in a burst with others */
    TP_FATE_SWAPPED = 1 << 6, /* later frames went before it */
    TP_FATE_REFUSED = 1 << 7, /* written, and the kernel did not take it: the far device is down */
    TP_FATE_UNSENT = 1 << 8,  /* still waiting when the shuttle ended */
};

struct tp_truth {
    uint64_t number;    /* of the frame as it came in, per direction, from 1; copies share it */
    uint64_t candidate; /* number among the frames that faults may befall, per direction, from 1; 0: none of them */
    uint64_t hash;      /* tp_frame_hash of the bytes written (dropped: of those read) */
    int64_t read_ns;    /* CLOCK_MONOTONIC, when it had been read from the near device */
    /* Around the write to the far device; 0 when there was none. */
    int64_t before_ns; /* CLOCK_MONOTONIC */
    int64_t after_ns;
    int64_t before_realtime_ns;
    int64_t after_realtime_ns;
    uint32_t length; /* of the frame, from its destination address on */
    uint16_t fate;   /* enum tp_fate */
    uint8_t direction;
    uint8_t copy; /* 0: the frame itself */
    /* Zero unless TCP. */
    uint8_t source[16]; /* IPv4 mapped */
    uint8_t destination[16];
    uint16_t source_port;
    uint16_t destination_port;
    uint32_t seq;
    uint32_t ack;
    uint32_t payload_bytes;
    uint8_t tcp_flags;
    uint8_t version; /* 4 or 6; 0: not TCP */
    uint8_t reserved[6];
};

_Static_assert(sizeof(struct tp_truth) == 128, "a record is two cache lines");

struct tp_truth_header {
    _Atomic uint64_t records; /* complete ones */
};

/* Tells frames apart in tests; not for anything an adversary sees. Each step is a bijection of the state, so frames of
 * one length that differ in one 8-byte word always differ in hash. Words are little-endian, the last one padded with
 * zeros. */
static inline uint64_t tp_frame_hash(const uint8_t *bytes, uint32_t length) {
    uint64_t hash = length;
    for (uint32_t at = 0; at < length; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, length - at < 8 ? length - at : 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return hash;
}

#endif
