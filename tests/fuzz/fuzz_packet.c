/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a captured frame: the rules of tests/library/packet_rules.h hold.
 */
#include "fuzz.h"
#include "tests/library/packet_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const int ethertypes[] = {-1, -1, TP_ETHERTYPE_IPV4, TP_ETHERTYPE_IPV6, 0x8100};
    struct input input = {bytes, size};
    int ethertype = ethertypes[take_number(&input, 1) % 5];
    uint32_t more = (uint32_t)take_number(&input, 2); /* bytes that the capture cut off */
    tp_packet_try(input.at, (uint32_t)input.left, (uint32_t)input.left + more, ethertype);
    return 0;
}
