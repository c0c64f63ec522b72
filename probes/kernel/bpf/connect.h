/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Attempts to connect: how long each took, and what it came to.
 *
 * The clock starts at the step to SYN_SENT, in the task that connects; what ends it may run in any. Until then the
 * local port is not chosen: the addresses are read at the end.
 */
#ifndef TICKPATH_KERNEL_CONNECT_H
#define TICKPATH_KERNEL_CONNECT_H

#include "stream.h"

#include <linux/errno.h>

struct connecting {
    __u64 began_ns;
    __u64 cookie;
    __u64 cgroup;
    __u32 pid;
    char comm[16];
};

/* By the socket's address: the one key that every kind of program has. It may be another socket's by the time that a
 * step was missed; the cookie tells. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TP_KERNEL_CONNECTING);
    __type(key, __u64);
    __type(value, struct connecting);
} attempts SEC(".maps");

static __always_inline void begin_connect(struct sock *sk, bool stands_in) {
    __u64 key = (__u64)sk;
    const struct connecting *known = stands_in ? bpf_map_lookup_elem(&attempts, &key) : 0;
    if (known && known->cookie == cookie_of(sk))
        return;
    struct connecting attempt = {};
    attempt.began_ns = bpf_ktime_get_ns();
    attempt.cookie = cookie_of(sk);
    attempt.cgroup = bpf_get_current_cgroup_id();
    attempt.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(attempt.comm, sizeof(attempt.comm));
    if (bpf_map_update_elem(&attempts, &key, &attempt, BPF_ANY) != 0)
        count(TP_KERNEL_LOST);
}

/* An ICMP error that comes while the socket is in use is only noted: TCP goes on asking, and its owner may have closed
 * it for that reason. */
static __always_inline int error_of(const struct sock *sk) {
    int error = LOAD(sk, sk_err);
    return error ? error : LOAD(sk, sk_err_soft);
}

/* Without an error either its owner gives up, in a call that owns the socket; or an answer or a timer set one, and the
 * application has taken it between that and the step: it was told why, and nobody else can be. */
static __always_inline enum tp_connect_result without_error(const struct tcp_sock *tp, const struct sock *sk) {
    return LOAD(tp, segs_out) && LOAD(sk, sk_lock.owned) ? TP_CONNECT_ABORTED : TP_CONNECT_OTHER;
}

static __always_inline enum tp_connect_result failure(int error) {
    switch (error) {
    case ECONNABORTED: /* by its owner's administrator: ss -K */
        return TP_CONNECT_ABORTED;
    case ECONNREFUSED:
    case ECONNRESET: /* while both ends were opening at once */
        return TP_CONNECT_REFUSED;
    case ETIMEDOUT:
        return TP_CONNECT_TIMED_OUT;
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET: /* ICMP: the source is isolated */
    case EACCES: /* ICMPv6: prohibited by policy */
        return TP_CONNECT_UNREACHABLE;
    default:
        return TP_CONNECT_OTHER;
    }
}

static __always_inline bool mapped(const __u32 *address) {
    return address[0] == 0 && address[1] == 0 && address[2] == bpf_htonl(0xffff);
}

static __always_inline void tell_connect(const struct tcp_sock *tp, const struct sock *sk,
                                         const struct connecting *attempt, __u64 cookie, bool opened, __u64 now_ns) {
    struct tp_kernel_connect *told = reserve(sizeof(*told));
    if (!told)
        return;
    struct tp_event *event = &told->opened.event;
    int error = opened ? 0 : error_of(sk);
    __builtin_memset(event, 0, sizeof(*event));
    event->kind = TP_KIND_CONNECT;
    event->clock = TP_CLOCK_MONOTONIC;
    event->row = TP_ROW_NONE;
    event->time_ns = now_ns;
    event->connect.cookie = cookie;
    event->connect.latency_ns = now_ns - attempt->began_ns;
    event->connect.cgroup = attempt->cgroup;
    event->connect.pid = attempt->pid;
    event->connect.error = error;
    event->connect.result = opened ? TP_CONNECT_OPENED : error ? failure(error) : without_error(tp, sk);
    tell_addresses(&told->opened, sk);
    told->opened.local_port = bpf_ntohs(LOAD(tp, inet_conn.icsk_inet.inet_sport)); /* the other is 0 after a failure */
    told->opened.irs = opened ? sequence_of(tp, 0) - 1 : 0;
    event->connect.family = mapped(told->opened.remote) ? 4 : 6;
    __builtin_memcpy(told->comm, attempt->comm, sizeof(told->comm));
    submit(told);
}

static __always_inline void end_connect(struct sock *sk, bool opened) {
    __u64 now_ns = bpf_ktime_get_ns(), key = (__u64)sk;
    const struct connecting *attempt = bpf_map_lookup_elem(&attempts, &key);
    if (!attempt)
        return;
    const struct tcp_sock *tp = tcp_of(sk);
    __u64 cookie = cookie_of(sk);
    if (tp && (attempt->cookie == cookie || !attempt->cookie)) { /* it may have been given one meanwhile */
        tell_connect(tp, sk, attempt, cookie, opened, now_ns);
        if (!opened)
            count_more(TP_KERNEL_RETRANSMITS, LOAD(tp, total_retrans));
    }
    bpf_map_delete_elem(&attempts, &key);
}

/* The state that a socket steps from is in it still. */
static __always_inline void on_connect(struct sock *sk, int state, bool stands_in) {
    __u8 before = LOAD(sk, __sk_common.skc_state);
    if (state == BPF_TCP_SYN_SENT) {
        if (selected(sk) && caller_selected())
            begin_connect(sk, stands_in);
    } else if ((before == BPF_TCP_SYN_SENT || before == BPF_TCP_SYN_RECV) &&
               (state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE)) {
        end_connect(sk, state == BPF_TCP_ESTABLISHED);
    }
}

/* A socket's step to another state, whatever it means. Who `stands_in` may have come to one that was seen. */
static __always_inline int on_step(struct sock *sk, int state, bool stands_in) {
    if (!config.connects_only)
        on_state(sk, state);
    on_connect(sk, state, stands_in);
    return 0;
}

#endif
