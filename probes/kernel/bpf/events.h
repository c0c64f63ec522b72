/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What every program shares with the loader: its configuration, the buffer of records, the counters.
 *
 * One object file is one compilation unit, so these are defined here.
 */
#ifndef TICKPATH_KERNEL_EVENTS_H
#define TICKPATH_KERNEL_EVENTS_H

#include <linux/bpf.h>

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "../kernel.h"

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

static __always_inline void count_more(enum tp_kernel_counter counter, __u64 more) {
    __u32 key = counter;
    __u64 *total = bpf_map_lookup_elem(&counters, &key);
    if (total)
        __sync_fetch_and_add(total, more); /* a hook in a softirq may interrupt one in a process */
}

static __always_inline void count(enum tp_kernel_counter counter) {
    count_more(counter, 1);
}

/* Room for a record, to be filled and submitted; 0, and the record counted as lost, where there is none. */
static __always_inline void *reserve(__u64 bytes) {
    void *record = bpf_ringbuf_reserve(&events, bytes, 0);
    if (!record)
        count(TP_KERNEL_LOST);
    return record;
}

/* Nobody is woken for it, which would cost more than all the rest: the loader fetches it on a timer. */
static __always_inline void submit(void *record) {
    bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

#endif
