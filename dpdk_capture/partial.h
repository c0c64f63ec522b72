/* SPDX-License-Identifier: Apache-2.0
 *
 * Completes a checksum that the kernel left to the device, as virtio's VIRTIO_NET_HDR_F_NEEDS_CSUM says it: the field
 * holds the sum of the pseudo header, and everything from `start` to the frame's end is to be added.
 */
#ifndef TICKPATH_DPDK_PARTIAL_H
#define TICKPATH_DPDK_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TP_PARTIAL_UDP_FIELD 6  /* where the field lies in a UDP header */
#define TP_PARTIAL_TCP_FIELD 16 /* and in a TCP header */

/* False: start and offset do not lie inside the frame, which is left as it was. */
static inline bool tp_partial_complete(uint8_t *frame, uint32_t length, uint16_t start, uint16_t offset) {
    if (length < 2 || (uint32_t)start + offset > length - 2)
        return false;
    uint64_t sum = 0;
    uint32_t at = start;
    for (; length - at >= 4; at += 4) {
        uint32_t word;
        memcpy(&word, frame + at, sizeof(word));
        sum += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, frame + at, length - at); /* missing bytes count as zero, behind the others in either byte order */
    sum += rest;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    uint16_t field = (uint16_t)~sum;
    if (field == 0)
        field = 0xffff; /* the same value; as 0 UDP would take it for none */
    memcpy(frame + start + offset, &field, sizeof(field));
    return true;
}

#endif
