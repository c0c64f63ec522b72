/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel hands out room in its buffer in the order of calls, and moves a position on; the reader moves another.
 */
#include "passed.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* A message of a connection that is not selected waits so long for nothing. */
#define EVERY_NS INT64_C(20000000)

int tp_kernel_passed_open(struct tp_kernel_passed *passed, int events_fd) {
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    /* The reader's page, then the kernel's (kernel/bpf/ringbuf.c). */
    void *pages = mmap(NULL, 2 * page_bytes, PROT_READ, MAP_SHARED, events_fd, 0);
    if (pages == MAP_FAILED)
        return -errno;
    *passed = (struct tp_kernel_passed){.pages = pages, .page_bytes = page_bytes};
    return 0;
}

void tp_kernel_passed_close(struct tp_kernel_passed *passed) {
    if (passed->pages)
        munmap(passed->pages, 2 * passed->page_bytes);
    passed->pages = NULL;
}

static uint64_t position(const struct tp_kernel_passed *passed, unsigned page) {
    const unsigned long *at = (const void *)((const char *)passed->pages + page * passed->page_bytes);
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

bool tp_kernel_passed_left_over(const struct tp_kernel_passed *passed) {
    return position(passed, 0) < position(passed, 1);
}

void tp_kernel_passed_begin(struct tp_kernel_passed *passed, int64_t now_ns) {
    passed->began_ns = now_ns; /* read before the position: what was over by then is before it */
    passed->reserved = position(passed, 1);
}

void tp_kernel_passed_end(struct tp_kernel_passed *passed, bool quiet, struct tp_ring_writer *ring) {
    /* A record that another processor is still filling holds up those behind it. */
    if (!quiet || passed->began_ns - passed->told_ns < EVERY_NS || position(passed, 0) < passed->reserved)
        return;
    struct tp_event event = {
        .kind = TP_KIND_PASSED,
        .clock = TP_CLOCK_MONOTONIC,
        .row = TP_ROW_NONE,
        .time_ns = passed->began_ns,
    };
    tp_ring_write(ring, &event);
    passed->told_ns = passed->began_ns;
}
