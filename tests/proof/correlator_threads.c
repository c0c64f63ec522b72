/* SPDX-License-Identifier: Apache-2.0
 *
 * Every call of the correlator from a thread of its own at once, under ThreadSanitizer: two that poll, one that takes
 * snapshots, one that attaches and detaches, one that fetches results, and a producer.
 *
 * Usage: correlator_threads RING MESSAGES. Prints messages seen in the last snapshot.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exporter/correlator/correlator.h"
#include "tickpath/ring.h"

static struct tp_correlator *correlator;
static const char *path;
static _Atomic bool stop;

static void require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        exit(1);
    }
}

static uint64_t snapshot(void) {
    struct tp_correlator_view view;
    uint64_t messages = 0;
    require(tp_correlator_view(correlator, &view) == 0, "a snapshot is taken");
    for (uint32_t at = 0; at < view.label_count; at++) {
        const struct tp_label *label = &view.labels[at];
        uint64_t sum = 0;
        for (int tier = 0; tier < TP_TIERS; tier++)
            for (int method = 0; method < TP_METHODS; method++)
                for (int source = 0; source < TP_SOURCES; source++)
                    sum += label->matched[tier][method][source];
        for (int reason = 0; reason < TP_REASONS; reason++)
            sum += label->unmatched[reason];
        require(sum == label->messages, "matched + unmatched == messages");
        messages += sum;
    }
    tp_correlator_view_free(&view);
    return messages;
}

static void *polls(void *unused) {
    while (!stop)
        tp_correlator_poll(correlator, -1);
    return unused;
}

static void *snapshots(void *unused) {
    while (!stop)
        snapshot();
    return unused;
}

static void *attaches(void *unused) {
    char why[256];
    while (!stop) {
        int ring = tp_correlator_attach(correlator, path, false, why, sizeof(why));
        require(ring >= 0, "a second reader is attached");
        tp_correlator_alive(correlator, (uint32_t)ring);
        tp_correlator_inode(correlator, (uint32_t)ring);
        require(tp_correlator_detach(correlator, (uint32_t)ring) == 0, "and detached");
    }
    return unused;
}

static void *fetches(void *unused) {
    struct tp_joined out[16];
    while (!stop)
        tp_correlator_joined(correlator, out, 16);
    return unused;
}

int main(int argc, char **argv) {
    static void *(*const jobs[])(void *) = {polls, polls, snapshots, attaches, fetches};
    const struct tp_correlator_limits limits = {.window_ns = 1000000,
                                                .match = TP_METHOD_OFFSET,
                                                .connections = 16,
                                                .segments = 64,
                                                .pending = 64,
                                                .labels = 4,
                                                .series = 64,
                                                .joined = 64,
                                                .memory_bytes = 1 << 20};
    enum { THREADS = sizeof(jobs) / sizeof(*jobs) };
    pthread_t threads[THREADS];
    struct tp_ring_writer writer;
    struct tp_row row = {.cookie = 7, .venue = "test", .feed = "a"};
    char why[256];
    require(argc == 3, "usage: correlator_threads RING MESSAGES");
    path = argv[1];
    require(tp_ring_create(&writer, path, "feed", 1 << 16, 4, why, sizeof(why)) == 0, "a ring is made");
    correlator = tp_correlator_new(&limits, true);
    require(correlator && tp_correlator_attach(correlator, path, true, why, sizeof(why)) >= 0, "and attached");
    struct tp_event event = {.kind = TP_KIND_MESSAGE,
                             .clock = TP_CLOCK_MONOTONIC,
                             .source = TP_TIER_A,
                             .flags = TP_MESSAGE_HAS_PARSED,
                             .row = tp_ring_row_open(&writer, &row)};
    for (int at = 0; at < THREADS; at++)
        require(pthread_create(&threads[at], NULL, jobs[at], NULL) == 0, "a thread starts");
    for (uint32_t number = 0; number < strtoul(argv[2], NULL, 10); number++) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        event.time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
        event.message.ordinal = number;
        event.message.end = 100 * (uint64_t)(number + 1);
        tp_ring_write(&writer, &event);
    }
    while (snapshot() == 0) {
    }
    stop = true;
    for (int at = 0; at < THREADS; at++)
        pthread_join(threads[at], NULL);
    tp_ring_close(&writer);
    tp_correlator_poll(correlator, -1);
    tp_correlator_flush(correlator, -1);
    printf("%llu\n", (unsigned long long)snapshot());
    tp_correlator_delete(correlator);
    return 0;
}
