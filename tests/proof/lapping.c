/* SPDX-License-Identifier: Apache-2.0
 *
 * One producer and one reader that laps and is lapped, in two processes or two threads: every word of every record and
 * row is a function of its number, every record is received or counted lost.
 *
 * Usage: lapping RING COUNT processes|threads. Prints records received and lost, rows read and refused; 1 at the first
 * thing that is wrong.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tickpath/ring.h"

#define WORDS (TP_RECORD_BYTES / 8)
#define ROW_WORDS (TP_ROW_BYTES / 8)
#define ROW_EVERY 8

static struct tp_ring_writer writer;
static uint32_t row_handle;

static void require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        exit(1);
    }
}

static void fill_row(struct tp_row *row, uint64_t number) {
    uint64_t words[ROW_WORDS];
    for (unsigned word = 0; word < ROW_WORDS; word++) {
        words[word] = number * (2 * word + 1);
    }
    memcpy(row, words, sizeof(*row));
}

static void *produce(void *count_of) {
    uint64_t count = *(const uint64_t *)count_of;
    union tp_slot record;
    for (uint64_t done = 0; done < count; done++) {
        uint64_t number = writer.head + 1;
        for (unsigned word = 1; word < WORDS; word++) {
            record.words[word] = number * (2 * word + 1);
        }
        record.event.kind = TP_KIND_MESSAGE;
        tp_ring_write(&writer, &record.event);
        tp_ring_count(&writer, TP_COUNT_MESSAGES, 1);
        if (done % ROW_EVERY == 0) {
            struct tp_row row;
            fill_row(&row, number);
            tp_ring_row_update(&writer, row_handle, &row);
        }
    }
    record.event.kind = TP_KIND_BYE;
    tp_ring_write(&writer, &record.event);
    return NULL;
}

static void check_record(const struct tp_event *event) {
    const union tp_slot *record = (const union tp_slot *)event;
    for (unsigned word = 1; word < WORDS; word++) {
        uint64_t expected = event->seq * (2 * word + 1);
        uint64_t kind = word == 1 ? 0xff : 0; /* the lowest byte of word 1 is the kind */
        require((record->words[word] & ~kind) == (expected & ~kind), "a record is whole and the one it says it is");
    }
}

static void check_row(const struct tp_row *row) {
    uint64_t words[ROW_WORDS];
    memcpy(words, row, sizeof(words));
    uint64_t number = words[1] / 3;
    for (unsigned word = 1; word < ROW_WORDS; word++) {
        /* closed_ns is the ring's own */
        require(word == offsetof(struct tp_row, closed_ns) / 8 || words[word] == number * (2 * word + 1),
                "a row is whole");
    }
}

int main(int argc, char **argv) {
    require(argc == 4, "usage: lapping RING COUNT processes|threads");
    char why[256];
    struct tp_ring_reader reader;
    struct tp_row row;
    struct tp_event out[8];
    uint64_t count = strtoull(argv[2], NULL, 10), received = 0, last = 0, rows = 0, refused = 0;
    bool threads = strcmp(argv[3], "threads") == 0;
    pthread_t thread;

    require(tp_ring_create(&writer, argv[1], "feed", TP_RING_MIN_CAPACITY, 1, why, sizeof(why)) == 0, "it is made");
    require(tp_ring_attach(&reader, argv[1], why, sizeof(why)) == 0, "it is attached");
    fill_row(&row, 1);
    row_handle = tp_ring_row_open(&writer, &row);
    uint64_t start = reader.cursor;
    pid_t child = threads ? 0 : fork();
    if (threads) {
        require(pthread_create(&thread, NULL, produce, &count) == 0, "a thread starts");
    } else if (child == 0) {
        produce(&count);
        _exit(0);
    }
    struct tp_ring_reader mapped = reader;
    if (threads) {
        /* ThreadSanitizer knows memory by its address: both sides on one mapping, or it sees nothing. */
        reader.header = writer.header;
        reader.row_table = writer.row_table;
        reader.slots = writer.slots;
    }
    for (bool ended = false; !ended;) {
        size_t taken = tp_ring_read(&reader, out, sizeof(out) / sizeof(*out));
        for (size_t at = 0; at < taken; at++) {
            require(out[at].seq > last, "records come in order");
            last = out[at].seq;
            if (out[at].kind == TP_KIND_BYE) {
                ended = true;
            } else {
                check_record(&out[at]);
            }
        }
        received += taken;
        if (tp_ring_row(&reader, row_handle, &row) == 0) {
            check_row(&row);
            rows++;
        } else {
            refused++;
        }
    }
    require(received + reader.lost == last - start, "every record was received or counted lost");
    require(last - start == count + 1, "and there are as many as were written, and BYE");
    if (threads) {
        pthread_join(thread, NULL);
    } else {
        int status;
        require(waitpid(child, &status, 0) == child && status == 0, "the producer ended well");
    }
    require(tp_ring_counter(&reader, TP_COUNT_MESSAGES) == count, "the running total is right");
    printf("%llu %llu %llu %llu\n", (unsigned long long)received, (unsigned long long)reader.lost,
           (unsigned long long)rows, (unsigned long long)refused);
    tp_ring_detach(&mapped);
    tp_ring_close(&writer);
    return 0;
}
