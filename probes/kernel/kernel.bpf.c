// SPDX-License-Identifier: GPL-2.0-only
/* Where in the stream each selected TCP socket is: readable when rcv_nxt passed a byte, copied when copied_seq did.
 *
 * Every load is a typed one, which the verifier checks: no probe-read helper, so that lockdown has nothing to forbid.
 * The hooks run under the socket's lock, one at a time for each socket; so its storage needs none of its own.
 */
#include <linux/bpf.h>

#include "types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"

#define AF_INET 2
#define AF_INET6 10

char tp_license[] SEC("license") = "GPL";

const volatile struct tp_kernel_config config = {};

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22); /* the loader sets it */
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TP_KERNEL_COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

/* Where the next interval of each kind begins. Moved on whether or not the event could be handed on, so that a lost one
 * is a gap and never makes the next one's time that of older bytes. */
struct progress {
    __u64 readable;
    __u64 copied;
    __u64 cookie;
    bool announced;
    bool unsupported;
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct progress);
} sockets SEC(".maps");

static __always_inline void count(enum tp_kernel_counter counter) {
    __u32 key = counter;
    __u64 *total = bpf_map_lookup_elem(&counters, &key);
    if (total)
        __sync_fetch_and_add(total, 1); /* a hook in a softirq may interrupt one in a process */
}

/* ---- which sockets ---- */

static __always_inline bool remote_is(const struct sock *sk, const volatile struct tp_kernel_selector *wanted) {
    if (sk->__sk_common.skc_family == AF_INET)
        return wanted->remote[0] == 0 && wanted->remote[1] == 0 && wanted->remote[2] == bpf_htonl(0xffff) &&
               wanted->remote[3] == sk->__sk_common.skc_daddr;
    return wanted->remote[0] == sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0] &&
           wanted->remote[1] == sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1] &&
           wanted->remote[2] == sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2] &&
           wanted->remote[3] == sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
}

static __always_inline bool peer_selected(const struct sock *sk) {
    if (config.selectors == 0)
        return true;
    __u16 port = sk->__sk_common.skc_dport;
    for (__u32 i = 0; i < TP_KERNEL_SELECTORS && i < config.selectors; i++) {
        const volatile struct tp_kernel_selector *wanted = &config.selector[i];
        if (wanted->port == port && (wanted->any_remote || remote_is(sk, wanted)))
            return true;
    }
    return false;
}

static __always_inline bool selected(const struct sock *sk) {
    __u16 family = sk->__sk_common.skc_family;
    if (family != AF_INET && family != AF_INET6)
        return false;
    if (sk->__sk_common.skc_state == BPF_TCP_LISTEN || !peer_selected(sk))
        return false;
    return config.cgroup == 0 || sk->sk_cgrp_data.cgroup->kn->id == config.cgroup;
}

/* ---- where a socket is ---- */

/* A FIN takes a sequence number, and bytes_received counts it. */
static __always_inline __u32 fin(const struct sock *sk) {
    return sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1;
}

static __always_inline __u64 readable_to(const struct tcp_sock *tp, const struct sock *sk) {
    return tp->bytes_received - fin(sk);
}

static __always_inline __u64 copied_to(const struct tcp_sock *tp, const struct sock *sk) {
    __u64 copied = tp->bytes_received - (__u32)(tp->rcv_nxt - tp->copied_seq), end = readable_to(tp, sk);
    return copied < end ? copied : end;
}

static __always_inline __u32 sequence_of(const struct tcp_sock *tp, __u64 offset) {
    return tp->rcv_nxt - (__u32)(tp->bytes_received - offset);
}

/* ---- what is told ---- */

static __always_inline void tell_interval(const struct tcp_sock *tp, const struct progress *at, enum tp_kind kind,
                                          __u64 from, __u64 to, __u64 now_ns) {
    struct tp_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        count(TP_KERNEL_LOST);
        return;
    }
    event->seq = 0;
    event->kind = kind;
    event->clock = TP_CLOCK_MONOTONIC;
    event->source = 0;
    event->flags = 0;
    event->row = TP_ROW_NONE;
    event->time_ns = now_ns;
    event->interval.from = from;
    event->interval.to = to;
    event->interval.cookie = at->cookie;
    event->interval.seq = sequence_of(tp, to);
    /* Whoever ran the softirq that made it readable has no part in it. */
    event->interval.pid = kind == TP_KIND_COPIED ? bpf_get_current_pid_tgid() >> 32 : 0;
    event->interval.asked_ns = 0;
    bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static __always_inline void tell_addresses(struct tp_kernel_opened *opened, const struct sock *sk) {
    if (sk->__sk_common.skc_family == AF_INET) {
        opened->local[0] = opened->local[1] = opened->remote[0] = opened->remote[1] = 0;
        opened->local[2] = opened->remote[2] = bpf_htonl(0xffff);
        opened->local[3] = sk->__sk_common.skc_rcv_saddr;
        opened->remote[3] = sk->__sk_common.skc_daddr;
    } else {
        for (int i = 0; i < 4; i++) {
            opened->local[i] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[i];
            opened->remote[i] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[i];
        }
    }
    opened->local_port = sk->__sk_common.skc_num;
    opened->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
    opened->netns = sk->__sk_common.skc_net.net->ns.inum;
}

