/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as an answer to a ping, and as what follows it: nothing is read past, and what is taken keeps the rules.
 */
#include "fuzz.h"
#include "probes/ping/split.h"

static void check_answer(const uint8_t *at, uint32_t size, uint64_t nonce, uint16_t times) {
    uint64_t ordinal = 0;
    uint16_t serial = 0;
    int found = tp_ping_check(at, size, size, nonce, times, &ordinal, &serial);
    must(found == 0 || found == -EBADMSG || found == -ENOENT, "the result is 0 or a known error");
    must(!serial || (found == 0 && times && serial < TP_PING_ASKS_TIMES), "times follow where they were asked for");
    must(found != 0 || size >= TP_PING_LEAST_BYTES, "an answer is whole");
}

static void check_split(const struct tp_ping_near *near, const struct tp_ping_far *far) {
    struct tp_ping_split split = {0};
    tp_ping_split(near, far, &split);
    int64_t rtt_ns = near->received_ns - near->sent_ns;
    must(split.why < TP_PING_SPLITS && split.why != TP_PING_SPLIT_NIC, "it is known, or why not");
    must(split.why == TP_PING_SPLIT_UNBELIEVED || split.path_ns + split.turn_ns == rtt_ns, "the parts are the whole");
    must(split.why == TP_PING_SPLIT_KNOWN || split.out_ns == 0, "what is not known is not given");
    must(split.why != TP_PING_SPLIT_KNOWN || (split.bound_ns >= 0 && split.bound_ns <= rtt_ns),
         "to what the RTT bears");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    struct input input = {bytes, size};
    struct tp_ping_near near = {.sent_ns = (int64_t)take_number(&input, 7),
                                .bound_ns = (int64_t)take_number(&input, 5)};
    near.received_ns = near.sent_ns + (int64_t)take_number(&input, 5);
    near.before_ns = (int64_t)take_number(&input, 6);
    near.after_ns = near.before_ns + (int64_t)take_number(&input, 5);
    near.host = (uint32_t)take_number(&input, 4);
    uint16_t times = take_number(&input, 1) % 2 ? TP_PING_ASKS_TIMES : 0;
    uint64_t nonce = take_number(&input, 8), ordinal = 0;
    uint32_t left = (uint32_t)input.left;
    uint8_t *answer = exact_copy(input.at, input.left);
    check_answer(answer, left, nonce, times);
    struct tp_ping_far far;
    int found = tp_ping_times_read(answer, left, nonce, &ordinal, &far);
    must(found == 0 || found == -EBADMSG || found == -ENOENT, "the result is 0 or a known error");
    if (found == 0) {
        struct tp_ping_times again;
        must(left == TP_PING_TIMES_BYTES && far.serial && far.serial < TP_PING_ASKS_TIMES, "it is of one answer");
        must(far.turn_ns >= -1 && far.nic_turn_ns >= -1 && far.bound_ns >= 0, "what is not known says so");
        tp_ping_times_fill(&again, nonce, ordinal, &far);
        must(memcmp(&again, answer, sizeof again) == 0, "what is read is what was said");
        check_split(&near, &far);
    }
    free(answer);
    return 0;
}
