/* SPDX-License-Identifier: Apache-2.0
 *
 * Any records of a feed, a wire and a kernel ring, with any rows behind them, into the join under tight limits: every
 * message is matched or unmatched with a reason, and memory stays within its bound.
 */
#include <errno.h>

#include "exporter/correlator/internal.h"
#include "fuzz.h"

#define ROWS 4u
#define INPUTS 3u

static struct tp_row rows[INPUTS][ROWS];

static int row_of(const void *context, uint32_t handle, struct tp_row *out) {
    const struct tp_row *table = context;
    if ((handle & 0xffffu) >= ROWS)
        return -ENOENT;
    *out = table[handle & 0xffffu];
    return out->generation == handle >> 16 ? 0 : -ESTALE;
}

static void check(const struct tp_join *join) {
    for (uint32_t at = 0; at < join->label_count; at++) {
        const struct tp_label *label = &join->labels[at];
        uint64_t sum = 0;
        for (int tier = 0; tier < TP_TIERS; tier++)
            for (int method = 0; method < TP_METHODS; method++)
                for (int source = 0; source < TP_SOURCES; source++)
                    sum += label->matched[tier][method][source];
        for (int reason = 0; reason < TP_REASONS; reason++)
            sum += label->unmatched[reason];
        must(sum == label->messages, "matched + unmatched == messages");
    }
    must(join->budget <= join->limits.memory_bytes, "memory stays within its bound");
    must(join->totals.connections <= join->limits.connections, "connections are bounded");
    must(join->totals.flows <= join->limits.connections, "flows are bounded");
    must(join->series <= join->limits.series, "series are bounded");
}

/* A row whose first bytes the input chose: few connections, so that they meet. */
static void change_row(struct input *input, uint32_t which) {
    struct tp_row *row = &rows[which][take_number(input, 1) % ROWS];
    uint64_t draw = take_number(input, 2);
    take(input, row, offsetof(struct tp_row, local));
    if (draw & 1) { /* likely, else whatever came */
        row->generation = draw >> 1 & 1;
        row->state = draw & 4 ? TP_ROW_OPEN : TP_ROW_CLOSED;
        row->cookie = draw >> 3 & 3;
        row->opened_ns = (int64_t)(draw >> 5 & 31) * 1000;
        row->closed_ns = 0;
    }
    row->local[15] = draw >> 10 & 1;
    row->irs = (uint32_t)(draw >> 11 & 3) - 1;
}

static void take_event(struct input *input, struct tp_event *event, int64_t now_ns) {
    uint64_t likely = take_number(input, 1);
    take(input, (uint8_t *)event + 8, sizeof(*event) - 8);
    event->seq = 1;
    if (likely & 1)
        event->kind %= 16;
    if (likely & 2)
        event->row %= ROWS;
    if (likely & 4)
        event->time_ns = now_ns + (int8_t)event->time_ns;
    if (likely & 8)
        event->clock %= 2;
    if (likely & 16) { /* small offsets */
        event->words[0] &= 0x3ff;
        event->words[1] &= 0x3ff;
    }
    if (likely & 32)
        event->words[2] &= 3;
    if (likely & 64)
        event->source %= TP_SOURCES;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const enum tp_input_kind kinds[INPUTS] = {TP_INPUT_FEED, TP_INPUT_WIRE, TP_INPUT_KERNEL};
    struct input input = {bytes, size};
    const struct tp_correlator_limits limits = {
        .window_ns = 5000,
        .match = TP_METHOD_WINDOW,
        .connections = 4,
        .segments = 8,
        .pending = 8,
        .labels = 3,
        .series = 40,
        .joined = 8,
        .memory_bytes = UINT64_C(2000) << take_number(&input, 1) % 16,
    };
    static struct tp_join join;
    struct tp_event event;
    int64_t now_ns = 1000000;
    memset(rows, 0, sizeof(rows));
    must(tp_join_init(&join, &limits) == 0, "the join begins");
    for (uint32_t at = 0; at < INPUTS; at++)
        must(tp_join_input_add(&join, at, kinds[at], ROWS, row_of, rows[at]) == (int)at, "an input is added");
    while (input.left) {
        uint64_t how = take_number(&input, 1);
        uint32_t which = (uint32_t)(how >> 4) % INPUTS;
        now_ns += (int64_t)take_number(&input, 1) * 8;
        if (how % 16 < 11) {
            take_event(&input, &event, now_ns);
            tp_join_records(&join, which, &event, 1, now_ns);
        } else if (how % 16 == 11) {
            tp_join_advance(&join, now_ns, now_ns - (int64_t)take_number(&input, 2), false);
        } else if (how % 16 == 12) {
            tp_join_input_alive(&join, which, !join.inputs[which].alive, now_ns);
        } else if (how % 16 == 13) {
            tp_join_input_remove(&join, which, now_ns);
            must(tp_join_input_add(&join, which, kinds[which], ROWS, row_of, rows[which]) >= 0, "an input comes back");
        } else {
            change_row(&input, which);
        }
        check(&join);
    }
    tp_join_advance(&join, now_ns, now_ns, true);
    check(&join);
    must(join.totals.pending == 0, "in the end nothing waits");
    tp_join_free(&join);
    return 0;
}
