/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the join by itself, without rings or Python: `fuzz SEED RECORDS` feeds it nonsense under small limits and checks
 * what must hold whatever comes; `cost MESSAGES` prints what a message costs with its segment, read, readable and
 * copied records.
 */
#include <stdio.h>
#include <time.h>

#include "exporter/correlator/internal.h"

#define ROWS 16u

static struct tp_row rows[3][ROWS];

static int row_of(const void *context, uint32_t handle, struct tp_row *out) {
    const struct tp_row *table = context;
    if ((handle & 0xffffu) >= ROWS)
        return -ENOENT;
    *out = table[handle & 0xffffu];
    return out->generation == handle >> 16 ? 0 : -ESTALE;
}

static void fill_row(struct tp_row *row, uint32_t number, bool wire) {
    memset(row, 0, sizeof *row);
    row->state = TP_ROW_OPEN;
    row->opened_ns = 1;
    row->cookie = wire ? 0 : 100 + number;
    row->local[15] = (uint8_t)(number / 2); /* two of each tuple: ambiguous on purpose */
    row->remote[15] = 9;
    row->local_port = 1000;
    row->remote_port = 443;
    memcpy(row->venue, "test", 4);
    row->feed[0] = (char)('a' + number % 4);
}

static uint64_t state;

static uint64_t draw(uint64_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void must(bool holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    exit(1);
}

static void check(const struct tp_join *j, uint64_t accepted) {
    uint64_t messages = 0;
    for (uint32_t i = 0; i < j->label_count; i++) {
        const struct tp_label *l = &j->labels[i];
        uint64_t sum = 0;
        for (int tier = 0; tier < TP_TIERS; tier++)
            for (int method = 0; method < TP_METHODS; method++)
                for (int source = 0; source < TP_SOURCES; source++)
                    sum += l->matched[tier][method][source];
        for (int reason = 0; reason < TP_REASONS; reason++)
            sum += l->unmatched[reason];
        must(sum == l->messages, "matched + unmatched == messages");
        messages += l->messages;
    }
    must(messages + j->totals.pending == accepted, "every message is finished once or waits");
    must(j->budget <= j->limits.memory_bytes, "memory stays within its bound");
    must(j->totals.connections <= j->limits.connections && j->totals.flows <= j->limits.connections,
         "tables are bounded");
    must(j->series <= j->limits.series, "series are bounded");
}

static void nonsense(struct tp_event *e, uint32_t input, int64_t now_ns) {
    static const uint8_t kinds[3][6] = {
        {TP_KIND_READ, TP_KIND_MESSAGE, TP_KIND_MESSAGE, TP_KIND_MESSAGE_WIDE, TP_KIND_CLOSED, TP_KIND_CLOCK},
        {TP_KIND_SEGMENT, TP_KIND_SEGMENT, TP_KIND_SEGMENT, TP_KIND_SEGMENT, TP_KIND_OPENED, TP_KIND_CLOCK},
        {TP_KIND_READABLE, TP_KIND_COPIED, TP_KIND_CONNECT, TP_KIND_PASSED, TP_KIND_SEGMENT, 99},
    };
    memset(e, 0, sizeof *e);
    for (int word = 0; word < 5; word++)
        e->words[word] = draw(4) ? draw(2000) : draw(UINT64_MAX) >> draw(64);
    e->kind = kinds[input][draw(6)];
    e->clock = (uint8_t)(draw(8) ? TP_CLOCK_REALTIME : draw(80));
    e->source = (uint8_t)(1 + draw(draw(50) ? 5 : 200));
    e->flags = (uint8_t)draw(256);
    e->row = draw(50) ? (uint32_t)draw(ROWS) : (uint32_t)draw(UINT32_MAX);
    e->time_ns = draw(20) ? now_ns - 1000 + (int64_t)draw(2000) : (int64_t)draw(UINT64_MAX);
    if (e->kind == TP_KIND_SEGMENT && draw(10)) {
        e->segment.seq = (uint32_t)(0xffffff00u + draw(3000));
        e->segment.length = (uint32_t)draw(300);
    }
    if ((e->kind == TP_KIND_READABLE || e->kind == TP_KIND_COPIED) && draw(10)) {
        e->interval.cookie = 100 + draw(ROWS + 4);
        e->interval.to = e->interval.from + draw(100);
    }
    if (e->kind == TP_KIND_CLOCK && draw(10)) {
        e->reading.before_ns = now_ns;
        e->reading.after_ns = now_ns + (int64_t)draw(100);
    }
}

static int fuzz(uint64_t seed, uint64_t records) {
    const struct tp_correlator_limits limits = {
        .window_ns = 5000,
        .match = TP_METHOD_WINDOW,
        .connections = 6,
        .segments = 12,
        .pending = 16,
        .labels = 3,
        .series = 40,
        .joined = 8,
        .memory_bytes = 20000,
    };
    struct tp_join j;
    must(tp_join_init(&j, &limits) == 0, "init");
    state = seed * 2654435761u + 88172645463325252u;
    for (uint32_t i = 0; i < ROWS; i++) {
        fill_row(&rows[0][i], i, false);
        fill_row(&rows[1][i], i, true);
        fill_row(&rows[2][i], i, false);
    }
    static const enum tp_input_kind kinds[3] = {TP_INPUT_FEED, TP_INPUT_WIRE, TP_INPUT_KERNEL};
    for (uint32_t i = 0; i < 3; i++)
        must(tp_join_input_add(&j, i, kinds[i], ROWS, row_of, rows[i]) == (int)i, "input");
    uint64_t accepted = 0;
    int64_t now_ns = 1000000;
    for (uint64_t done = 0; done < records; done++) {
        struct tp_event e;
        uint32_t input = (uint32_t)draw(3);
        now_ns += (int64_t)draw(100);
        if (draw(200) == 0) {
            struct tp_row *row = &rows[draw(3)][draw(ROWS)];
            row->generation = (uint16_t)draw(2);
            row->state = draw(2) ? TP_ROW_CLOSED : TP_ROW_OPEN;
            row->closed_ns = row->state == TP_ROW_CLOSED ? now_ns : 0;
            row->opened_ns = now_ns - (int64_t)draw(5000);
            row->flags = (uint8_t)draw(2);
            row->irs = 0xfffffe00u + (uint32_t)draw(3);
        }
        nonsense(&e, input, now_ns);
        bool waited = j.inputs[0].has_wide_first;
        uint64_t malformed = j.totals.malformed;
        tp_join_records(&j, input, &e, 1, now_ns);
        bool waits = j.inputs[0].has_wide_first;
        bool taken = e.kind == TP_KIND_MESSAGE && j.totals.malformed == malformed;
        accepted += waited && (!waits || taken);
        accepted += taken && !waits;
        if (draw(10) == 0)
            tp_join_advance(&j, now_ns, now_ns, false);
        if (draw(500) == 0) {
            uint32_t which = (uint32_t)draw(3);
            tp_join_input_alive(&j, which, !j.inputs[which].alive, now_ns);
        }
        if (draw(2000) == 0) {
            uint32_t which = (uint32_t)draw(3);
            accepted += which == 0 && j.inputs[0].has_wide_first;
            tp_join_input_remove(&j, which, now_ns);
            must(tp_join_input_add(&j, which, kinds[which], ROWS, row_of, rows[which]) >= 0, "input again");
        }
        check(&j, accepted);
    }
    accepted += j.inputs[0].has_wide_first;
    tp_join_advance(&j, now_ns, now_ns, true);
    check(&j, accepted);
    must(j.totals.pending == 0, "flush leaves nothing");
    printf("messages %llu\n", (unsigned long long)accepted);
    tp_join_free(&j);
    return 0;
}

/* One message as the four producers write it. */
static void honest(struct tp_event *wire, struct tp_event *kernel, struct tp_event *feed, uint64_t number) {
    const int64_t start = INT64_C(1000000000) + (int64_t)number * 10000;
    const uint64_t from = number * 300, to = from + 300;
    memset(wire, 0, sizeof *wire);
    memset(kernel, 0, 2 * sizeof *kernel);
    memset(feed, 0, 2 * sizeof *feed);
    wire->kind = TP_KIND_SEGMENT;
    wire->clock = TP_CLOCK_REALTIME;
    wire->source = TP_SOURCE_SW;
    wire->time_ns = start + INT64_C(1700000000000000000);
    wire->segment = (struct tp_segment){.seq = 1001 + (uint32_t)from, .length = 300, .frame = number};
    wire->segment.seen_ns = (uint64_t)start + 500;
    kernel[0].kind = TP_KIND_READABLE;
    kernel[0].time_ns = start + 2000;
    kernel[0].interval = (struct tp_interval){.from = from, .to = to, .cookie = 100};
    kernel[1].kind = TP_KIND_COPIED;
    kernel[1].time_ns = start + 3000;
    kernel[1].interval = (struct tp_interval){.from = from, .to = to, .cookie = 100};
    kernel[1].interval.asked_ns = (uint64_t)start - 500;
    feed[0].kind = TP_KIND_READ;
    feed[0].flags = TP_READ_DRAINED;
    feed[0].time_ns = start + 3200;
    feed[0].read = (struct tp_read){.from = from, .to = to, .asked_ns = (uint64_t)start - 400};
    feed[1].kind = TP_KIND_MESSAGE;
    feed[1].source = TP_TIER_A;
    feed[1].flags = TP_MESSAGE_HAS_EXCHANGE | TP_MESSAGE_HAS_DECODE | TP_MESSAGE_HAS_PARSED | TP_MESSAGE_HAS_PUBLISHED;
    feed[1].time_ns = start + 4000 + (int64_t)draw(700);
    feed[1].message = (struct tp_message){.exchange_ns = start + INT64_C(1699999999990000000), .end = to};
    feed[1].message.ordinal = (uint32_t)number;
    feed[1].message.decode_ns = 300 + (uint32_t)draw(100);
    feed[1].message.parsed_ns = 900 + (uint32_t)draw(300);
    feed[1].message.published_ns = 2000 + (uint32_t)draw(900);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int cost(uint64_t messages) {
    enum { BATCH = 256 };
    const struct tp_correlator_limits limits = {
        .window_ns = 1000000000,
        .match = TP_METHOD_OFFSET,
        .connections = 4096,
        .segments = 4096,
        .pending = 16384,
        .labels = 256,
        .series = 2048,
        .memory_bytes = 32 << 20,
    };
    static struct tp_join j;
    static struct tp_event wire[BATCH], kernel[2 * BATCH], feed[2 * BATCH];
    must(tp_join_init(&j, &limits) == 0, "init");
    state = 88172645463325252u;
    fill_row(&rows[0][0], 0, false);
    fill_row(&rows[1][0], 0, true);
    fill_row(&rows[2][0], 0, false);
    rows[0][0].flags = rows[1][0].flags = TP_ROW_HAS_IRS;
    rows[0][0].irs = rows[1][0].irs = 1000;
    (void)tp_join_input_add(&j, 0, TP_INPUT_FEED, ROWS, row_of, rows[0]);
    (void)tp_join_input_add(&j, 1, TP_INPUT_WIRE, ROWS, row_of, rows[1]);
    (void)tp_join_input_add(&j, 2, TP_INPUT_KERNEL, ROWS, row_of, rows[2]);
    struct tp_event clock = {.kind = TP_KIND_CLOCK, .clock = TP_CLOCK_REALTIME};
    clock.time_ns = INT64_C(1700000000500000000);
    clock.reading.before_ns = clock.reading.after_ns = 500000000;
    tp_join_records(&j, 1, &clock, 1, 500000000);
    double spent = 0;
    for (uint64_t done = 0; done < messages; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            honest(&wire[i], &kernel[2 * i], &feed[2 * i], done + (uint64_t)i);
        int64_t now_ns = feed[2 * BATCH - 1].time_ns;
        double before = seconds();
        tp_join_records(&j, 1, wire, BATCH, now_ns);
        tp_join_records(&j, 2, kernel, 2 * BATCH, now_ns);
        tp_join_records(&j, 0, feed, 2 * BATCH, now_ns);
        tp_join_advance(&j, now_ns, now_ns, false);
        spent += seconds() - before;
    }
    const struct tp_label *l = &j.labels[1];
    must(l->messages > 0 && l->matched[TP_TIER_A][TP_METHOD_OFFSET][TP_SOURCE_SW] == l->messages, "all by offset");
    must(tp_histogram_count(&l->tails[TP_LEG_STACK][TP_SOURCE_SW]->histogram) == l->messages, "all legs");
    printf("{\"messages\": %llu, \"ns_per_message\": %.1f}\n", (unsigned long long)l->messages,
           spent / (double)l->messages * 1e9);
    tp_join_free(&j);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "fuzz") == 0)
        return fuzz(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "cost") == 0)
        return cost(strtoull(argv[2], NULL, 10));
    fprintf(stderr, "usage: %s fuzz SEED RECORDS | cost MESSAGES\n", argv[0]);
    return 2;
}
