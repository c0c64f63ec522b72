/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The few kernel structures that the programs read, by name: where each field lies is found when they are loaded
 * (CO-RE).
 */
#ifndef TICKPATH_KERNEL_TYPES_H
#define TICKPATH_KERNEL_TYPES_H

#include <linux/types.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
    unsigned int inum;
};

struct net {
    struct ns_common ns;
};

typedef struct {
    struct net *net;
} possible_net_t;

struct in6_addr {
    union {
        __be32 u6_addr32[4];
    } in6_u;
};

struct kernfs_node {
    __u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
    struct cgroup *cgroup;
    struct cgroup_subsys_state *parent;
};

struct cgroup {
    struct cgroup_subsys_state self;
    struct kernfs_node *kn;
};

struct sock_cgroup_data {
    struct cgroup *cgroup;
};

typedef struct {
    __s64 counter;
} atomic64_t;

struct sock_common {
    __be32 skc_daddr;
    __be32 skc_rcv_saddr;
    __be16 skc_dport;
    __u16 skc_num;
    unsigned short skc_family;
    unsigned char skc_state;
    possible_net_t skc_net;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
    unsigned long skc_flags;
    atomic64_t skc_cookie;
};

typedef struct {
    int owned;
} socket_lock_t;

struct sock {
    struct sock_common __sk_common;
    socket_lock_t sk_lock;
    struct sock_cgroup_data sk_cgrp_data;
    __u16 sk_type;
    __u16 sk_protocol;
    int sk_err;
    int sk_err_soft;
};

struct inet_sock {
    struct sock sk;
    __be16 inet_sport;
};

struct tcp_ulp_ops;

struct inet_connection_sock {
    struct inet_sock icsk_inet;
    const struct tcp_ulp_ops *icsk_ulp_ops;
};

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 rcv_nxt;
    __u32 copied_seq;
    __u64 bytes_received;
    __u32 segs_out;
    __u32 total_retrans;
    __u32 rcv_ooopack;
    __u16 urg_data;
    __u8 repair : 1;
    bool is_mptcp; /* CONFIG_MPTCP */
};

enum sock_flags { SOCK_DEAD, SOCK_DONE };

#pragma clang attribute pop

#endif
