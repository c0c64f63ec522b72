/* SPDX-License-Identifier: Apache-2.0
 *
 * One BPF object for each hook, so that one that fails takes no other with it, over maps that they share.
 */
#include "rungs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#define LOG_BYTES (1u << 16)

/* For each hook best first. */
static const struct candidate {
    enum tp_hook hook;
    enum tp_mode mode;
    const char *target;                     /* tracepoint, or function whose first argument is the socket */
    const char *programs[TP_HOOK_PROGRAMS]; /* in the order of attaching */
    bool stands_in;                         /* the other stands in where the kernel leaves one out */
} candidates[] = {
    {TP_HOOK_ASKED, TP_MODE_FENTRY, "tcp_recvmsg", {"tp_enter_asked", "tp_leave_asked"}, false},
    {TP_HOOK_ASKED, TP_MODE_KPROBE, "tcp_recvmsg", {"tp_probe_asked", "tp_probe_answered"}, false},
    /* A tracepoint's programs run as they were attached, a function's the other way round. */
    {TP_HOOK_READABLE, TP_MODE_TP_BTF, "sk_data_ready", {"tp_readable", "tp_readable_stand_in"}, true},
    {TP_HOOK_READABLE, TP_MODE_FENTRY, "sock_def_readable", {"tp_enter_stand_in", "tp_enter_readable"}, true},
    {TP_HOOK_READABLE, TP_MODE_KPROBE, "sock_def_readable", {"tp_probe_readable", NULL}, false},
    /* Of a process alone, which no softirq interrupts with another. */
    {TP_HOOK_COPIED, TP_MODE_TP_BTF, "tcp_rcv_space_adjust", {"tp_copied", NULL}, false},
    {TP_HOOK_COPIED, TP_MODE_FENTRY, "tcp_rcv_space_adjust", {"tp_enter_copied", NULL}, false},
    {TP_HOOK_COPIED, TP_MODE_KPROBE, "tcp_rcv_space_adjust", {"tp_probe_copied", NULL}, false},
    {TP_HOOK_STATE, TP_MODE_TP_BTF, "inet_sock_set_state", {"tp_state", "tp_state_stand_in"}, true},
    {TP_HOOK_STATE, TP_MODE_FENTRY, "tcp_set_state", {"tp_enter_state", NULL}, false},
    {TP_HOOK_STATE, TP_MODE_KPROBE, "tcp_set_state", {"tp_probe_state", NULL}, false},
};

#define CANDIDATES (sizeof(candidates) / sizeof(candidates[0]))

static const char *const map_names[TP_SHARED] = {"events", "counters", "sockets", "asking"};

struct search {
    struct tp_rungs *rungs;
    const struct tp_rungs_wanted *wanted;
    struct tp_kernel_config config;
    struct btf *types; /* NULL: there are none */
    char *log;         /* the verifier's */
};

const char *tp_hook_name(enum tp_hook hook) {
    static const char *const names[TP_HOOKS] = {"readable", "copied", "state", "asked"};
    return names[hook];
}

const char *tp_mode_name(enum tp_mode mode) {
    static const char *const names[TP_MODES + 1] = {"tp_btf", "fentry", "kprobe", "bcc", "none"};
    return names[mode];
}

static const struct tp_attached nothing = {.mode = TP_MODE_NONE, .programs = {-1, -1}};

/* ---- what the kernel's types say; its version says nothing ---- */

static bool takes_a_socket(const struct btf *types, const char *function) {
    int id = btf__find_by_name_kind(types, function, BTF_KIND_FUNC);
    const struct btf_type *prototype = id < 0 ? NULL : btf__type_by_id(types, btf__type_by_id(types, (__u32)id)->type);
    if (!prototype || btf_vlen(prototype) == 0)
        return false;
    const struct btf_type *first = btf__type_by_id(types, btf_params(prototype)[0].type);
    if (!btf_is_ptr(first))
        return false;
    first = btf__type_by_id(types, first->type);
    return btf_is_struct(first) && strcmp(btf__name_by_offset(types, first->name_off), "sock") == 0;
}

