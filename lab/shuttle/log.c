/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "lab/shuttle/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define WINDOW_RECORDS 8192u
#define WINDOW_BYTES (WINDOW_RECORDS * sizeof(struct tp_truth))

/* @return NULL with errno set. */
static void *map(const struct tp_log *log, uint64_t offset, uint64_t bytes) {
    /* Allocated before it is touched: no memory is then an error here and not a SIGBUS later. */
    if (fallocate(log->fd, 0, (off_t)offset, (off_t)bytes))
        return NULL;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, log->fd, (off_t)offset);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static int move_window(struct tp_log *log) {
    struct tp_truth *window = map(log, TP_TRUTH_HEADER_BYTES + log->records * sizeof(struct tp_truth), WINDOW_BYTES);
    if (!window)
        return -errno;
    if (log->window)
        munmap(log->window, WINDOW_BYTES);
    log->window = window;
    return 0;
}

int tp_log_open(struct tp_log *log, int fd) {
    *log = (struct tp_log){.fd = fd};
    log->header = map(log, 0, TP_TRUTH_HEADER_BYTES);
    return log->header ? move_window(log) : -errno;
}

int tp_log_append(struct tp_log *log, const struct tp_truth *record) {
    uint64_t at = log->records % WINDOW_RECORDS;
    if (at == 0 && log->records) {
        int error = move_window(log);
        if (error)
            return error;
    }
    log->window[at] = *record;
    log->records++;
    atomic_store_explicit(&log->header->records, log->records, memory_order_release);
    return 0;
}

void tp_log_close(struct tp_log *log) {
    if (log->window)
        munmap(log->window, WINDOW_BYTES);
    if (log->header)
        munmap(log->header, TP_TRUTH_HEADER_BYTES);
}
