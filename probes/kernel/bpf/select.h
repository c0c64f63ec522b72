/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Which sockets are of interest: by their peer, by the cgroup that made them, by the process that uses them.
 */
#ifndef TICKPATH_KERNEL_SELECT_H
#define TICKPATH_KERNEL_SELECT_H

#include "events.h"
#include "load.h"

#include <bpf/bpf_endian.h>

#define AF_INET 2
#define AF_INET6 10

static __always_inline bool remote_is(const struct sock *sk, const volatile struct tp_kernel_selector *wanted) {
    __u32 remote[4] = {0, 0, bpf_htonl(0xffff), 0};
    if (LOAD(sk, __sk_common.skc_family) == AF_INET)
        remote[3] = LOAD(sk, __sk_common.skc_daddr);
    else
        LOAD_ADDRESS(remote, sk, __sk_common.skc_v6_daddr);
    return wanted->remote[0] == remote[0] && wanted->remote[1] == remote[1] && wanted->remote[2] == remote[2] &&
           wanted->remote[3] == remote[3];
}

/* How deep below the wanted cgroup a socket's may lie. */
#define CGROUP_DEPTH 16

static __always_inline bool cgroup_within(const struct sock *sk, __u64 wanted) {
    const struct cgroup *cgroup = LOAD(sk, sk_cgrp_data.cgroup);
    for (int i = 0; i < CGROUP_DEPTH && cgroup; i++) {
        const struct kernfs_node *node = LOAD(cgroup, kn);
        if (LOAD(node, id) == wanted)
            return true;
        /* By the parent: the array of all ancestors has had several forms, and typed access to none. */
        const struct cgroup_subsys_state *parent = LOAD(cgroup, self.parent);
        if (!parent)
            return false;
        cgroup = LOAD(parent, cgroup);
    }
    return false;
}

static __always_inline bool peer_selected(const struct sock *sk) {
    if (config.selectors == 0)
        return true;
    __u16 port = LOAD(sk, __sk_common.skc_dport);
    for (__u32 i = 0; i < TP_KERNEL_SELECTORS && i < config.selectors; i++) {
        const volatile struct tp_kernel_selector *wanted = &config.selector[i];
        if (wanted->port == port && (wanted->any_remote || remote_is(sk, wanted)))
            return true;
    }
    return false;
}

static __always_inline bool selected(const struct sock *sk) {
    __u16 family = LOAD(sk, __sk_common.skc_family);
    if (family != AF_INET && family != AF_INET6)
        return false;
    if (LOAD(sk, __sk_common.skc_state) == BPF_TCP_LISTEN || !peer_selected(sk))
        return false;
    return config.cgroup == 0 || cgroup_within(sk, config.cgroup);
}

/* Whether the caller is one of the wanted processes: for hooks in system calls, never in a softirq, which may have
 * interrupted anybody. */
static __always_inline bool caller_selected(void) {
    __u32 pid = bpf_get_current_pid_tgid() >> 32;
    for (__u32 i = 0; i < TP_KERNEL_PIDS && i < config.pids; i++)
        if (config.pid[i] == pid)
            return true;
    return config.pids == 0;
}

#endif