static int look_up(const struct search *search, const struct candidate *c, struct tp_attached *into) {
    bool tracepoint = c->mode == TP_MODE_TP_BTF;
    char name[64];
    if (!search->types) {
        snprintf(into->why, sizeof(into->why), "this kernel publishes no types of its own (/sys/kernel/btf/vmlinux)%s",
                 search->wanted->btf_path ? ", and typed programs can use no others" : "");
        return -ENOENT;
    }
    snprintf(name, sizeof(name), "btf_trace_%s", c->target);
    if (tracepoint ? btf__find_by_name_kind(search->types, name, BTF_KIND_TYPEDEF) >= 0
                   : takes_a_socket(search->types, c->target))
        return 0;
    snprintf(into->why, sizeof(into->why), "this kernel has no %s %s", tracepoint ? "tracepoint" : "function",
             c->target);
    return -EOPNOTSUPP;
}

/* ---- one candidate ---- */

static int failed(int error, const char *what, struct tp_attached *into) {
    snprintf(into->why, sizeof(into->why), "%s: %s", what, strerror(-error));
    return error;
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

/* A map that not every candidate needs: its memory would be taken at once. */
static int leave_out(struct bpf_object *object, const char *map) {
    return bpf_map__set_autocreate(bpf_object__find_map_by_name(object, map), false);
}

static int configure(const struct search *search, const struct candidate *c, struct bpf_object *object) {
    struct bpf_map *constants = bpf_object__find_map_by_name(object, ".rodata");
    struct bpf_program *program;
    if (!constants)
        return -EINVAL;
    int error =
        bpf_map__set_initial_value(constants, &search->config, sizeof(search->config)); /* refuses another size */
    bpf_object__for_each_program(program, object) {
        const char *name = bpf_program__name(program);
        bool ours = false;
        for (int i = 0; i < TP_HOOK_PROGRAMS; i++)
            ours |= c->programs[i] && strcmp(name, c->programs[i]) == 0;
        error = error ? error : bpf_program__set_autoload(program, ours);
    }
    if (c->hook != TP_HOOK_STATE)
        error = error ? error : leave_out(object, "attempts");
    if (!c->stands_in && c->mode != TP_MODE_KPROBE) /* whose object has none */
        error = error ? error : leave_out(object, "taken");
    for (int i = 0; i < TP_SHARED && !error; i++) {
        struct bpf_map *map = bpf_object__find_map_by_name(object, map_names[i]);
        if (!map)
            return -EINVAL;
        if (search->rungs->maps[i] >= 0)
            error = bpf_map__reuse_fd(map, search->rungs->maps[i]);
        else if (i == TP_SHARED_EVENTS)
            error = bpf_map__set_max_entries(map, search->wanted->buffer_bytes);
    }
    return error;
}

static int keep_maps(struct tp_rungs *rungs, struct bpf_object *object) {
    for (int i = 0; i < TP_SHARED; i++) {
        if (rungs->maps[i] >= 0)
            continue;
        rungs->maps[i] = fcntl(bpf_object__find_map_fd_by_name(object, map_names[i]), F_DUPFD_CLOEXEC, 0);
        if (rungs->maps[i] < 0)
            return -errno;
    }
    return 0;
}

static void drop(struct tp_attached *attached) {
    for (int i = 0; i < TP_HOOK_PROGRAMS; i++)
        bpf_link__destroy(attached->links[i]);
    bpf_object__close(attached->object);
    *attached = nothing;
}

static int try_candidate(const struct search *search, const struct candidate *c, struct tp_attached *into) {
    bool kprobe = c->mode == TP_MODE_KPROBE;
    const char *path = kprobe ? search->wanted->kprobe_path : search->wanted->typed_path;
    int error = kprobe ? 0 : look_up(search, c, into);
    if (error)
        return error;
    search->log[0] = '\0';
    LIBBPF_OPTS(bpf_object_open_opts, options, .kernel_log_buf = search->log, .kernel_log_size = LOG_BYTES,
                .btf_custom_path = kprobe ? search->wanted->btf_path : NULL);
    into->object = bpf_object__open_file(path, &options);
    if (!into->object)
        return failed(-errno, path, into);
    error = configure(search, c, into->object);
    if (error)
        return failed(error, "configuring the BPF programs", into);
    error = bpf_object__load(into->object);
    if (error) {
        failed(error, "loading the BPF programs", into);
        quote(search->log, into->why, sizeof(into->why));
        return error;
    }
    for (int i = 0; i < TP_HOOK_PROGRAMS && c->programs[i]; i++) {
        struct bpf_program *program = bpf_object__find_program_by_name(into->object, c->programs[i]);
        into->programs[i] = bpf_program__fd(program);
        into->links[i] = bpf_program__attach(program);
        if (!into->links[i])
            return failed(-errno, bpf_program__section_name(program), into);
    }
    error = keep_maps(search->rungs, into->object);
    if (error)
        return failed(error, "keeping the BPF maps", into);
    into->mode = c->mode;
    into->stands_in = c->stands_in;
    return 0;
}

/* ---- the choice ---- */

/* A failure of the best way says the most; but where the kernel lacks that one, what forbids the next. */
static bool tells_more(int error, int before) {
    bool forbidden = error == -EPERM || error == -EACCES;
    return !before || (forbidden && (before == -EOPNOTSUPP || before == -ENOENT));
}

/* Tries what `hook` has, of kprobes or of typed programs. */
static bool choose(const struct search *search, enum tp_hook hook, bool kprobes) {
    struct tp_attached *at = &search->rungs->hooks[hook];
    if (!(search->wanted->hooks & 1u << hook))
        return false;
    for (size_t i = 0; i < CANDIDATES; i++) {
        const struct candidate *c = &candidates[i];
        if (c->hook != hook || (c->mode == TP_MODE_KPROBE) != kprobes ||
            (search->wanted->only != TP_MODE_NONE && search->wanted->only != c->mode))
            continue;
        struct tp_attached tried = nothing;
        int error = try_candidate(search, c, &tried);
        if (!error) {
            *at = tried;
            return true;
        }
        if (tells_more(error, at->error)) {
            at->error = error;
            memcpy(at->why, tried.why, sizeof(at->why));
        }
        drop(&tried);
    }
    return false;
}

static const enum tp_hook stream_hooks[] = {TP_HOOK_READABLE, TP_HOOK_COPIED, TP_HOOK_STATE};
#define STREAM_HOOKS (sizeof(stream_hooks) / sizeof(stream_hooks[0]))

static size_t choose_stream(const struct search *search, bool kprobes) {
    size_t found = 0;
    for (size_t i = 0; i < STREAM_HOOKS; i++)
        found += choose(search, stream_hooks[i], kprobes);
    return found;
}

/* With its maps: what it recorded is not what another family would go on from. */
static void drop_stream(const struct search *search) {
    static const enum tp_shared maps[] = {TP_SHARED_EVENTS, TP_SHARED_COUNTERS, TP_SHARED_SOCKETS};
    for (size_t i = 0; i < STREAM_HOOKS; i++) {
        struct tp_attached *at = &search->rungs->hooks[stream_hooks[i]];
        struct tp_attached none = nothing;
        memcpy(none.why, at->why, sizeof(none.why));
        none.error = at->error;
        drop(at);
        *at = none;
    }
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        int *map = &search->rungs->maps[maps[i]];
        if (*map >= 0)
            close(*map);
        *map = -1;
    }
}

