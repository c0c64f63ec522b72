/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Attempts to connect, from tracepoints alone: no structure of the kernel's is read, so none has to be known.
 *
 * Compiled on the host by bcc. What a tracepoint hands over has neither the socket's error nor its cookie: the error
 * comes by a tracepoint of its own, before the step to CLOSE or after it, and the two are joined by their addresses.
 */
#include "../kernel.h"

#include <uapi/linux/errno.h>

#define IPPROTO_TCP_NUMBER 6
enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, CLOSE = 7 };
/* How deep below the wanted cgroup a task's may lie, from the root. */
#define CGROUP_DEPTH 16

struct settings {
    u64 on; /* the programs run before they are told what is wanted */
    struct tp_kernel_config config;
};

struct ends {
    u32 local[4];
    u32 remote[4];
    u16 local_port;
    u16 remote_port;
};

struct attempt {
    u64 began_ns;
    struct tp_kernel_connect told; /* time_ns 0: it is under way */
};

struct failure {
    u64 time_ns;
    u32 error;
    u32 reserved;
};

BPF_ARRAY(settings, struct settings, 1);
BPF_PERCPU_ARRAY(counters, u64, TP_KERNEL_COUNTERS);
BPF_RINGBUF_OUTPUT(events, TP_EVENTS_PAGES);
BPF_HASH(attempts, u64, struct attempt, TP_KERNEL_CONNECTING); /* by the socket's address, a name like any other */
#ifdef TP_HAS_ERRORS
BPF_TABLE("lru_hash", struct ends, u64, closed, 1024);              /* waits for its error */
BPF_TABLE("lru_hash", struct ends, struct failure, failures, 1024); /* waits for its step to CLOSE */
BPF_TABLE("lru_hash", u64, u64, closed_by, 1024);                   /* task -> its last socket that stepped to CLOSE */
#endif

static __always_inline void count_lost(void) {
    counters.atomic_increment(TP_KERNEL_LOST);
}

static __always_inline bool peer_selected(const struct tp_kernel_config *config, const u32 *remote, u16 port) {
    if (config->selectors == 0)
        return true;
#pragma unroll
    for (int i = 0; i < TP_KERNEL_SELECTORS; i++) {
        const struct tp_kernel_selector *wanted = &config->selector[i];
        const u8 *bytes = (const u8 *)&wanted->port;
        if (i < config->selectors && (u16)(bytes[0] << 8 | bytes[1]) == port &&
            (wanted->any_remote || (wanted->remote[0] == remote[0] && wanted->remote[1] == remote[1] &&
                                    wanted->remote[2] == remote[2] && wanted->remote[3] == remote[3])))
            return true;
    }
    return false;
}

static __always_inline bool task_selected(const struct tp_kernel_config *config) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    bool selected = config->pids == 0;
#pragma unroll
    for (int i = 0; i < TP_KERNEL_PIDS; i++)
        selected |= i < config->pids && config->pid[i] == pid;
    if (!selected || config->cgroup == 0)
        return selected;
#pragma unroll
    for (int level = 0; level < CGROUP_DEPTH; level++)
        if (bpf_get_current_ancestor_cgroup_id(level) == config->cgroup)
            return true;
    return false;
}

static __always_inline int result_of(u32 error) {
    switch (error) {
    case ECONNABORTED:
        return TP_CONNECT_ABORTED;
    case ECONNREFUSED:
    case ECONNRESET:
        return TP_CONNECT_REFUSED;
    case ETIMEDOUT:
        return TP_CONNECT_TIMED_OUT;
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case EACCES:
        return TP_CONNECT_UNREACHABLE;
    default:
        return TP_CONNECT_OTHER;
    }
}

static __always_inline void tell(u64 key, struct attempt *attempt, int result, u32 error) {
    struct tp_kernel_connect *told = events.ringbuf_reserve(sizeof(struct tp_kernel_connect));
    if (told) {
        __builtin_memcpy(told, &attempt->told, sizeof(*told));
        told->opened.event.connect.result = result;
        told->opened.event.connect.error = error;
        events.ringbuf_submit(told, BPF_RB_NO_WAKEUP);
    } else {
        count_lost();
    }
    attempts.delete(&key);
}

#ifdef TP_HAS_ERRORS
/* Error 0: the application had taken it before the tracepoint could read it. */
static __always_inline void tell_failure(u64 key, struct attempt *attempt, struct ends *ends, u32 error) {
    closed.delete(ends);
    tell(key, attempt, result_of(error), error);
}

static __always_inline void ends_of(struct ends *ends, const struct attempt *attempt) {
    __builtin_memcpy(ends->local, attempt->told.opened.local, sizeof(ends->local));
    __builtin_memcpy(ends->remote, attempt->told.opened.remote, sizeof(ends->remote));
    ends->local_port = attempt->told.opened.local_port;
    ends->remote_port = attempt->told.opened.remote_port;
}

/* Its error may have been told already, comes next, or never: then its owner gave up. */
static __always_inline void fail(u64 key, struct attempt *attempt) {
    struct ends ends = {};
    ends_of(&ends, attempt);
    struct failure *failure = failures.lookup(&ends);
    if (failure && failure->time_ns >= attempt->began_ns) { /* else of an older socket between the same ends */
        tell_failure(key, attempt, &ends, failure->error);
        failures.delete(&ends);
        return;
    }
    u64 task = bpf_get_current_pid_tgid();
    closed.update(&ends, &key);
    closed_by.update(&task, &key);
}

