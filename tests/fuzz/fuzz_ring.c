/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a ring file, changed and cut short under its reader, then taken over by a producer: each step succeeds
 * or says why in one line.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "tickpath/ring.h"

#define CAPACITY 16
#define ROWS 2
#define BYTES (4096 + 4096 + CAPACITY * TP_RECORD_BYTES)

static char path[64];
static uint8_t whole[BYTES];

static void forget(void) {
    unlink(path);
}

/* A ring as a producer leaves it. */
static void make_template(void) {
    struct tp_ring_writer writer;
    struct tp_row row = {.cookie = 7};
    struct tp_event event = {.kind = TP_KIND_MESSAGE, .time_ns = 1};
    char why[256];
    snprintf(path, sizeof(path), "/dev/shm/tickpath-fuzz-%d.ring", (int)getpid());
    atexit(forget);
    must(tp_ring_create(&writer, path, "feed", CAPACITY, ROWS, why, sizeof(why)) == 0, "a ring is made");
    event.row = tp_ring_row_open(&writer, &row);
    for (int done = 0; done < 40; done++)
        tp_ring_write(&writer, &event);
    int fd = open(path, O_RDONLY);
    must(read(fd, whole, sizeof(whole)) == BYTES, "its size is what it is thought to be");
    close(fd);
    tp_ring_close(&writer);
}

/* Writes over parts of the file what the input says. */
static void change(struct input *input, int fd) {
    for (unsigned left = (unsigned)take_number(input, 1) % 8; left > 0; left--) {
        uint8_t piece[64];
        off_t at = (off_t)take_number(input, 2);
        size_t size = take_number(input, 1) % sizeof(piece) + 1;
        take(input, piece, size);
        if (at >= 10000) /* most of a ring is slots; its telling words are named here */
            at = (off_t[]){0, 8, 24, 208, 256, 4096, 8192, 8256}[at % 8];
        must(pwrite(fd, piece, size, at) == (ssize_t)size, "the file is written");
    }
}

static void one_line(const char *why) {
    must(why[0] != 0 && strchr(why, '\n') == NULL, "the reason is one line");
}

static void use(struct tp_ring_reader *reader) {
    struct tp_event out[24];
    struct tp_row row;
    uint32_t handle;
    for (int turn = 0; turn < 4; turn++) {
        uint64_t cursor = reader->cursor, lost = reader->lost;
        size_t taken = tp_ring_read(reader, out, 24);
        must(taken <= 24, "no more than there is room for");
        must(reader->cursor - cursor == taken + (reader->lost - lost), "received and lost add up");
        for (size_t at = 0; at < taken; at++)
            (void)tp_ring_row(reader, out[at].row, &row);
    }
    for (uint32_t index = 0; index < ROWS + 1; index++)
        (void)tp_ring_row_at(reader, index, &row, &handle);
    (void)tp_ring_counter(reader, TP_COUNTERS - 1);
    must(tp_ring_alive(reader) == 0, "nobody holds it");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    struct input input = {bytes, size};
    struct tp_ring_reader reader;
    struct tp_ring_writer writer;
    char why[256] = "";
    if (!path[0])
        make_template();
    forget();
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    must(fd >= 0 && write(fd, whole, sizeof(whole)) == BYTES, "the file is made");
    uint64_t how = take_number(&input, 1);
    change(&input, fd);
    if (how % 8 == 0)
        must(ftruncate(fd, (off_t)take_number(&input, 2) % (2 * BYTES)) == 0, "the file is cut");
    if (tp_ring_attach(&reader, path, why, sizeof(why)) == 0) {
        if (how & 16)
            tp_ring_rewind(&reader);
        use(&reader);
        change(&input, fd);
        use(&reader);
        if (how & 32) {
            must(ftruncate(fd, (off_t)take_number(&input, 2) % BYTES) == 0, "the file is cut under it");
            use(&reader);
            must(ftruncate(fd, BYTES) == 0, "and grows again");
        }
        tp_ring_detach(&reader);
    } else {
        one_line(why);
    }
    close(fd);
    if (tp_ring_create(&writer, path, "feed", CAPACITY, ROWS, why, sizeof(why)) == 0) {
        struct tp_row row = {.cookie = 9}, back;
        struct tp_event event = {.kind = TP_KIND_MESSAGE, .row = tp_ring_row_open(&writer, &row)}, out[4];
        must(event.row != TP_ROW_NONE, "a predecessor's rows are free");
        must(tp_ring_attach(&reader, path, why, sizeof(why)) == 0, "the successor's ring is good");
        tp_ring_write(&writer, &event);
        must(tp_ring_read(&reader, out, 4) == 1 && out[0].row == event.row, "its record is read");
        must(tp_ring_row(&reader, event.row, &back) == 0 && back.cookie == 9, "and its row");
        tp_ring_detach(&reader);
        tp_ring_close(&writer);
    } else {
        one_line(why);
    }
    return 0;
}