static void choose_all(struct search *search) {
    bool asked = choose(search, TP_HOOK_ASKED, false) || choose(search, TP_HOOK_ASKED, true);
    search->config.asked = asked;
    if (asked) { /* the stream's maps are the family's own */
        close(search->rungs->maps[TP_SHARED_SOCKETS]);
        search->rungs->maps[TP_SHARED_SOCKETS] = -1;
    }
    size_t typed = choose_stream(search, false), all = 0;
    for (size_t i = 0; i < STREAM_HOOKS; i++)
        all += search->wanted->hooks >> stream_hooks[i] & 1;
    if (typed == all)
        return;
    drop_stream(search);
    size_t kprobes = choose_stream(search, true);
    if (kprobes < typed || (kprobes == typed && typed > 0)) {
        drop_stream(search);
        choose_stream(search, false);
    }
}

/* The first hook without which it is not worth running, and which cannot be had; NULL: there is none. */
static const struct tp_attached *missing(const struct tp_rungs *rungs, const struct tp_rungs_wanted *wanted) {
    uint32_t needed = wanted->hooks & (1u << TP_HOOK_READABLE | 1u << TP_HOOK_COPIED);
    bool all = wanted->only != TP_MODE_NONE; /* one rung alone was meant to show what it can do */
    const struct tp_attached *first = NULL;
    needed = all || !needed ? wanted->hooks & ~(1u << TP_HOOK_ASKED) : needed;
    for (int i = 0; i < TP_HOOKS; i++) {
        if (!(needed & 1u << i))
            continue;
        if (rungs->hooks[i].mode == TP_MODE_NONE)
            first = first ? first : &rungs->hooks[i];
        else if (!all)
            return NULL;
    }
    return first;
}

