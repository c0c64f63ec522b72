/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What is kept of each socket from one event to the next.
 */
#ifndef TICKPATH_KERNEL_PROGRESS_H
#define TICKPATH_KERNEL_PROGRESS_H

#include "load.h"

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

/* 0: it has none, or there is no memory for it. A new one is all zero. */
static __always_inline struct progress *progress_at(struct sock *sk, bool create) {
    return bpf_sk_storage_get(&sockets, sk, 0, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

#endif
