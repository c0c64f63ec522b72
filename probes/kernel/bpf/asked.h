/* SPDX-License-Identifier: GPL-2.0-only
 *
 * When each thread that is reading asked for it: from the entry of tcp_recvmsg to its return.
 *
 * By thread and not by socket, for several may wait on one. Until its return, for a splice has no entry that is seen
 * here and must not be given an older one's.
 */
#ifndef TICKPATH_KERNEL_ASKED_H
#define TICKPATH_KERNEL_ASKED_H

#include "select.h"

struct asking {
    __u64 sk; /* its address, to be compared */
    __u64 asked_ns;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, __u64);
    __type(value, struct asking);
} asking SEC(".maps");

static __always_inline int on_asked(struct sock *sk) {
    if (!selected(sk) || !caller_selected())
        return 0;
    __u64 thread = bpf_get_current_pid_tgid();
    struct asking *known = bpf_map_lookup_elem(&asking, &thread);
    struct asking now = {.sk = (__u64)sk, .asked_ns = bpf_ktime_get_ns()};
    if (known)
        *known = now;
    else
        bpf_map_update_elem(&asking, &thread, &now, BPF_ANY);
    return 0;
}

/* The one return probe has no arguments: by thread alone. */
static __always_inline int on_answered(void) {
    __u64 thread = bpf_get_current_pid_tgid();
    struct asking *known = bpf_map_lookup_elem(&asking, &thread);
    if (known)
        known->asked_ns = 0;
    return 0;
}

/* When the current thread asked for what it is being given; 0: not known. */
static __always_inline __u64 asked_ns(const struct sock *sk, __u64 thread) {
    if (!config.asked)
        return 0;
    const struct asking *known = bpf_map_lookup_elem(&asking, &thread);
    return known && known->sk == (__u64)sk ? known->asked_ns : 0;
}

#endif
