// SPDX-License-Identifier: GPL-2.0-only
/* A program that stands still amid a record of a buffer for as long as it is told, as one whose processor does. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char tp_license[] SEC("license") = "GPL";

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096); /* the one that is held takes its place */
} events SEC(".maps");

struct holding {
    __u64 for_ns;
};

static long spin(__u32 round, __u64 *until_ns) {
    (void)round;
    return bpf_ktime_get_ns() > *until_ns;
}

SEC("syscall")
int tp_hold(struct holding *holding) {
    __u64 until_ns = bpf_ktime_get_ns() + holding->for_ns;
    void *record = bpf_ringbuf_reserve(&events, 64, 0);
    if (!record)
        return 1;
    bpf_loop(1 << 23, spin, &until_ns, 0);
    bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
    return 0;
}