static __always_inline void forget_closed(u64 key) {
    struct attempt *attempt = attempts.lookup(&key);
    if (!attempt)
        return;
    if (attempt->told.opened.event.time_ns) {
        struct ends ends = {};
        ends_of(&ends, attempt);
        closed.delete(&ends);
        tell(key, attempt, attempt->told.opened.local_port ? TP_CONNECT_ABORTED : TP_CONNECT_OTHER, 0);
    } else {
        attempts.delete(&key);
    }
}
#endif

static __always_inline void begin(u64 key) {
    struct attempt attempt = {};
    struct tp_event *event = &attempt.told.opened.event;
#ifdef TP_HAS_ERRORS
    forget_closed(key);
#endif
    attempt.began_ns = bpf_ktime_get_ns();
    event->kind = TP_KIND_CONNECT;
    event->clock = TP_CLOCK_MONOTONIC;
    event->row = TP_ROW_NONE;
    event->connect.cgroup = bpf_get_current_cgroup_id();
    event->connect.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(attempt.told.comm, sizeof(attempt.told.comm));
    if (attempts.update(&key, &attempt) != 0)
        count_lost();
}

TRACEPOINT_PROBE(sock, inet_sock_set_state) {
    u64 now_ns = bpf_ktime_get_ns(), key = (u64)args->skaddr;
    int before = args->oldstate, after = args->newstate, zero = 0;
    if (args->protocol != IPPROTO_TCP_NUMBER)
        return 0;
    if (after == SYN_SENT) {
        struct settings *wanted = settings.lookup(&zero);
        u32 remote[4];
        __builtin_memcpy(remote, args->daddr_v6, sizeof(remote)); /* of IPv4 too: mapped */
        if (wanted && wanted->on && peer_selected(&wanted->config, remote, args->dport) &&
            task_selected(&wanted->config))
            begin(key);
        return 0;
    }
    if ((before != SYN_SENT && before != SYN_RECV) || (after != ESTABLISHED && after != CLOSE))
        return 0;
    struct attempt *attempt = attempts.lookup(&key);
    if (!attempt || attempt->told.opened.event.time_ns)
        return 0;
    struct tp_kernel_opened *opened = &attempt->told.opened;
    opened->event.time_ns = now_ns;
    opened->event.connect.latency_ns = now_ns - attempt->began_ns;
    __builtin_memcpy(opened->local, args->saddr_v6, sizeof(opened->local));
    __builtin_memcpy(opened->remote, args->daddr_v6, sizeof(opened->remote));
    opened->local_port = args->sport;
    opened->remote_port = args->dport;
    const u8 *remote = (const u8 *)opened->remote;
    bool mapped = opened->remote[0] == 0 && opened->remote[1] == 0 && remote[8] == 0 && remote[9] == 0 &&
                  remote[10] == 0xff && remote[11] == 0xff;
    opened->event.connect.family = mapped ? 4 : 6;
    if (after == ESTABLISHED) {
        tell(key, attempt, TP_CONNECT_OPENED, 0);
        return 0;
    }
#ifdef TP_HAS_ERRORS
    fail(key, attempt);
#else
    count_lost(); /* why it failed is not to be had, nor whether its owner gave up */
    attempts.delete(&key);
#endif
    return 0;
}

#ifdef TP_HAS_ERRORS
TRACEPOINT_PROBE(sock, inet_sk_error_report) {
    struct failure failure = {};
    struct ends ends = {};
    if (args->protocol != IPPROTO_TCP_NUMBER)
        return 0;
    if (args->dport == 0) { /* its owner disconnects it: it has no peer any more, and the error says nothing */
        u64 task = bpf_get_current_pid_tgid(), *mine = closed_by.lookup(&task);
        if (!mine)
            return 0;
        u64 key = *mine;
        struct attempt *attempt = attempts.lookup(&key);
        closed_by.delete(&task);
        if (attempt && attempt->told.opened.event.time_ns && attempt->told.opened.local_port == args->sport)
            forget_closed(key);
        return 0;
    }
    __builtin_memcpy(ends.local, args->saddr_v6, sizeof(ends.local));
    __builtin_memcpy(ends.remote, args->daddr_v6, sizeof(ends.remote));
    ends.local_port = args->sport;
    ends.remote_port = args->dport;
    failure.error = args->error;
    u64 *waiting = closed.lookup(&ends);
    if (waiting) {
        u64 key = *waiting;
        struct attempt *attempt = attempts.lookup(&key);
        if (attempt && attempt->told.opened.event.time_ns) {
            tell_failure(key, attempt, &ends, failure.error);
            return 0;
        }
    }
    if (args->error == 0) /* there is something in the error queue, as before a step that an ICMP message brings */
        return 0;
    failure.time_ns = bpf_ktime_get_ns();
    failures.update(&ends, &failure);
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_destroy_sock) {
    forget_closed((u64)args->skaddr);
    return 0;
}
#endif