static void clear(struct tp_rungs *rungs) {
    for (int i = 0; i < TP_HOOKS; i++)
        rungs->hooks[i] = nothing;
    for (int i = 0; i < TP_SHARED; i++)
        rungs->maps[i] = -1;
    for (int i = 0; i < TP_ADOPTED; i++)
        rungs->tracepoints[i] = -1;
}

void tp_rungs_adopt(struct tp_rungs *rungs, const struct tp_adopted *adopted) {
    clear(rungs);
    rungs->maps[TP_SHARED_EVENTS] = adopted->events;
    rungs->maps[TP_SHARED_COUNTERS] = adopted->counters;
    memcpy(rungs->tracepoints, adopted->tracepoints, sizeof(rungs->tracepoints));
    for (int i = 0; i < TP_HOOKS; i++)
        snprintf(rungs->hooks[i].why, TP_WHY_BYTES, "bcc without the kernel's types knows no place in a stream");
    struct tp_attached *state = &rungs->hooks[TP_HOOK_STATE];
    state->mode = TP_MODE_BCC;
    state->why[0] = '\0';
    memcpy(state->programs, adopted->programs, sizeof(state->programs));
}

int tp_rungs_attach(struct tp_rungs *rungs, const struct tp_rungs_wanted *wanted, char *why, size_t why_bytes) {
    clear(rungs);
    struct search search = {.rungs = rungs, .wanted = wanted, .config = wanted->config};
    libbpf_set_print(NULL); /* what it would say on stderr is in `why` */
    search.log = calloc(1, LOG_BYTES);
    if (!search.log) {
        snprintf(why, why_bytes, "verifier log: %s", strerror(ENOMEM));
        return -ENOMEM;
    }
    search.types = btf__load_vmlinux_btf();
    choose_all(&search);
    btf__free(search.types);
    free(search.log);
    const struct tp_attached *first = missing(rungs, wanted);
    if (!first)
        return 0;
    int error = first->error ? first->error : -EOPNOTSUPP;
    snprintf(why, why_bytes, "%s", first->why);
    tp_rungs_close(rungs);
    return error;
}

static void close_all(int *descriptors, int count) {
    for (int i = 0; i < count; i++) {
        if (descriptors[i] >= 0)
            close(descriptors[i]);
        descriptors[i] = -1;
    }
}

void tp_rungs_detach(struct tp_rungs *rungs) {
    for (int i = 0; i < TP_HOOKS; i++) {
        for (int n = 0; n < TP_HOOK_PROGRAMS; n++) {
            bpf_link__destroy(rungs->hooks[i].links[n]);
            rungs->hooks[i].links[n] = NULL;
        }
    }
    close_all(rungs->tracepoints, TP_ADOPTED);
}

void tp_rungs_close(struct tp_rungs *rungs) {
    tp_rungs_detach(rungs);
    if (rungs->hooks[TP_HOOK_STATE].mode == TP_MODE_BCC) /* else they are their object's */
        close_all(rungs->hooks[TP_HOOK_STATE].programs, TP_HOOK_PROGRAMS);
    for (int i = 0; i < TP_HOOKS; i++)
        drop(&rungs->hooks[i]);
    close_all(rungs->maps, TP_SHARED);
}

int tp_rungs_claim(const struct tp_rungs *rungs, int socket_fd) {
    struct tp_kernel_progress claimed = {.claimed = 1};
    uint64_t cookie;
    socklen_t bytes = sizeof(cookie);
    const void *key = &socket_fd;
    if (rungs->maps[TP_SHARED_SOCKETS] < 0)
        return 0;
    /* Asked in any case: a kprobe can tell of no socket that has none. */
    if (getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &cookie, &bytes) != 0)
        return -errno;
    bool kprobes =
        rungs->hooks[TP_HOOK_READABLE].mode == TP_MODE_KPROBE || rungs->hooks[TP_HOOK_COPIED].mode == TP_MODE_KPROBE;
    if (kprobes)
        key = &cookie;
    /* One that is there is claimed already: nothing else makes one where processes are named. */
    int error = bpf_map_update_elem(rungs->maps[TP_SHARED_SOCKETS], key, &claimed, BPF_NOEXIST);
    return error == -EEXIST ? 0 : error;
}
