// SPDX-License-Identifier: GPL-2.0-only
/* The hooks whose arguments the verifier knows by type: every load is a typed one, no probe-read helper. */
#include "connect.h"
#include "stand_in.h"

#include <bpf/bpf_tracing.h>

/* ---- typed tracepoints ---- */

SEC("tp_btf/sk_data_ready")
int BPF_PROG(tp_readable, struct sock *sk) {
    take(sk);
    return on_readable(sk);
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(tp_readable_stand_in, struct sock *sk) {
    return was_taken(sk) ? 0 : on_readable(sk);
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tp_copied, struct sock *sk) {
    return on_copied(sk);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tp_state, struct sock *sk, int before, int state) {
    take(sk);
    return on_step(sk, state, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tp_state_stand_in, struct sock *sk, int before, int state) {
    return was_taken(sk) ? 0 : on_step(sk, state, true);
}

/* ---- entries and returns of functions: all that call them, of whatever protocol ---- */

SEC("fentry/sock_def_readable")
int BPF_PROG(tp_enter_readable, struct sock *sk) {
    take(sk);
    return on_readable(sk);
}

SEC("fentry/sock_def_readable")
int BPF_PROG(tp_enter_stand_in, struct sock *sk) {
    return was_taken(sk) ? 0 : on_readable(sk);
}

SEC("fentry/tcp_rcv_space_adjust")
int BPF_PROG(tp_enter_copied, struct sock *sk) {
    return on_copied(sk);
}

SEC("fentry/tcp_set_state")
int BPF_PROG(tp_enter_state, struct sock *sk, int state) {
    return on_step(sk, state, false);
}

SEC("fentry/tcp_recvmsg")
int BPF_PROG(tp_enter_asked, struct sock *sk) {
    return on_asked(sk);
}

SEC("fexit/tcp_recvmsg")
int BPF_PROG(tp_leave_asked) {
    return on_answered();
}
