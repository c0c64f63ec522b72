/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Of a hook's two programs the second stands in where the kernel left the first one out.
 *
 * The kernel runs no program that is running on that processor already, so what a softirq brings while it interrupts
 * one would go unseen. Another program of the same hook is left out at other moments: never at the same ones, for a
 * softirq interrupts a process and nothing interrupts a softirq that comes to these hooks.
 */
#ifndef TICKPATH_KERNEL_STAND_IN_H
#define TICKPATH_KERNEL_STAND_IN_H

#include "events.h"

/* The socket that the first program took last, until the second has come to it. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} taken SEC(".maps");

static __always_inline volatile __u64 *latest_taken(void) {
    __u32 key = 0;
    return bpf_map_lookup_elem(&taken, &key);
}

/* By the first program, before all else. */
static __always_inline void take(const struct sock *sk) {
    volatile __u64 *latest = latest_taken();
    if (latest)
        *latest = (__u64)sk;
}

/* By the second: whether the first has had this socket. Where it was itself interrupted, or left out, it may say no of
 * one that was had: so what stands in does no harm twice. */
static __always_inline bool was_taken(const struct sock *sk) {
    volatile __u64 *latest = latest_taken();
    if (!latest || *latest != (__u64)sk)
        return false;
    *latest = 0;
    return true;
}

#endif
