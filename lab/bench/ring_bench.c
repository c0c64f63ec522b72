/* SPDX-License-Identifier: Apache-2.0
 *
 * A writer process and a reader process on either end of a ring, or of a bare array of lines.
 */
#define _GNU_SOURCE
#include "lab/bench/ring_bench.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tickpath/ring.h"

#define BATCH 256u
/* A reader that found nothing waits so long before it looks again, as every reader of ours does (the exporter: longer).
 * One that asks without rest takes the line that is being written away from its writer, for each record. */
#define REST_NS 20000

struct meeting {
    _Atomic uint32_t ready;
    _Atomic uint32_t go;
    _Atomic uint32_t done;
    uint32_t real_time;
    uint64_t written;
    uint64_t preempted;
    int64_t started_ns;
    _Alignas(64) _Atomic uint64_t taken; /* bare: the writer may not overtake it */
};

struct bare_slot {
    _Alignas(64) _Atomic uint64_t words[TP_RECORD_BYTES / 8];
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t preempted(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_nivcsw : 0;
}

static bool settle(int cpu, bool real_time) {
    if (cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    struct sched_param first = {.sched_priority = 1};
    return real_time && sched_setscheduler(0, SCHED_FIFO, &first) == 0;
}

/* Every word tells which record it belongs to. */
static inline void fill(struct tp_event *event, uint64_t number) {
    event->kind = TP_KIND_SEGMENT;
    event->time_ns = (int64_t)number;
    for (int word = 0; word < 5; word++)
        event->words[word] = number;
}

static inline bool whole(const struct tp_event *event) {
    uint64_t differ = 0;
    for (int word = 0; word < 5; word++)
        differ |= event->words[word] ^ (uint64_t)event->time_ns;
    return differ == 0;
}

static inline void bare_write(struct bare_slot *slots, uint64_t mask, uint64_t number, const struct tp_event *event) {
    struct bare_slot *slot = &slots[(number - 1) & mask];
    uint64_t words[TP_RECORD_BYTES / 8];
    memcpy(words, event, sizeof words);
    for (unsigned word = 1; word < TP_RECORD_BYTES / 8; word++)
        atomic_store_explicit(&slot->words[word], words[word], memory_order_relaxed);
    atomic_store_explicit(&slot->words[0], number, memory_order_release);
}

static size_t bare_read(const struct bare_slot *slots, uint64_t mask, uint64_t *cursor, struct tp_event *out,
                        size_t max) {
    size_t taken = 0;
    for (; taken < max; taken++) {
        const struct bare_slot *slot = &slots[*cursor & mask];
        if (atomic_load_explicit(&slot->words[0], memory_order_acquire) != *cursor + 1)
            break;
        uint64_t words[TP_RECORD_BYTES / 8];
        for (unsigned word = 0; word < TP_RECORD_BYTES / 8; word++)
            words[word] = atomic_load_explicit(&slot->words[word], memory_order_relaxed);
        memcpy(&out[taken], words, sizeof words);
        ++*cursor;
    }
    return taken;
}

static void write_records(const struct tp_bench_ring_plan *plan, struct meeting *meeting, struct tp_ring_writer *ring,
                          struct bare_slot *slots) {
    struct tp_event event = {0};
    uint64_t number = 0, allowed = plan->rate ? 0 : UINT64_MAX, room = plan->capacity;
    int64_t started = now_ns(), until = started + plan->duration_ns, now = started;
    meeting->started_ns = started;
    while (now < until) {
        for (unsigned n = 0; n < BATCH && number < allowed; n++) {
            fill(&event, ++number);
            if (plan->path == TP_BENCH_RING) {
                tp_ring_write(ring, &event);
                continue;
            }
            while (number > room)
                room = atomic_load_explicit(&meeting->taken, memory_order_acquire) + plan->capacity;
            bare_write(slots, plan->capacity - 1, number, &event);
        }
        now = now_ns();
        if (plan->rate)
            allowed = (uint64_t)((double)(now - started) * 1e-9 * (double)plan->rate);
    }
    meeting->written = number;
}

static void writer_process(const struct tp_bench_ring_plan *plan, struct meeting *meeting, struct tp_ring_writer *ring,
                           struct bare_slot *slots) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    meeting->real_time = settle(plan->writer_cpu, plan->real_time);
    uint64_t before = preempted();
    atomic_store(&meeting->ready, 1);
    while (!atomic_load(&meeting->go))
        ;
    write_records(plan, meeting, ring, slots);
    meeting->preempted = preempted() - before;
    atomic_store(&meeting->done, 1);
    _exit(0);
}

static void read_records(const struct tp_bench_ring_plan *plan, struct meeting *meeting, struct tp_ring_reader *ring,
                         const struct bare_slot *slots, struct tp_bench_ring_result *result) {
    struct tp_event batch[BATCH];
    uint64_t cursor = 0;
    bool done = false;
    atomic_store(&meeting->go, 1);
    for (;;) {
        size_t taken = plan->path == TP_BENCH_RING ? tp_ring_read(ring, batch, BATCH)
                                                   : bare_read(slots, plan->capacity - 1, &cursor, batch, BATCH);
        for (size_t at = 0; at < taken; at++)
            result->wrong += !whole(&batch[at]);
        result->received += taken;
        if (plan->path == TP_BENCH_BARE && taken)
            atomic_store_explicit(&meeting->taken, cursor, memory_order_release);
        if (taken == 0) {
            if (done)
                break;
            int64_t until = plan->restless ? 0 : now_ns() + REST_NS;
            while (now_ns() < until && !atomic_load_explicit(&meeting->done, memory_order_relaxed))
                ;
            /* What was written before `done` is seen by one more look. */
            done = atomic_load(&meeting->done);
        }
    }
    result->elapsed_ns = now_ns() - meeting->started_ns;
}

static int fail(char *why, size_t why_bytes, int error, const char *what) {
    snprintf(why, why_bytes, "%s: %s", what, strerror(error));
    return -error;
}

static int measure(const struct tp_bench_ring_plan *plan, struct meeting *meeting, struct tp_ring_writer *writer,
                   struct tp_ring_reader *reader, struct bare_slot *slots, struct tp_bench_ring_result *result,
                   char *why, size_t why_bytes) {
    pid_t child = fork();
    if (child < 0)
        return fail(why, why_bytes, errno, "cannot fork the writer");
    if (child == 0)
        writer_process(plan, meeting, writer, slots);
    cpu_set_t mine;
    sched_getaffinity(0, sizeof mine, &mine);
    uint64_t before = preempted();
    while (!atomic_load(&meeting->ready) && waitpid(child, NULL, WNOHANG) == 0)
        sched_yield();
    bool real_time = settle(plan->reader_cpu, plan->real_time);
    read_records(plan, meeting, reader, slots, result);
    struct sched_param none = {0};
    sched_setscheduler(0, SCHED_OTHER, &none);
    sched_setaffinity(0, sizeof mine, &mine);
    int status = 0;
    waitpid(child, &status, 0);
    result->preempted = preempted() - before + meeting->preempted;
    result->written = meeting->written;
    result->real_time = real_time && meeting->real_time;
    return status == 0 ? 0 : fail(why, why_bytes, EIO, "the writer process failed");
}

int tp_bench_ring(const struct tp_bench_ring_plan *plan, struct tp_bench_ring_result *result, char *why,
                  size_t why_bytes) {
    struct tp_ring_writer writer;
    struct tp_ring_reader reader;
    bool ring = plan->path == TP_BENCH_RING, made = false, attached = false;
    size_t slots_bytes = plan->capacity * sizeof(struct bare_slot);
    struct bare_slot *slots = MAP_FAILED;
    struct meeting *meeting;
    int error = 0;
    memset(result, 0, sizeof *result);
    meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (meeting == MAP_FAILED)
        return fail(why, why_bytes, errno, "no shared memory");
    if (ring) {
        error = tp_ring_create(&writer, plan->file, "bench", plan->capacity, 1, why, why_bytes);
        if (error)
            goto cleanup;
        made = true;
        error = tp_ring_attach(&reader, plan->file, why, why_bytes);
        if (error)
            goto cleanup;
        attached = true;
    } else {
        slots = mmap(NULL, slots_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (slots == MAP_FAILED) {
            error = fail(why, why_bytes, errno, "no shared memory");
            goto cleanup;
        }
    }
    error = measure(plan, meeting, &writer, &reader, slots, result, why, why_bytes);
    if (attached)
        result->lost = reader.lost;

cleanup:
    if (slots != MAP_FAILED)
        munmap(slots, slots_bytes);
    if (attached)
        tp_ring_detach(&reader);
    if (made)
        tp_ring_close(&writer);
    munmap(meeting, sizeof *meeting);
    return error;
}
