/* SPDX-License-Identifier: Apache-2.0
 *
 * What holds of the packet parser for any frame, each frame in an allocation of exactly its size.
 */
#ifndef TICKPATH_TESTS_PACKET_RULES_H
#define TICKPATH_TESTS_PACKET_RULES_H

#include <stdio.h>
#include <stdlib.h>

#include "tickpath/packet.h"

static inline void tp_packet_require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        abort();
    }
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
    }
    free(exact);
    return error;
}

#endif
