/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What is kept of each socket from one event to the next: in the socket itself, or by its cookie where that cannot be.
 */
#ifndef TICKPATH_KERNEL_PROGRESS_H
#define TICKPATH_KERNEL_PROGRESS_H

#include "events.h"
#include "load.h"

#ifdef TP_PROBE_READ

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, __u64);
    __type(value, struct tp_kernel_progress);
} sockets SEC(".maps");

static __always_inline struct tp_kernel_progress *progress_at(struct sock *sk, bool create) {
    __u64 cookie = cookie_of(sk);
    struct tp_kernel_progress *at = cookie ? bpf_map_lookup_elem(&sockets, &cookie) : 0;
    if (at || !create)
        return at;
    if (!cookie) {
        count(TP_KERNEL_NO_COOKIE);
        return 0;
    }
    struct tp_kernel_progress none = {};
    bpf_map_update_elem(&sockets, &cookie, &none, BPF_NOEXIST);
    at = bpf_map_lookup_elem(&sockets, &cookie);
    if (!at)
        count(TP_KERNEL_LOST);
    return at;
}

#else

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct tp_kernel_progress);
} sockets SEC(".maps");

/* 0: it has none, or could have none, which was counted. A new one is all zero. */
static __always_inline struct tp_kernel_progress *progress_at(struct sock *sk, bool create) {
    struct tp_kernel_progress *at = bpf_sk_storage_get(&sockets, sk, 0, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
    if (!at && create)
        count(TP_KERNEL_LOST);
    return at;
}

#endif

#endif
