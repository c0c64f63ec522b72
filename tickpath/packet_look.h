/* SPDX-License-Identifier: Apache-2.0
 *
 * What stays the same in the headers of one connection's frames, one way: a frame that has the look of one that was
 * parsed need not be parsed again. Nothing is allocated, and nothing beyond the captured bytes is read.
 *
 * A look says nothing of its own: where it gives an answer, the parser gives the same, and where it gives none, the
 * parser is asked.
 */
#ifndef TICKPATH_PACKET_LOOK_H
#define TICKPATH_PACKET_LOOK_H

#include "tickpath/packet.h"

#define TP_LOOK_FROM 12u    /* the first ethertype: addresses of the link say nothing of a connection */
#define TP_LOOK_TURNS 0x07u /* FIN, SYN, RST: a frame that has one does not look like the others */

typedef uint64_t tp_look_vector __attribute__((vector_size(16)));

/* The frame is compared in pieces of 16 bytes, which may overlap: from the first ethertype on, up to the ports, from
 * the sequence number to the end of the fixed TCP header, and, where the first two do not meet, what is between them.
 */
enum { TP_LOOK_PIECES = 4 };

struct tp_packet_look {
    tp_look_vector value[TP_LOOK_PIECES];
    tp_look_vector mask[TP_LOOK_PIECES]; /* of the bits that are compared */
    uint64_t pseudo_sum;                 /* of the pseudo header, but for the length */
    uint32_t tcp_offset;
    uint32_t payload_offset; /* all up to there has to be there */
    uint32_t length_offset;  /* of the IP header's field of its length */
    uint32_t length_more;    /* what that length counts beside the payload */
    bool apart;              /* whether the last piece is compared */
};

/* What differs from frame to frame. As in struct tp_packet. */
struct tp_packet_gist {
    uint32_t seq;
    uint32_t ack;
    uint32_t payload_length;
    uint8_t tcp_flags;
};

/* A look that no frame has. */
static inline void tp_packet_look_none(struct tp_packet_look *look) {
    *look = (struct tp_packet_look){.payload_offset = UINT32_MAX};
}

/* Learns the look of an Ethernet frame. `bytes` is what *packet was parsed from, and was captured to the end of the
 * fixed TCP header.
 * @return false, with the look that no frame has: headers of this frame's kind take more than is compared. */
static inline bool tp_packet_look_learn(struct tp_packet_look *look, const uint8_t *bytes,
                                        const struct tp_packet *packet) {
    uint8_t same[128] = {0}, value[16], mask[16]; /* the bits of the frame that stay the same */
    uint32_t ip = packet->ip_offset, tcp = packet->tcp_offset;
    bool four = packet->version == 4;
    tp_packet_look_none(look);
    if (packet->big || packet->routed || tcp > TP_LOOK_FROM + 44 || (!four && tcp != ip + 40))
        return false;
    memset(same + TP_LOOK_FROM, 0xff, ip - TP_LOOK_FROM); /* VLAN tags and ethertypes */
    if (four) {
        same[ip] = same[ip + 9] = 0xff; /* version and length of the header, protocol */
        same[ip + 6] = 0x3f;            /* of a fragment */
        same[ip + 7] = 0xff;
        memset(same + ip + 12, 0xff, 8);
    } else {
        same[ip] = 0xf0;     /* version */
        same[ip + 6] = 0xff; /* next header */
        memset(same + ip + 8, 0xff, 32);
    }
    memset(same + tcp, 0xff, 4);
    same[tcp + 12] = 0xf0; /* length of the header */
    same[tcp + 13] = TP_LOOK_TURNS;
    const uint32_t from[TP_LOOK_PIECES] = {TP_LOOK_FROM, tcp - 12, tcp + 4, TP_LOOK_FROM + 16};
    for (int piece = 0; piece < TP_LOOK_PIECES; piece++) {
        for (uint32_t i = 0; i < 16; i++) {
            uint32_t at = from[piece] + i;
            mask[i] = same[at];
            value[i] = at == tcp + 13 ? 0 : bytes[at] & mask[i];
        }
        memcpy(&look->mask[piece], mask, 16);
        memcpy(&look->value[piece], value, 16);
    }
    look->pseudo_sum = tp_packet_pseudo_sum(packet, 0);
    look->tcp_offset = tcp;
    look->payload_offset = packet->payload_offset;
    look->length_offset = ip + (four ? 2 : 4);
    look->length_more = packet->payload_offset - ip - (four ? 0 : 40);
    look->apart = tcp - 12 > TP_LOOK_FROM + 16;
    return true;
}

static inline bool tp_look_is_zero(tp_look_vector vector) {
#ifdef __SSE4_1__
    typedef long long quads __attribute__((vector_size(16)));
    return __builtin_ia32_ptestz128((quads)vector, (quads)vector);
#else
    return (vector[0] | vector[1]) == 0;
#endif
}

static inline tp_look_vector tp_look_differs(const struct tp_packet_look *look, int piece, const uint8_t *bytes) {
    tp_look_vector here;
    memcpy(&here, bytes, 16);
    return (here ^ look->value[piece]) & look->mask[piece];
}

/* Reads an Ethernet frame of `length` bytes that was captured whole.
 * @return false, and *gist means nothing: it has not this look, or needs the parser's judgement. */
static inline bool tp_packet_look_read(const struct tp_packet_look *look, const uint8_t *bytes, uint32_t length,
                                       struct tp_packet_gist *gist) {
    if (length < look->payload_offset)
        return false;
    const uint8_t *tcp = bytes + look->tcp_offset;
    tp_look_vector differs = tp_look_differs(look, 0, bytes + TP_LOOK_FROM) | tp_look_differs(look, 1, tcp - 12) |
                             tp_look_differs(look, 2, tcp + 4);
    if (look->apart)
        differs |= tp_look_differs(look, 3, bytes + TP_LOOK_FROM + 16);
    gist->payload_length = tp_packet_be16(bytes + look->length_offset) - look->length_more;
    if (!tp_look_is_zero(differs) || gist->payload_length > length - look->payload_offset)
        return false;
    gist->seq = tp_packet_be32(tcp + 4);
    gist->ack = tp_packet_be32(tcp + 8);
    gist->tcp_flags = tcp[13];
    return true;
}

/* Whether the TCP checksum is good. `bytes` is what *gist was read from. */
static inline bool tp_packet_look_sums_up(const struct tp_packet_look *look, const uint8_t *bytes,
                                          const struct tp_packet_gist *gist) {
    uint32_t length = look->payload_offset - look->tcp_offset + gist->payload_length;
    uint64_t sum = look->pseudo_sum + tp_packet_to_be32(length);
    return tp_packet_judge(tp_packet_sum(sum, bytes + look->tcp_offset, length)) == TP_CHECKSUM_GOOD;
}

#endif
