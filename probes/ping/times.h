/* SPDX-License-Identifier: Apache-2.0
 *
 * What our echo server says, behind an answer, of when it took the request and when the answer left.
 *
 * It is a datagram of its own, for the stamp of an answer's leaving is there only once it has left. It follows only
 * where the request asks for it and is no shorter than it: whoever sends under another's address has no more than twice
 * of it sent there. In the byte order of the host, as the magic: one of the other order answers nothing.
 */
#ifndef TICKPATH_PROBES_PING_TIMES_H
#define TICKPATH_PROBES_PING_TIMES_H

#include "probes/ping/packet.h"
#include "tickpath/clock.h"

#define TP_PING_NO_TURN UINT32_MAX
#define TP_PING_NO_BOUND_US 0xffffffu

/* As it is sent. */
struct tp_ping_times {
    struct tp_ping_payload head; /* `times`: of the answer that this is about */
    int64_t received_ns;         /* realtime */
    int64_t monotonic_ns;     /* the server's, at some moment between the request's coming and the answer's leaving */
    uint32_t host;            /* tp_ping_host; 0: not known */
    uint32_t turn_ns;         /* from taking the request to sending the answer; TP_PING_NO_TURN: not known */
    uint32_t nic_turn_ns;     /* the same by a NIC's stamps of both */
    uint32_t bound_us_source; /* bound on UTC in microseconds, or TP_PING_NO_BOUND_US, above 8 bits of the source */
};

#define TP_PING_TIMES_BYTES ((uint32_t)sizeof(struct tp_ping_times))
static_assert(sizeof(struct tp_ping_times) == 56, "it is no longer than a ping is unless told");

/* What it says. */
struct tp_ping_far {
    int64_t received_ns;
    int64_t monotonic_ns;
    int64_t turn_ns;     /* -1: not known */
    int64_t nic_turn_ns; /* -1: not known */
    int64_t bound_ns;    /* INT64_MAX: not known */
    int64_t app_ns;      /* this host's monotonic clock, after it was read */
    uint32_t host;
    uint16_t serial;
    uint8_t
        source; /* enum tp_ping_source, of received_ns and turn_ns: SW both the kernel's, SOCK the first, APP none */
};

/* Names this start of this kernel, and so its clocks; 0: not known. */
uint32_t tp_ping_host(void);

static inline uint32_t tp_ping_turn(int64_t turn_ns) {
    return turn_ns >= 0 && turn_ns < (int64_t)TP_PING_NO_TURN ? (uint32_t)turn_ns : TP_PING_NO_TURN;
}

static inline void tp_ping_times_fill(struct tp_ping_times *out, uint64_t nonce, uint64_t ordinal,
                                      const struct tp_ping_far *far) {
    int64_t bound_us = far->bound_ns < INT64_MAX - 999 ? (far->bound_ns + 999) / 1000 : INT64_MAX;
    uint32_t bound = bound_us < (int64_t)TP_PING_NO_BOUND_US ? (uint32_t)bound_us : TP_PING_NO_BOUND_US;
    *out = (struct tp_ping_times){
        .head = {TP_PING_MAGIC, 1, TP_PING_TIMES, (uint16_t)(TP_PING_ASKS_TIMES | far->serial), nonce, ordinal},
        .received_ns = far->received_ns,
        .monotonic_ns = far->monotonic_ns,
        .host = far->host,
        .turn_ns = tp_ping_turn(far->turn_ns),
        .nic_turn_ns = tp_ping_turn(far->nic_turn_ns),
        .bound_us_source = bound << 8 | far->source,
    };
}

/* Reads `bytes` that came from the network.
 * @return 0; -ENOENT: no such message of `nonce`; -EBADMSG: it is one, and cannot be */
static inline int tp_ping_times_read(const uint8_t *at, uint32_t bytes, uint64_t nonce, uint64_t *ordinal,
                                     struct tp_ping_far *out) {
    struct tp_ping_times said;
    if (bytes < sizeof said.head)
        return -ENOENT;
    memcpy(&said.head, at, sizeof said.head);
    if (said.head.magic != TP_PING_MAGIC || said.head.nonce != nonce || said.head.type != TP_PING_TIMES)
        return -ENOENT;
    if (bytes != sizeof said || said.head.version != 1)
        return -EBADMSG;
    memcpy(&said, at, sizeof said);
    uint16_t serial = said.head.times & (uint16_t)~TP_PING_ASKS_TIMES;
    uint8_t source = (uint8_t)said.bound_us_source;
    uint32_t bound_us = said.bound_us_source >> 8;
    if (!serial || serial == said.head.times || said.received_ns <= 0 || said.received_ns >= TP_TIME_LIMIT_NS ||
        said.monotonic_ns < 0 || said.monotonic_ns >= TP_TIME_LIMIT_NS ||
        (source != TP_PING_SOURCE_SW && source != TP_PING_SOURCE_SOCK && source != TP_PING_SOURCE_APP))
        return -EBADMSG;
    *ordinal = said.head.ordinal;
    *out = (struct tp_ping_far){
        .received_ns = said.received_ns,
        .monotonic_ns = said.monotonic_ns,
        .turn_ns = said.turn_ns == TP_PING_NO_TURN ? -1 : (int64_t)said.turn_ns,
        .nic_turn_ns = said.nic_turn_ns == TP_PING_NO_TURN ? -1 : (int64_t)said.nic_turn_ns,
        .bound_ns = bound_us == TP_PING_NO_BOUND_US ? INT64_MAX : (int64_t)bound_us * 1000,
        .host = said.host,
        .serial = serial,
        .source = source,
    };
    return 0;
}

#endif
