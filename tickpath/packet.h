/* SPDX-License-Identifier: Apache-2.0
 *
 * From a captured frame to its TCP segment: Ethernet with up to two VLAN tags, IPv4 with options, IPv6 with extension
 * headers, TCP. Nothing is allocated, and nothing beyond the captured bytes is read.
 *
 * Two lengths describe a frame: `captured` bytes can be read, `original` bytes were there. What the headers claim is
 * held against the original, so that a short capture is not mistaken for a bad frame; the payload's length comes from
 * the IP header, so that Ethernet padding is not taken for data. One exception: a frame that the host merged or has yet
 * to cut (GRO, TSO, "BIG TCP") may be too long for the IP header's 16 bits and then says 0 there; it ends where the
 * frame ends. On a small frame 0 stays what it says: no payload.
 *
 * IP fragments are told apart and not parsed: none but the first holds a TCP header, and none the whole segment.
 */
#ifndef TICKPATH_PACKET_H
#define TICKPATH_PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TP_PACKET_VLANS 2
#define TP_PACKET_EXTENSIONS 8 /* IPv6 extension headers followed; real traffic has one or two */

#define TP_ETHERTYPE_IPV4 0x0800
#define TP_ETHERTYPE_IPV6 0x86dd

/* Why a frame gave no TCP segment. TRUNCATED: the bytes end inside that header. MALFORMED: a length or version in that
 * header contradicts itself or the frame. */
enum tp_packet_error {
    TP_PACKET_TRUNCATED_ETHERNET = -1,
    TP_PACKET_TRUNCATED_VLAN = -2,
    TP_PACKET_TRUNCATED_IP = -3, /* or inside an IPv6 extension header */
    TP_PACKET_TRUNCATED_TCP = -4,
    TP_PACKET_NOT_IP = -5,
    TP_PACKET_NOT_TCP = -6,
    TP_PACKET_FRAGMENT = -7,
    TP_PACKET_MALFORMED_IP = -8,
    TP_PACKET_MALFORMED_TCP = -9,
    TP_PACKET_TOO_DEEP = -10, /* more VLAN tags or extension headers than are followed */
};

enum tp_checksum {
    TP_CHECKSUM_UNKNOWN = 0, /* cannot be verified: not all bytes were captured, or there is no such checksum */
    TP_CHECKSUM_GOOD = 1,
    TP_CHECKSUM_BAD = 2,
};

