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
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#define LOG_BYTES (1u << 16)

/* Events came in while this one was being taken: the drain is over, not failed. */
#define ENOUGH (-EAGAIN)

static const struct {
    const char *program;
    const char *tracepoint;
} hooks[TP_KERNEL_HOOKS] = {
    {"tp_readable", "sk_data_ready"},
    {"tp_copied", "tcp_rcv_space_adjust"},
    {"tp_state", "inet_sock_set_state"},
};

static int failed(int error, const char *what, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "%s: %s", what, strerror(-error));
    return error;
}

/* The kernel's types tell which tracepoints it has; its version does not. */
static int check_hooks(char *why, size_t why_bytes) {
    struct btf *btf = btf__load_vmlinux_btf();
    int error = 0;
    if (!btf) {
        snprintf(why, why_bytes, "this kernel publishes no types of its own (/sys/kernel/btf/vmlinux)");
        return -ENOENT;
    }
    for (int i = 0; i < TP_KERNEL_HOOKS && !error; i++) {
        char name[64];
        snprintf(name, sizeof(name), "btf_trace_%s", hooks[i].tracepoint);
        if (btf__find_by_name_kind(btf, name, BTF_KIND_TYPEDEF) < 0) {
            snprintf(why, why_bytes, "this kernel has no tracepoint %s", hooks[i].tracepoint);
            error = -EOPNOTSUPP;
        }
    }
    btf__free(btf);
    return error;
}

static int configure(struct bpf_object *object, const struct tp_kernel_config *config, uint32_t buffer_bytes) {
    struct bpf_map *events = bpf_object__find_map_by_name(object, "events");
    struct bpf_map *constants = bpf_object__find_map_by_name(object, ".rodata");
    if (!events || !constants)
        return -EINVAL;
    int error = bpf_map__set_initial_value(constants, config, sizeof(*config)); /* refuses another size */
    if (error)
        return error;
    return bpf_map__set_max_entries(events, buffer_bytes);
}

/* The verifier's last words before its statistics. */
static void quote(const char *log, char *why, size_t why_bytes) {
    const char *last = NULL, *at = log;
    while (*at) {
        size_t length = strcspn(at, "\n");
        if (length && strncmp(at, "processed ", 10) != 0)
            last = at;
        at += length + (at[length] == '\n');
    }
    size_t used = strlen(why);
    if (last && used < why_bytes)
        snprintf(why + used, why_bytes - used, " (%.*s)", (int)strcspn(last, "\n"), last);
}

static int take(void *context, void *data, size_t bytes);

int tp_tracer_load(struct tp_tracer *tracer, const char *path, const struct tp_kernel_config *config,
                   uint32_t buffer_bytes, char *why, size_t why_bytes) {
    char *log = calloc(1, LOG_BYTES);
    int error = log ? check_hooks(why, why_bytes) : failed(-ENOMEM, "verifier log", why, why_bytes);
    *tracer = (struct tp_tracer){.counters_fd = -1};
    if (error)
        goto cleanup;
    libbpf_set_print(NULL); /* what it would say on stderr is in `why` */
    LIBBPF_OPTS(bpf_object_open_opts, options, .kernel_log_buf = log, .kernel_log_size = LOG_BYTES);
    tracer->object = bpf_object__open_file(path, &options);
    if (!tracer->object) {
        error = failed(-errno, path, why, why_bytes);
        goto cleanup;
    }
    error = configure(tracer->object, config, buffer_bytes);
    if (error) {
        failed(error, "configuring the BPF programs", why, why_bytes);
        goto cleanup;
    }
    error = bpf_object__load(tracer->object);
    if (error) {
        failed(error, "loading the BPF programs", why, why_bytes);
        quote(log, why, why_bytes);
        goto cleanup;
    }
    for (int i = 0; i < TP_KERNEL_HOOKS; i++)
        tracer->programs[i] = bpf_program__fd(bpf_object__find_program_by_name(tracer->object, hooks[i].program));
    tracer->counters_fd = bpf_object__find_map_fd_by_name(tracer->object, "counters");
    tracer->processors = libbpf_num_possible_cpus();
    tracer->values = calloc(tracer->processors > 0 ? (size_t)tracer->processors : 1, sizeof(*tracer->values));
    tracer->events = ring_buffer__new(bpf_object__find_map_fd_by_name(tracer->object, "events"), take, tracer, NULL);
    if (tracer->processors <= 0 || !tracer->values || !tracer->events)
        error = failed(-ENOMEM, "mapping the BPF ring buffer", why, why_bytes);
cleanup:
    if (error)
        tp_tracer_close(tracer);
    free(log);
    return error;
}

