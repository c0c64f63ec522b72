/* SPDX-License-Identifier: Apache-2.0
 *
 * What a ping carries and how a reply is known to be its own: the same bytes behind an ICMP header and in a datagram.
 */
#ifndef TICKPATH_PROBES_PING_PACKET_H
#define TICKPATH_PROBES_PING_PACKET_H

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define TP_PING_MAGIC 0x676e7074u /* "tpng" */
#define TP_PING_REQUEST 1u
#define TP_PING_ANSWER 2u /* what our own server makes of a request; another's echoes it as it is */
#define TP_PING_TIMES 3u  /* what our own server sends behind an answer, where it was asked to: times.h */

/* `times`: of a request, that such a message is asked for. Of an answer and what follows it, that it is given, and
 * below it which answer of the server's it is: a request that the network doubles is answered twice. */
#define TP_PING_ASKS_TIMES 0x8000u

struct tp_ping_payload {
    uint32_t magic;
    uint8_t version;
    uint8_t type;
    uint16_t times;
    uint64_t nonce; /* of the pinger: nobody can answer who has not seen a request of this run */
    uint64_t ordinal;
};

#define TP_PING_ICMP_BYTES 8u
#define TP_PING_LEAST_BYTES ((uint32_t)sizeof(struct tp_ping_payload))
#define TP_PING_MOST_BYTES 65000u

enum tp_icmp {
    TP_ICMP4_REPLY = 0,
    TP_ICMP4_REQUEST = 8,
    TP_ICMP6_REQUEST = 128,
    TP_ICMP6_REPLY = 129,
};

/* RFC 1071 over `bytes`; 0 where a checksum is among them and holds. */
static inline uint16_t tp_ping_checksum(const uint8_t *at, uint32_t bytes) {
    uint32_t sum = 0;
    for (; bytes > 1; bytes -= 2, at += 2)
        sum += (uint32_t)at[0] << 8 | at[1];
    if (bytes)
        sum += (uint32_t)at[0] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static inline void tp_ping_fill(uint8_t *at, uint32_t bytes, uint64_t nonce, uint64_t ordinal, uint16_t times) {
    const struct tp_ping_payload head = {TP_PING_MAGIC, 1, TP_PING_REQUEST, times, nonce, ordinal};
    memcpy(at, &head, sizeof head);
    for (uint32_t i = sizeof head; i < bytes; i++)
        at[i] = (uint8_t)i;
}

/* Whether `bytes` are the payload of a ping of `nonce` that was sent with `times`, whole (`wanted` of them) and
 * unchanged.
 * @return 0 with its ordinal, and where times will follow the answer its number, else 0; -EBADMSG: cut, longer, or
 * changed; -ENOENT: nobody's of ours */
static inline int tp_ping_check(const uint8_t *at, uint32_t bytes, uint32_t wanted, uint64_t nonce, uint16_t times,
                                uint64_t *ordinal, uint16_t *serial) {
    struct tp_ping_payload head;
    if (bytes < sizeof head)
        return -EBADMSG;
    memcpy(&head, at, sizeof head);
    if (head.magic != TP_PING_MAGIC || head.nonce != nonce)
        return -ENOENT;
    uint16_t added = head.times ^ times;
    if (bytes != wanted || head.version != 1 ||
        (added && (head.type != TP_PING_ANSWER || !times || added & TP_PING_ASKS_TIMES)) ||
        (head.type != TP_PING_REQUEST && head.type != TP_PING_ANSWER))
        return -EBADMSG;
    for (uint32_t i = sizeof head; i < bytes; i++) {
        if (at[i] != (uint8_t)i)
            return -EBADMSG;
    }
    *ordinal = head.ordinal;
    *serial = added;
    return 0;
}

/* An ICMP echo request of `bytes` payload; the checksum, which the kernel makes for some sockets, when `checksum`. */
static inline void tp_ping_icmp(uint8_t *at, uint8_t type, uint16_t id, uint32_t bytes, uint64_t nonce,
                                uint64_t ordinal, int checksum) {
    /* The first is 1, as people know it. */
    uint16_t sequence = (uint16_t)(ordinal + 1);
    const uint8_t head[TP_PING_ICMP_BYTES] = {
        type, 0, 0, 0, (uint8_t)(id >> 8), (uint8_t)id, (uint8_t)(sequence >> 8), (uint8_t)sequence};
    memcpy(at, head, sizeof head);
    tp_ping_fill(at + sizeof head, bytes, nonce, ordinal, 0);
    if (checksum) {
        uint16_t sum = tp_ping_checksum(at, TP_PING_ICMP_BYTES + bytes);
        at[2] = (uint8_t)(sum >> 8);
        at[3] = (uint8_t)sum;
    }
}

#endif