/* Offsets are from the first byte given to the parser. */
struct tp_packet {
    uint8_t source[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
    uint8_t destination[16];
    uint16_t source_port;
    uint16_t destination_port;
    uint32_t seq;
    uint32_t ack;
    uint16_t window;   /* as on the wire, not scaled */
    uint8_t tcp_flags; /* as on the wire: FIN is 0x01, CWR 0x80 */
    uint8_t version;   /* 4 or 6 */
    uint32_t ip_offset;
    uint32_t tcp_offset;
    uint32_t payload_offset;            /* beyond the captured bytes when they end inside the TCP options */
    uint32_t payload_length;            /* on the wire */
    uint32_t payload_captured;          /* how many of them can be read */
    bool cut;                           /* the capture ends before the segment does */
    uint16_t vlan_ids[TP_PACKET_VLANS]; /* outermost first */
    uint8_t vlans;
    bool big;    /* payload_length is by the frame: the IP header has no room for it */
    bool routed; /* an IPv6 routing header still names stops: `destination` is the next one, not the last */
};

static inline uint16_t tp_packet_be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t tp_packet_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The functions below take the frame and how far it goes; `at` is where their header begins, `end` where the IP packet
 * ends. 64-bit positions, so that no sum of a position and a claimed length can wrap. */
struct tp_packet_frame {
    const uint8_t *bytes;
    uint64_t captured;
    uint64_t original;
};

static inline int tp_packet_parse_tcp(const struct tp_packet_frame *frame, uint64_t at, uint64_t end,
                                      struct tp_packet *packet) {
    if (end - at < 20)
        return TP_PACKET_MALFORMED_TCP;
    if (frame->captured < at + 20)
        return TP_PACKET_TRUNCATED_TCP;
    const uint8_t *p = frame->bytes + at;
    uint64_t payload = at + (p[12] >> 4) * 4u;
    if (payload < at + 20 || payload > end)
        return TP_PACKET_MALFORMED_TCP;
    packet->source_port = tp_packet_be16(p);
    packet->destination_port = tp_packet_be16(p + 2);
    packet->seq = tp_packet_be32(p + 4);
    packet->ack = tp_packet_be32(p + 8);
    packet->tcp_flags = p[13];
    packet->window = tp_packet_be16(p + 14);
    packet->tcp_offset = (uint32_t)at;
    packet->payload_offset = (uint32_t)payload;
    packet->payload_length = (uint32_t)(end - payload);
    packet->cut = frame->captured < end;
    uint64_t readable = packet->cut ? frame->captured : end;
    packet->payload_captured = readable > payload ? (uint32_t)(readable - payload) : 0;
    return 0;
}

static inline uint32_t tp_packet_to_be32(uint32_t value) {
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(value) : value;
}

/* ::ffff:a.b.c.d in one store of 16 bytes: whoever copies it whole would wait for several smaller ones to be done. */
static inline void tp_packet_map_ipv4(uint8_t mapped[16], const uint8_t address[4]) {
    typedef uint32_t quarters __attribute__((vector_size(16)));
    uint32_t last;
    memcpy(&last, address, 4);
    const quarters whole = {0, 0, tp_packet_to_be32(0xffff), last};
    memcpy(mapped, &whole, 16);
}

static inline int tp_packet_parse_ipv4(const struct tp_packet_frame *frame, uint64_t at, struct tp_packet *packet) {
    if (frame->captured < at + 20)
        return TP_PACKET_TRUNCATED_IP;
    const uint8_t *p = frame->bytes + at;
    uint64_t header = (p[0] & 15) * 4u;
    uint64_t total = tp_packet_be16(p + 2);
    if (total == 0 && frame->original - at > UINT16_MAX) {
        total = frame->original - at;
        packet->big = true;
    }
    if (p[0] >> 4 != 4 || header < 20 || total < header || total > frame->original - at)
        return TP_PACKET_MALFORMED_IP;
    if (p[9] != 6)
        return TP_PACKET_NOT_TCP;
    if (tp_packet_be16(p + 6) & 0x3fff) /* more fragments, or an offset */
        return TP_PACKET_FRAGMENT;
    if (frame->captured < at + header)
        return TP_PACKET_TRUNCATED_IP;
    packet->version = 4;
    packet->ip_offset = (uint32_t)at;
    tp_packet_map_ipv4(packet->source, p + 12);
    tp_packet_map_ipv4(packet->destination, p + 16);
    return tp_packet_parse_tcp(frame, at + header, at + total, packet);
}

enum tp_packet_next_header {
    TP_NEXT_HOP_BY_HOP = 0,
    TP_NEXT_TCP = 6,
    TP_NEXT_ROUTING = 43,
    TP_NEXT_FRAGMENT = 44,
    TP_NEXT_AUTHENTICATION = 51,
    TP_NEXT_DESTINATION = 60,
};

static inline int tp_packet_parse_ipv6(const struct tp_packet_frame *frame, uint64_t at, struct tp_packet *packet) {
    if (frame->captured < at + 40)
        return TP_PACKET_TRUNCATED_IP;
    const uint8_t *p = frame->bytes + at;
    uint64_t length = tp_packet_be16(p + 4);
    if (length == 0 && frame->original - at - 40 > UINT16_MAX) {
        length = frame->original - at - 40;
        packet->big = true;
    }
    if (p[0] >> 4 != 6 || length > frame->original - at - 40)
        return TP_PACKET_MALFORMED_IP;
    packet->version = 6;
    packet->ip_offset = (uint32_t)at;
    memcpy(packet->source, p + 8, 16);
    memcpy(packet->destination, p + 24, 16);

    uint8_t next = p[6];
    at += 40;
    uint64_t end = at + length;
    for (int followed = 0;; followed++) {
        switch (next) {
        case TP_NEXT_TCP:
            return tp_packet_parse_tcp(frame, at, end, packet);
        case TP_NEXT_HOP_BY_HOP:
        case TP_NEXT_ROUTING:
        case TP_NEXT_FRAGMENT:
        case TP_NEXT_AUTHENTICATION:
        case TP_NEXT_DESTINATION:
            break;
        default:
            return TP_PACKET_NOT_TCP;
        }
        if (followed == TP_PACKET_EXTENSIONS)
            return TP_PACKET_TOO_DEEP;
        if (end - at < 8)
            return TP_PACKET_MALFORMED_IP;
        if (frame->captured < at + 8)
            return TP_PACKET_TRUNCATED_IP;
        p = frame->bytes + at;
        uint64_t bytes = (p[1] + 1u) * 8;
        if (next == TP_NEXT_FRAGMENT) {
            if (tp_packet_be16(p + 2) & 0xfff9) /* an offset, or more fragments; neither: whole (RFC 6946) */
                return TP_PACKET_FRAGMENT;
            bytes = 8;
        } else if (next == TP_NEXT_AUTHENTICATION) {
            bytes = (p[1] + 2u) * 4;
        } else if (next == TP_NEXT_ROUTING) {
            packet->routed |= p[3] != 0;
        }
        if (end - at < bytes)
            return TP_PACKET_MALFORMED_IP;
        if (frame->captured < at + bytes)
            return TP_PACKET_TRUNCATED_IP;
        next = p[0];
        at += bytes;
    }
}

static inline int tp_packet_parse_from(const struct tp_packet_frame *frame, uint64_t at, uint16_t ethertype,
                                       struct tp_packet *packet) {
    while (ethertype == 0x8100 || ethertype == 0x88a8 || ethertype == 0x9100) {
        if (packet->vlans == TP_PACKET_VLANS)
            return TP_PACKET_TOO_DEEP;
        if (frame->captured < at + 4)
            return TP_PACKET_TRUNCATED_VLAN;
        packet->vlan_ids[packet->vlans++] = tp_packet_be16(frame->bytes + at) & 0xfff;
        ethertype = tp_packet_be16(frame->bytes + at + 2);
        at += 4;
    }
    if (ethertype == TP_ETHERTYPE_IPV4)
        return tp_packet_parse_ipv4(frame, at, packet);
    if (ethertype == TP_ETHERTYPE_IPV6)
        return tp_packet_parse_ipv6(frame, at, packet);
    return TP_PACKET_NOT_IP;
}

/* Parse what follows an ethertype that is known otherwise: a frame whose link header, or only whose outer VLAN tag, the
 * kernel has taken off. `bytes` begins behind the ethertype; `captured` bytes beyond `original` are not the frame's.
 * @return 0, with *packet filled; else a tp_packet_error, and *packet means nothing. */
static inline int tp_packet_parse_ethertype(const uint8_t *bytes, uint32_t captured, uint32_t original,
                                            uint16_t ethertype, struct tp_packet *packet) {
    struct tp_packet_frame frame = {bytes, captured < original ? captured : original, original};
    *packet = (struct tp_packet){0};
    return tp_packet_parse_from(&frame, 0, ethertype, packet);
}

/* Parse an Ethernet frame, from its destination address to before its check sequence.
 * @return as tp_packet_parse_ethertype. */
static inline int tp_packet_parse_ethernet(const uint8_t *bytes, uint32_t captured, uint32_t original,
                                           struct tp_packet *packet) {
    struct tp_packet_frame frame = {bytes, captured < original ? captured : original, original};
    *packet = (struct tp_packet){0};
    if (frame.captured < 14)
        return TP_PACKET_TRUNCATED_ETHERNET;
    return tp_packet_parse_from(&frame, 14, tp_packet_be16(bytes + 12), packet);
}

/* Ones' complement sum in the host's byte order, which its being a multiple of 2^16 - 1 does not depend on (RFC 1071).
 * `sum` leaves room for what is added; `length` is 16 at least, as that of any header. */
static inline uint64_t tp_packet_sum(uint64_t sum, const uint8_t *bytes, uint32_t length) {
    typedef uint64_t pair __attribute__((vector_size(16)));
    static const uint8_t ones[32] = {[16 ... 31] = 0xff};
    const uint8_t *last = bytes + length - 16;
    pair word, rest, total; /* of 32 bits in 64: no carry is lost */
    /* The rest that makes no 16 bytes is read with what is before it. At an odd place, each byte has the weight that
     * its neighbour should have, 2^8 as much, and 2^16 times anything is that again. */
    memcpy(&rest, ones + length % 16, 16);
    memcpy(&word, last, 16);
    word &= rest;
    total = ((word & UINT32_MAX) + (word >> 32)) << (length % 2 * 8);
    for (; bytes <= last; bytes += 16) {
        memcpy(&word, bytes, 16);
        total += (word & UINT32_MAX) + (word >> 32);
    }
    return sum + total[0] + total[1];
}

/* `sum` is never 0: no header is all zeros. */
static inline enum tp_checksum tp_packet_judge(uint64_t sum) {
    return sum % UINT16_MAX == 0 ? TP_CHECKSUM_GOOD : TP_CHECKSUM_BAD;
}

/* Verify the IPv4 header's checksum. `bytes` is what *packet was parsed from. IPv6 has none: UNKNOWN. */
static inline enum tp_checksum tp_packet_ip_checksum(const uint8_t *bytes, const struct tp_packet *packet) {
    if (packet->version != 4)
        return TP_CHECKSUM_UNKNOWN;
    return tp_packet_judge(tp_packet_sum(0, bytes + packet->ip_offset, (uint32_t)(bytes[packet->ip_offset] & 15) * 4));
}

/* Sum of the pseudo header. */
static inline uint64_t tp_packet_pseudo_sum(const struct tp_packet *packet, uint32_t length) {
    uint32_t words[8];
    memcpy(words, packet->source, 16);
    memcpy(words + 4, packet->destination, 16);
    uint64_t sum = (uint64_t)words[3] + words[7]; /* of a mapped IPv4 address only the last four bytes count */
    if (packet->version == 6)
        sum += (uint64_t)words[0] + words[1] + words[2] + words[4] + words[5] + words[6];
    return sum + tp_packet_to_be32(length) + tp_packet_to_be32(TP_NEXT_TCP);
}

/* Verify the TCP checksum. `bytes` is what *packet was parsed from. UNKNOWN unless the whole segment was captured, for
 * one that is BIG or still ROUTED. Not to be asked of frames whose checksum is yet to be filled in (sent by this host
 * with offload) or was not redone (merged by it): the capture says which those are, the frame does not. */
static inline enum tp_checksum tp_packet_tcp_checksum(const uint8_t *bytes, const struct tp_packet *packet) {
    if (packet->cut || packet->big || packet->routed)
        return TP_CHECKSUM_UNKNOWN;
    uint32_t length = packet->payload_offset - packet->tcp_offset + packet->payload_length;
    uint64_t sum = tp_packet_pseudo_sum(packet, length);
    return tp_packet_judge(tp_packet_sum(sum, bytes + packet->tcp_offset, length));
}

/* Whether the checksum field holds what a host leaves there for its card to complete (Linux: CHECKSUM_PARTIAL): the sum
 * of the pseudo header. Such a frame never left its host, and its field says nothing of its bytes. Asked where the
 * checksum is BAD; one bad frame in 65,536 looks like it. */
static inline bool tp_packet_tcp_unfilled(const uint8_t *bytes, const struct tp_packet *packet) {
    uint32_t length = packet->payload_offset - packet->tcp_offset + packet->payload_length;
    uint64_t sum = tp_packet_pseudo_sum(packet, length);
    uint16_t field;
    while (sum > UINT16_MAX)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    memcpy(&field, bytes + packet->tcp_offset + 16, sizeof field);
    return field == sum;
}

#endif
