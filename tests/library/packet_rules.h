/* SPDX-License-Identifier: Apache-2.0
 *
 * What holds of the packet parser for any frame, each frame in an allocation of exactly its size.
 */
#ifndef TICKPATH_TESTS_PACKET_RULES_H
#define TICKPATH_TESTS_PACKET_RULES_H

#include <stdio.h>
#include <stdlib.h>

#include "tickpath/packet_look.h"

static inline void tp_packet_require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        abort();
    }
}

/* What a look reads in a frame, the parser reads in it; whether it read anything. `of`: whose look it is. */
static inline bool tp_packet_try_look(const struct tp_packet_look *look, const struct tp_packet *of,
                                      const uint8_t *bytes, uint32_t length) {
    uint8_t *exact = malloc(length ? length : 1);
    struct tp_packet packet;
    struct tp_packet_gist gist;
    if (length)
        memcpy(exact, bytes, length);
    bool read = tp_packet_look_read(look, exact, length, &gist);
    int error = tp_packet_parse_ethernet(exact, length, length, &packet);
    if (read) {
        bool good = tp_packet_look_sums_up(look, exact, &gist);
        tp_packet_require(error == 0, "what has a look is a segment");
        tp_packet_require(memcmp(packet.source, of->source, 16) == 0 &&
                              memcmp(packet.destination, of->destination, 16) == 0 &&
                              packet.source_port == of->source_port && packet.destination_port == of->destination_port,
                          "what has a connection's look is of that connection");
        tp_packet_require(gist.seq == packet.seq && gist.ack == packet.ack && gist.tcp_flags == packet.tcp_flags &&
                              gist.payload_length == packet.payload_length && !packet.cut && !packet.big &&
                              look->payload_offset == packet.payload_offset,
                          "the look reads what the parser reads");
        tp_packet_require((gist.tcp_flags & TP_LOOK_TURNS) == 0, "what begins or ends a connection has no look");
        tp_packet_require(good == (tp_packet_tcp_checksum(exact, &packet) == TP_CHECKSUM_GOOD),
                          "the look sums up what the parser sums up");
    }
    free(exact);
    return read;
}

/* Parses as what follows `ethertype`, or as Ethernet when it is negative; returns the parser's own result. */
static inline int tp_packet_try(const uint8_t *bytes, uint32_t captured, uint32_t original, int ethertype) {
    uint8_t *exact = malloc(captured ? captured : 1);
    struct tp_packet packet;
    memset(&packet, 0xa5, sizeof packet);
    if (captured)
        memcpy(exact, bytes, captured);
    int error = ethertype < 0 ? tp_packet_parse_ethernet(exact, captured, original, &packet)
                              : tp_packet_parse_ethertype(exact, captured, original, (uint16_t)ethertype, &packet);
    tp_packet_require(error <= 0 && error >= TP_PACKET_TOO_DEEP, "the result is 0 or a known error");
    if (error == 0) {
        uint64_t end = (uint64_t)packet.payload_offset + packet.payload_length;
        tp_packet_require(packet.tcp_offset + 20u <= captured, "the fixed TCP header was captured");
        tp_packet_require(packet.ip_offset < packet.tcp_offset, "TCP follows IP");
        tp_packet_require(end <= original, "the payload ends within the frame");
        tp_packet_require(packet.payload_captured <= packet.payload_length,
                          "no more payload was captured than there was");
        tp_packet_require(packet.cut == (captured < end), "cut says whether the capture ends before the segment");
        uint64_t readable = captured > packet.payload_offset ? captured - packet.payload_offset : 0;
        tp_packet_require(packet.payload_captured ==
                              (readable < packet.payload_length ? readable : packet.payload_length),
                          "payload_captured is what lies in the capture");
        tp_packet_ip_checksum(exact, &packet);
        tp_packet_tcp_checksum(exact, &packet);
        struct tp_packet_look look;
        if (ethertype < 0 && tp_packet_look_learn(&look, exact, &packet)) {
            bool read = tp_packet_try_look(&look, &packet, exact, captured);
            bool whole = !packet.cut && !(packet.tcp_flags & TP_LOOK_TURNS);
            tp_packet_require(read == whole, "a whole frame has its own look");
        }
    }
    free(exact);
    return error;
}

#endif
