/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a captured frame, and as one that came before another: the rules of tests/library/packet_rules.h hold.
 */
#include "fuzz.h"
#include "tests/library/packet_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const int ethertypes[] = {-1, -1, TP_ETHERTYPE_IPV4, TP_ETHERTYPE_IPV6, 0x8100};
    struct input input = {bytes, size};
    int ethertype = ethertypes[take_number(&input, 1) % 5];
    uint32_t more = (uint32_t)take_number(&input, 2); /* bytes that the capture cut off */
    tp_packet_try(input.at, (uint32_t)input.left, (uint32_t)input.left + more, ethertype);

    /* The last bytes say where the next frame differs from this one. */
    struct tp_packet packet;
    struct tp_packet_look look;
    uint32_t length = (uint32_t)input.left;
    if (length < 8 || tp_packet_parse_ethernet(input.at, length, length, &packet) != 0)
        return 0;
    tp_packet_look_learn(&look, input.at, &packet);
    uint8_t *next = malloc(length);
    memcpy(next, input.at, length);
    for (uint32_t i = 0; i < 4; i++)
        next[input.at[length - 1 - i] % length] ^= input.at[length - 5 - i];
    tp_packet_try_look(&look, &packet, next, length);
    free(next);
    return 0;
}
