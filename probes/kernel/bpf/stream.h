/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Where in the stream each selected TCP socket is: readable when rcv_nxt passed a byte, copied when copied_seq did.
 *
 * The hooks run under the socket's lock, one at a time for each socket; so its storage needs none of its own.
 */
#ifndef TICKPATH_KERNEL_STREAM_H
#define TICKPATH_KERNEL_STREAM_H

#include "asked.h"
#include "progress.h"
#include "select.h"

/* ---- where a socket is ---- */

/* A FIN takes a sequence number, and bytes_received counts it. */
static __always_inline __u32 fin(const struct sock *sk) {
    return LOAD(sk, __sk_common.skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1;
}

static __always_inline __u64 readable_to(const struct tcp_sock *tp, const struct sock *sk) {
    return LOAD(tp, bytes_received) - fin(sk);
}

static __always_inline __u64 copied_to(const struct tcp_sock *tp, const struct sock *sk) {
    __u64 copied = LOAD(tp, bytes_received) - (__u32)(LOAD(tp, rcv_nxt) - LOAD(tp, copied_seq)),
          end = readable_to(tp, sk);
    return copied < end ? copied : end;
}

static __always_inline __u32 sequence_of(const struct tcp_sock *tp, __u64 offset) {
    return LOAD(tp, rcv_nxt) - (__u32)(LOAD(tp, bytes_received) - offset);
}

/* ---- what is told ---- */

static __always_inline void tell_interval(const struct tcp_sock *tp, const struct sock *sk,
                                          const struct tp_kernel_progress *at, enum tp_kind kind, __u64 from, __u64 to,
                                          __u64 now_ns) {
    struct tp_event *event = reserve(sizeof(*event));
    if (!event)
        return;
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
    __u64 reader = kind == TP_KIND_COPIED ? bpf_get_current_pid_tgid() : 0;
    event->interval.pid = reader >> 32;
    event->interval.asked_ns = reader ? asked_ns(sk, reader) : 0;
    submit(event);
}

static __always_inline void tell_addresses(struct tp_kernel_opened *opened, const struct sock *sk) {
    if (LOAD(sk, __sk_common.skc_family) == AF_INET) {
        opened->local[0] = opened->local[1] = opened->remote[0] = opened->remote[1] = 0;
        opened->local[2] = opened->remote[2] = bpf_htonl(0xffff);
        opened->local[3] = LOAD(sk, __sk_common.skc_rcv_saddr);
        opened->remote[3] = LOAD(sk, __sk_common.skc_daddr);
    } else {
        LOAD_ADDRESS(opened->local, sk, __sk_common.skc_v6_rcv_saddr);
        LOAD_ADDRESS(opened->remote, sk, __sk_common.skc_v6_daddr);
    }
    opened->local_port = LOAD(sk, __sk_common.skc_num);
    opened->remote_port = bpf_ntohs(LOAD(sk, __sk_common.skc_dport));
    const struct net *net = LOAD(sk, __sk_common.skc_net.net);
    opened->netns = LOAD(net, ns.inum);
}

static __always_inline void tell_opened(const struct tcp_sock *tp, const struct sock *sk, struct tp_kernel_progress *at,
                                        __u64 now_ns) {
    struct tp_kernel_opened *opened = reserve(sizeof(*opened));
    if (!opened)
        return;
    __builtin_memset(&opened->event, 0, sizeof(opened->event));
    opened->event.kind = TP_KIND_OPENED;
    opened->event.clock = TP_CLOCK_MONOTONIC;
    opened->event.row = TP_ROW_NONE;
    opened->event.time_ns = now_ns;
    opened->event.connection.cookie = at->cookie;
    tell_addresses(opened, sk);
    opened->irs = sequence_of(tp, 0) - 1;
    submit(opened);
    at->announced = true;
}

static __always_inline void tell_closed(const struct tcp_sock *tp, const struct sock *sk, struct tp_kernel_progress *at,
                                        __u64 now_ns) {
    struct tp_event *event = reserve(sizeof(*event));
    if (!event)
        return;
    __builtin_memset(event, 0, sizeof(*event));
    event->kind = TP_KIND_CLOSED;
    event->clock = TP_CLOCK_MONOTONIC;
    event->row = TP_ROW_NONE;
    event->time_ns = now_ns;
    event->connection.cookie = at->cookie;
    event->connection.bytes = readable_to(tp, sk);
    submit(event);
}

/* ---- what is kept ---- */

/* kTLS and MPTCP subflows have an upper layer protocol: their copied_seq moves before user space has the bytes. An
 * urgent byte counts in the sequence and not in what is read. */
static __always_inline bool transport_unsupported(const struct tcp_sock *tp) {
    if (LOAD(tp, inet_conn.icsk_ulp_ops) || LOAD(tp, urg_data))
        return true;
    return bpf_core_field_exists(tp->is_mptcp) && LOAD(tp, is_mptcp);
}

static __always_inline void refuse(struct tp_kernel_progress *at) {
    if (!at->unsupported)
        count(TP_KERNEL_UNSUPPORTED);
    at->unsupported = true;
}

/* What came before a socket was first seen is not known: its intervals begin where it is now. */
static __always_inline void begin(const struct tcp_sock *tp, struct sock *sk, struct tp_kernel_progress *at) {
    at->readable = readable_to(tp, sk);
    at->copied = copied_to(tp, sk);
    at->cookie = cookie_of(sk);
    at->out_of_order = LOAD(tp, rcv_ooopack);
    at->retransmits = LOAD(tp, total_retrans);
    at->announced = at->unsupported = at->closed = false;
}

/* What the socket has counted since the event before. */
static __always_inline void tally(const struct tcp_sock *tp, struct tp_kernel_progress *at) {
    __u32 out_of_order = LOAD(tp, rcv_ooopack), retransmits = LOAD(tp, total_retrans);
    if (out_of_order != at->out_of_order)
        count_more(TP_KERNEL_OUT_OF_ORDER, out_of_order - at->out_of_order);
    if (retransmits != at->retransmits)
        count_more(TP_KERNEL_RETRANSMITS, retransmits - at->retransmits);
    at->out_of_order = out_of_order;
    at->retransmits = retransmits;
}

/* The progress of a socket to tell of, else 0. In a system call its caller makes the socket one, where processes were
 * named. */
static __always_inline struct tp_kernel_progress *progress_of(const struct tcp_sock *tp, struct sock *sk,
                                                              bool in_system_call, __u64 now_ns) {
    bool claims = config.pids == 0 || (in_system_call && caller_selected());
    struct tp_kernel_progress *at = progress_at(sk, claims);
    if (!at)
        return 0;
    if (claims)
        at->claimed = true;
    if (!at->claimed)
        return 0;
    if (!at->cookie)
        begin(tp, sk, at);
    if (transport_unsupported(tp))
        refuse(at);
    if (at->unsupported)
        return 0;
    tally(tp, at);
    if (!at->announced)
        tell_opened(tp, sk, at, now_ns);
    return at;
}

/* ---- handlers ---- */

static __always_inline int on_readable(struct sock *sk) {
    if (!selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    const struct tcp_sock *tp = tcp_of(sk);
    struct tp_kernel_progress *at = tp ? progress_of(tp, sk, false, now_ns) : 0;
    if (!at)
        return 0;
    __u64 from = at->readable, to = readable_to(tp, sk);
    if (to <= from)
        return 0;
    at->readable = to;
    tell_interval(tp, sk, at, TP_KIND_READABLE, from, to, now_ns);
    return 0;
}

static __always_inline int on_copied(struct sock *sk) {
    if (!selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    const struct tcp_sock *tp = tcp_of(sk);
    struct tp_kernel_progress *at = tp ? progress_of(tp, sk, true, now_ns) : 0;
    if (!at)
        return 0;
    __u64 from = at->copied, to = copied_to(tp, sk);
    if (to <= from)
        return 0; /* MSG_PEEK */
    at->copied = to;
    /* Below SO_RCVLOWAT nobody is told, and yet a reader may take what is there. */
    if (at->readable < to)
        at->readable = to;
    tell_interval(tp, sk, at, TP_KIND_COPIED, from, to, now_ns);
    return 0;
}

static __always_inline void on_established(const struct tcp_sock *tp, struct sock *sk, __u64 now_ns) {
    struct tp_kernel_progress *at = progress_at(sk, config.pids == 0);
    if (!at || (config.pids && !at->claimed) || at->announced || at->unsupported)
        return;
    begin(tp, sk, at); /* anew for a socket that was disconnected and connects again: its counters began anew too */
    /* Connected under TCP_REPAIR: its past bytes were another socket's. Later, for a moment, it is how to ask a socket
     * for its sequence numbers. */
    if (LOAD_BITS(tp, repair) || transport_unsupported(tp))
        refuse(at);
    else
        tell_opened(tp, sk, at, now_ns);
    at->out_of_order = at->retransmits = 0; /* the handshake's count too */
    tally(tp, at);
}

static __always_inline void on_closed(const struct tcp_sock *tp, struct sock *sk, __u64 now_ns) {
    struct tp_kernel_progress *at = progress_at(sk, false);
    if (!at || !at->announced || at->closed)
        return;
    at->closed = true;
    tally(tp, at);
    tell_closed(tp, sk, at, now_ns);
}

/* The step to SYN_SENT is in the system call, connect() or its like; any other may be in a softirq. */
static __always_inline void on_connecting(struct sock *sk) {
    bool claims = config.pids && caller_selected();
    struct tp_kernel_progress *at = progress_at(sk, claims);
    if (!at)
        return;
    at->announced = at->unsupported = false; /* what it was connected to before */
    if (claims)
        at->claimed = true;
}

/* `state` is the one to come. A step that is looked at twice is told once. */
static __always_inline int on_state(struct sock *sk, int state) {
    if ((state != BPF_TCP_ESTABLISHED && state != BPF_TCP_CLOSE && state != BPF_TCP_SYN_SENT) || !selected(sk))
        return 0;
    __u64 now_ns = bpf_ktime_get_ns();
    const struct tcp_sock *tp = tcp_of(sk);
    if (!tp)
        return 0;
    if (state == BPF_TCP_SYN_SENT)
        on_connecting(sk);
    else if (state == BPF_TCP_ESTABLISHED)
        on_established(tp, sk, now_ns);
    else
        on_closed(tp, sk, now_ns);
    return 0;
}

#endif