int tp_tracer_attach(struct tp_tracer *tracer, char *why, size_t why_bytes) {
    for (int i = 0; i < TP_KERNEL_HOOKS; i++) {
        tracer->links[i] = bpf_program__attach(bpf_object__find_program_by_name(tracer->object, hooks[i].program));
        if (!tracer->links[i])
            return failed(-errno, hooks[i].tracepoint, why, why_bytes);
    }
    return 0;
}

int tp_tracer_write_to(struct tp_tracer *tracer, struct tp_ring_writer *ring, uint32_t rows) {
    tracer->ring = ring;
    return tp_kernel_sockets_create(&tracer->sockets, ring, rows);
}

/* ---- records ---- */

static uint32_t open_row(struct tp_tracer *tracer, const struct tp_kernel_opened *opened) {
    struct tp_row row = {.flags = TP_ROW_HAS_IRS, .irs = opened->irs, .netns = opened->netns};
    row.cookie = opened->event.connection.cookie;
    row.opened_ns = opened->event.time_ns;
    memcpy(row.local, opened->local, sizeof(row.local));
    memcpy(row.remote, opened->remote, sizeof(row.remote));
    row.local_port = opened->local_port;
    row.remote_port = opened->remote_port;
    return tp_kernel_sockets_open(&tracer->sockets, row.cookie, &row);
}

static int take(void *context, void *data, size_t bytes) {
    struct tp_tracer *tracer = context;
    struct tp_event event;
    (void)bytes; /* the programs of this build write no other sizes; configure() refuses another's */
    memcpy(&event, data, sizeof(event));
    switch (event.kind) {
    case TP_KIND_OPENED:
        event.row = open_row(tracer, data);
        break;
    case TP_KIND_CLOSED:
        event.row = tp_kernel_sockets_close(&tracer->sockets, event.connection.cookie, event.time_ns);
        break;
    default:
        event.row = tp_kernel_sockets_row(&tracer->sockets, event.interval.cookie);
    }
    tp_ring_write(tracer->ring, &event);
    return ++tracer->taken >= TP_KERNEL_DRAIN ? ENOUGH : 0;
}

static int drain(struct tp_tracer *tracer) {
    tracer->taken = 0;
    int result = ring_buffer__consume(tracer->events);
    return result < 0 && result != ENOUGH ? result : 0;
}

/* ---- totals ---- */

static uint64_t total_of(const struct tp_tracer *tracer, uint32_t counter) {
    uint64_t total = 0;
    if (bpf_map_lookup_elem(tracer->counters_fd, &counter, tracer->values) == 0)
        for (int i = 0; i < tracer->processors; i++)
            total += tracer->values[i];
    return total;
}

/* Runs that the kernel left out, because the same program was running on that processor already. */
static uint64_t runs_missed(const struct tp_tracer *tracer) {
    uint64_t missed = 0;
    for (int i = 0; i < TP_KERNEL_HOOKS; i++) {
        struct bpf_prog_info info = {0};
        uint32_t bytes = sizeof(info);
        if (bpf_obj_get_info_by_fd(tracer->programs[i], &info, &bytes) == 0)
            missed += info.recursion_misses;
    }
    return missed;
}

static void add(const struct tp_tracer *tracer, enum tp_counter counter, uint64_t total, uint64_t *before) {
    if (total > *before) {
        tp_ring_count(tracer->ring, counter, total - *before);
        *before = total;
    }
}

static void count(struct tp_tracer *tracer) {
    add(tracer, TP_COUNT_EVENTS_LOST, total_of(tracer, TP_KERNEL_LOST) + runs_missed(tracer), &tracer->lost);
    add(tracer, TP_COUNT_UNSUPPORTED_TRANSPORT, total_of(tracer, TP_KERNEL_UNSUPPORTED), &tracer->unsupported);
}

/* ---- the loop ---- */

static void detach(struct tp_tracer *tracer) {
    for (int i = 0; i < TP_KERNEL_HOOKS; i++) {
        bpf_link__destroy(tracer->links[i]);
        tracer->links[i] = NULL;
    }
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int tp_tracer_run(struct tp_tracer *tracer, int stop_fd, int interval_ms) {
    struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
    int64_t counted_ns = 0;
    int error = 0, ready = 0;
    while (!error && ready == 0) {
        error = drain(tracer);
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
    detach(tracer);
    do {
        error = error ? error : drain(tracer);
    } while (!error && tracer->taken >= TP_KERNEL_DRAIN);
    count(tracer);
    return error ? error : ready < 0 ? ready : 0;
}

void tp_tracer_close(struct tp_tracer *tracer) {
    detach(tracer);
    ring_buffer__free(tracer->events);
    bpf_object__close(tracer->object);
    free(tracer->values);
    tp_kernel_sockets_destroy(&tracer->sockets);
    *tracer = (struct tp_tracer){.counters_fd = -1};
}
