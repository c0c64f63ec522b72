/* SPDX-License-Identifier: Apache-2.0
 *
 * The loader. Nothing is pinned: with the process go its descriptors, and with them the links.
 */
#include "tracer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* Events came in while this one was being taken: the drain is over, not failed. */
#define ENOUGH (-EAGAIN)
/* Longer than any processor stands still. */
#define LAST_NS INT64_C(10000000000)

static int take(void *context, void *data, size_t bytes);

/* Of rungs that are attached. */
static int open_events(struct tp_tracer *tracer, char *why, size_t why_bytes) {
    tracer->processors = libbpf_num_possible_cpus();
    tracer->values = calloc(tracer->processors > 0 ? (size_t)tracer->processors : 1, sizeof(*tracer->values));
    tracer->events = ring_buffer__new(tracer->rungs.maps[TP_SHARED_EVENTS], take, tracer, NULL);
    int error = tracer->processors > 0 && tracer->values && tracer->events
                    ? tp_kernel_passed_open(&tracer->passed, tracer->rungs.maps[TP_SHARED_EVENTS])
                    : -ENOMEM;
    if (!error)
        return 0;
    snprintf(why, why_bytes, "mapping the BPF ring buffer: %s", strerror(-error));
    tp_rungs_close(&tracer->rungs);
    ring_buffer__free(tracer->events);
    free(tracer->values);
    *tracer = (struct tp_tracer){0};
    return error;
}

int tp_tracer_open(struct tp_tracer *tracer, const struct tp_rungs_wanted *wanted, char *why, size_t why_bytes) {
    *tracer = (struct tp_tracer){0};
    int error = tp_rungs_attach(&tracer->rungs, wanted, why, why_bytes);
    return error ? error : open_events(tracer, why, why_bytes);
}

