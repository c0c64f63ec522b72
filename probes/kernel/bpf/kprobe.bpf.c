// SPDX-License-Identifier: GPL-2.0-only
/* The same hooks as kprobes, for kernels whose types or trampolines cannot be used: memory is read by helpers. */
#define TP_PROBE_READ
#include "connect.h"

#include <linux/ptrace.h>

#include <bpf/bpf_tracing.h>

SEC("kprobe/sock_def_readable")
int BPF_KPROBE(tp_probe_readable, struct sock *sk) {
    return on_readable(sk);
}

SEC("kprobe/tcp_rcv_space_adjust")
int BPF_KPROBE(tp_probe_copied, struct sock *sk) {
    return on_copied(sk);
}

SEC("kprobe/tcp_set_state")
int BPF_KPROBE(tp_probe_state, struct sock *sk, int state) {
    return on_step(sk, state, false);
}

SEC("kprobe/tcp_recvmsg")
int BPF_KPROBE(tp_probe_asked, struct sock *sk) {
    return on_asked(sk);
}

SEC("kretprobe/tcp_recvmsg")
int BPF_KPROBE(tp_probe_answered) {
    return on_answered();
}