static __always_inline void tell_opened(const struct tcp_sock *tp, const struct sock *sk, struct progress *at,
                                        __u64 now_ns) {
    struct tp_kernel_opened *opened = bpf_ringbuf_reserve(&events, sizeof(*opened), 0);
    if (!opened) {
        count(TP_KERNEL_LOST);
        return;
    }
    __builtin_memset(&opened->event, 0, sizeof(opened->event));
    opened->event.kind = TP_KIND_OPENED;
    opened->event.clock = TP_CLOCK_MONOTONIC;
    opened->event.row = TP_ROW_NONE;
    opened->event.time_ns = now_ns;
    opened->event.connection.cookie = at->cookie;
    tell_addresses(opened, sk);
    opened->irs = sequence_of(tp, 0) - 1;
    bpf_ringbuf_submit(opened, BPF_RB_NO_WAKEUP);
    at->announced = true;
}

static __always_inline void tell_closed(const struct tcp_sock *tp, const struct sock *sk, struct progress *at,
                                        __u64 now_ns) {
    struct tp_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        count(TP_KERNEL_LOST);
        return;
    }
    __builtin_memset(event, 0, sizeof(*event));
    event->kind = TP_KIND_CLOSED;
    event->clock = TP_CLOCK_MONOTONIC;
    event->row = TP_ROW_NONE;
    event->time_ns = now_ns;
    event->connection.cookie = at->cookie;
    event->connection.bytes = readable_to(tp, sk);
    bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* ---- the socket's storage ---- */

/* kTLS and MPTCP subflows have an upper layer protocol: their copied_seq moves before user space has the bytes. An
 * urgent byte counts in the sequence and not in what is read. */
static __always_inline bool transport_unsupported(const struct tcp_sock *tp) {
    if (tp->inet_conn.icsk_ulp_ops || tp->urg_data)
        return true;
    return bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp;
}

static __always_inline void refuse(struct progress *at) {
    if (!at->unsupported)
        count(TP_KERNEL_UNSUPPORTED);
    at->unsupported = true;
}

/* What came before a socket was first seen is not known: its intervals begin where it is now. */
static __always_inline void begin(const struct tcp_sock *tp, struct sock *sk, struct progress *at) {
    at->readable = readable_to(tp, sk);
    at->copied = copied_to(tp, sk);
    at->cookie = bpf_get_socket_cookie(sk);
    at->announced = at->unsupported = false;
}

static __always_inline struct progress *progress_of(const struct tcp_sock *tp, struct sock *sk, __u64 now_ns) {
    struct progress *at = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!at) {
        count(TP_KERNEL_LOST);
        return 0;
    }
    if (!at->cookie)
        begin(tp, sk, at);
    if (transport_unsupported(tp))
        refuse(at);
    if (at->unsupported)
        return 0;
    if (!at->announced)
        tell_opened(tp, sk, at, now_ns);
    return at;
}

/* ---- handlers ---- */

static __always_inline int on_readable(struct sock *sk) {
    if (!selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    struct progress *at = tp ? progress_of(tp, sk, now_ns) : 0;
    if (!at)
        return 0;
    __u64 from = at->readable, to = readable_to(tp, sk);
    if (to <= from)
        return 0;
    at->readable = to;
    tell_interval(tp, at, TP_KIND_READABLE, from, to, now_ns);
    return 0;
}

static __always_inline int on_copied(struct sock *sk) {
    if (!selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    struct progress *at = tp ? progress_of(tp, sk, now_ns) : 0;
    if (!at)
        return 0;
    __u64 from = at->copied, to = copied_to(tp, sk);
    if (to <= from)
        return 0; /* MSG_PEEK */
    at->copied = to;
    /* Below SO_RCVLOWAT nobody is told, and yet a reader may take what is there. */
    if (at->readable < to)
        at->readable = to;
    tell_interval(tp, at, TP_KIND_COPIED, from, to, now_ns);
    return 0;
}

static __always_inline int on_state(struct sock *sk, int state) {
    if ((state != BPF_TCP_ESTABLISHED && state != BPF_TCP_CLOSE) || !selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
    if (!tp)
        return 0;
    __u64 flags = state == BPF_TCP_ESTABLISHED ? BPF_SK_STORAGE_GET_F_CREATE : 0;
    struct progress *at = bpf_sk_storage_get(&sockets, sk, 0, flags);
    if (state == BPF_TCP_CLOSE) {
        if (at && at->announced)
            tell_closed(tp, sk, at, now_ns);
        return 0;
    }
    if (!at) {
        count(TP_KERNEL_LOST);
        return 0;
    }
    begin(tp, sk, at); /* anew for a socket that was disconnected and connects again: its counters began anew too */
    /* Connected under TCP_REPAIR: its past bytes were another socket's. Later, for a moment, it is how to ask a socket
     * for its sequence numbers. */
    if (BPF_CORE_READ_BITFIELD(tp, repair) || transport_unsupported(tp))
        refuse(at);
    else
        tell_opened(tp, sk, at, now_ns);
    return 0;
}

/* ---- hooks: typed tracepoints ---- */

SEC("tp_btf/sk_data_ready")
int BPF_PROG(tp_readable, struct sock *sk) {
    return on_readable(sk);
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tp_copied, struct sock *sk) {
    return on_copied(sk);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tp_state, struct sock *sk, int before, int state) {
    return on_state(sk, state);
}