int tp_tracer_adopt(struct tp_tracer *tracer, const struct tp_adopted *adopted, char *why, size_t why_bytes) {
    *tracer = (struct tp_tracer){0};
    tp_rungs_adopt(&tracer->rungs, adopted);
    return open_events(tracer, why, why_bytes);
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* In the table, where a reader finds it that comes late. */
static void tell_modes(struct tp_tracer *tracer) {
    struct tp_row row = {.flags = TP_ROW_PROBE, .opened_ns = monotonic_ns(), .feed = "kernel"};
    size_t used = 0;
    for (int i = 0; i < TP_HOOKS && used < sizeof(row.stream); i++)
        used += (size_t)snprintf(row.stream + used, sizeof(row.stream) - used, "%s%s=%s", i ? " " : "",
                                 tp_hook_name((enum tp_hook)i), tp_mode_name(tracer->rungs.hooks[i].mode));
    tp_ring_row_open(tracer->ring, &row);
}

int tp_tracer_write_to(struct tp_tracer *tracer, struct tp_ring_writer *ring, uint32_t rows) {
    tracer->ring = ring;
    tell_modes(tracer);
    return tp_kernel_sockets_create(&tracer->sockets, ring, rows);
}

/* ---- records ---- */

static struct tp_row row_of(const struct tp_kernel_opened *opened, uint64_t cookie, bool has_irs) {
    struct tp_row row = {.flags = has_irs ? TP_ROW_HAS_IRS : 0, .irs = opened->irs, .netns = opened->netns};
    row.cookie = cookie;
    row.opened_ns = opened->event.time_ns;
    memcpy(row.local, opened->local, sizeof(row.local));
    memcpy(row.remote, opened->remote, sizeof(row.remote));
    row.local_port = opened->local_port;
    row.remote_port = opened->remote_port;
    return row;
}

static uint32_t open_row(struct tp_tracer *tracer, const struct tp_kernel_opened *opened) {
    struct tp_row row = row_of(opened, opened->event.connection.cookie, true);
    return tp_kernel_sockets_open(&tracer->sockets, row.cookie, &row);
}

/* Its connection's row now has the name of who made it. One that has no connection here has a row of its own, for as
 * long as no other needs it. */
static uint32_t connect_row(struct tp_tracer *tracer, const struct tp_kernel_connect *told) {
    const struct tp_connect *connect = &told->opened.event.connect;
    bool opened = connect->result == TP_CONNECT_OPENED, known = opened && connect->cookie;
    bool has_irs = opened && tracer->rungs.hooks[TP_HOOK_STATE].mode != TP_MODE_BCC;
    struct tp_row row = row_of(&told->opened, connect->cookie, has_irs);
    static_assert(sizeof(row.comm) == sizeof(told->comm), "a task's name fits");
    memcpy(row.comm, told->comm, sizeof(row.comm));
    uint32_t handle = known ? tp_kernel_sockets_row(&tracer->sockets, connect->cookie) : TP_ROW_NONE;
    if (handle != TP_ROW_NONE) {
        tp_ring_row_update(tracer->ring, handle, &row);
        return handle;
    }
    handle = tp_ring_row_open(tracer->ring, &row);
    tp_ring_row_close(tracer->ring, handle, row.opened_ns);
    return handle;
}

static int take(void *context, void *data, size_t bytes) {
    struct tp_tracer *tracer = context;
    struct tp_event event;
    enum tp_hook hook = TP_HOOK_STATE;
    (void)bytes; /* the programs of this build write no other sizes; configure() refuses another's */
    memcpy(&event, data, sizeof(event));
    switch (event.kind) {
    case TP_KIND_OPENED:
        event.row = open_row(tracer, data);
        break;
    case TP_KIND_CLOSED:
        event.row = tp_kernel_sockets_close(&tracer->sockets, event.connection.cookie, event.time_ns);
        break;
    case TP_KIND_CONNECT:
        event.row = connect_row(tracer, data);
        break;
    default:
        event.row = tp_kernel_sockets_row(&tracer->sockets, event.interval.cookie);
        hook = event.kind == TP_KIND_COPIED ? TP_HOOK_COPIED : TP_HOOK_READABLE;
    }
    tp_kernel_cost_told(&tracer->cost, hook);
    tp_ring_write(tracer->ring, &event);
    return ++tracer->taken >= TP_KERNEL_DRAIN ? ENOUGH : 0;
}

static int drain(struct tp_tracer *tracer) {
    tracer->taken = 0;
    int result = ring_buffer__consume(tracer->events);
    return result < 0 && result != ENOUGH ? result : 0;
}

/* Once nothing is attached. A record that a processor is still filling holds up those behind it: it stands still amid a
 * program, and goes on. */
static int drain_all(struct tp_tracer *tracer) {
    int64_t until_ns = monotonic_ns() + LAST_NS;
    int error = drain(tracer);
    while (!error && tp_kernel_passed_left_over(&tracer->passed) && monotonic_ns() < until_ns) {
        if (!tracer->taken)
            poll(NULL, 0, 1);
        error = drain(tracer);
    }
    return error;
}

/* ---- totals ---- */

static uint64_t total_of(const struct tp_tracer *tracer, uint32_t counter) {
    uint64_t total = 0;
    if (bpf_map_lookup_elem(tracer->rungs.maps[TP_SHARED_COUNTERS], &counter, tracer->values) == 0)
        for (int i = 0; i < tracer->processors; i++)
            total += tracer->values[i];
    return total;
}

/* Runs that the kernel left out, because the same program was running on that processor already, and for which none
 * stands in. */
static uint64_t runs_left_out(const struct tp_tracer *tracer) {
    uint64_t left_out = 0;
    for (int i = 0; i < TP_HOOKS * TP_HOOK_PROGRAMS; i++) {
        struct bpf_prog_info info = {0};
        uint32_t bytes = sizeof(info);
        const struct tp_attached *hook = &tracer->rungs.hooks[i / TP_HOOK_PROGRAMS];
        int program = hook->programs[i % TP_HOOK_PROGRAMS];
        if (!hook->stands_in && program >= 0 && bpf_obj_get_info_by_fd(program, &info, &bytes) == 0)
            left_out += info.recursion_misses;
    }
    return left_out;
}

static void add(const struct tp_tracer *tracer, enum tp_counter counter, uint64_t total, uint64_t *before) {
    if (total > *before) {
        tp_ring_count(tracer->ring, counter, total - *before);
        *before = total;
    }
}

static void count(struct tp_tracer *tracer) {
    add(tracer, TP_COUNT_EVENTS_LOST, total_of(tracer, TP_KERNEL_LOST), &tracer->lost);
    add(tracer, TP_COUNT_RUNS_LEFT_OUT, runs_left_out(tracer), &tracer->left_out);
    add(tracer, TP_COUNT_UNSUPPORTED_TRANSPORT, total_of(tracer, TP_KERNEL_UNSUPPORTED), &tracer->unsupported);
    add(tracer, TP_COUNT_OUT_OF_ORDER, total_of(tracer, TP_KERNEL_OUT_OF_ORDER), &tracer->out_of_order);
    add(tracer, TP_COUNT_RETRANSMITS, total_of(tracer, TP_KERNEL_RETRANSMITS), &tracer->retransmits);
    add(tracer, TP_COUNT_NO_COOKIE, total_of(tracer, TP_KERNEL_NO_COOKIE), &tracer->no_cookie);
    tp_kernel_cost_count(&tracer->cost, &tracer->rungs, tracer->ring);
}

/* ---- the loop ---- */

int tp_tracer_run(struct tp_tracer *tracer, int stop_fd, int interval_ms) {
    struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
    int64_t counted_ns = 0;
    int error = 0, ready = 0;
    while (!error && ready == 0) {
        tp_kernel_passed_begin(&tracer->passed, monotonic_ns());
        error = drain(tracer);
        tp_kernel_passed_end(&tracer->passed, tracer->taken == 0, tracer->ring);
        int64_t now_ns = monotonic_ns();
        if (now_ns - counted_ns > INT64_C(100000000)) {
            count(tracer);
            counted_ns = now_ns;
            if (!error && tp_ring_writer_truncated(tracer->ring))
                error = -ESTALE;
        }
        bool more = tracer->taken >= TP_KERNEL_DRAIN;
        ready = poll(&stop, 1, more ? 0 : interval_ms);
        if (ready < 0)
            ready = errno == EINTR ? 0 : -errno;
    }
    tp_rungs_detach(&tracer->rungs);
    error = error ? error : drain_all(tracer);
    count(tracer);
    return error ? error : ready < 0 ? ready : 0;
}

void tp_tracer_close(struct tp_tracer *tracer) {
    if (!tracer->events)
        return;
    tp_rungs_close(&tracer->rungs);
    tp_kernel_passed_close(&tracer->passed);
    tp_kernel_cost_close(&tracer->cost);
    ring_buffer__free(tracer->events);
    free(tracer->values);
    tp_kernel_sockets_destroy(&tracer->sockets);
    *tracer = (struct tp_tracer){0};
}
