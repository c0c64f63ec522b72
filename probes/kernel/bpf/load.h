/* SPDX-License-Identifier: GPL-2.0-only
 *
 * How the programs read kernel memory, told apart when they are compiled and nowhere else.
 *
 * Typed: each load is one that the verifier checks, so that lockdown has nothing to forbid. With TP_PROBE_READ: by the
 * helper that copies from any address, which is all that a kprobe has.
 */
#ifndef TICKPATH_KERNEL_LOAD_H
#define TICKPATH_KERNEL_LOAD_H

#include <linux/bpf.h>

#include "types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The field of what a kernel pointer points to; `field` may lie within structures there, never behind a pointer. */
#ifdef TP_PROBE_READ
#define LOAD(pointer, field) BPF_CORE_READ(pointer, field)
#define LOAD_BITS(pointer, field) BPF_CORE_READ_BITFIELD_PROBED(pointer, field)
#else
#define LOAD(pointer, field) ((pointer)->field)
#define LOAD_BITS(pointer, field) BPF_CORE_READ_BITFIELD(pointer, field)
#endif

/* An IPv6 address, to four words. */
#define LOAD_ADDRESS(into, sk, field)                                                                                  \
    do {                                                                                                               \
        (into)[0] = LOAD(sk, field.in6_u.u6_addr32[0]);                                                                \
        (into)[1] = LOAD(sk, field.in6_u.u6_addr32[1]);                                                                \
        (into)[2] = LOAD(sk, field.in6_u.u6_addr32[2]);                                                                \
        (into)[3] = LOAD(sk, field.in6_u.u6_addr32[3]);                                                                \
    } while (0)

#define IPPROTO_TCP 6
#define SOCK_STREAM 1

#ifndef TP_PROBE_READ
/* Linux 6.2. */
extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;
#endif

/* The TCP socket that a whole socket is; 0 when it is another kind. Where the verifier takes the program's word for the
 * type, as it does for a kernel pointer that is only read through, that costs a tenth of a hook less than the helper.
 */
static __always_inline const struct tcp_sock *tcp_of(struct sock *sk) {
#ifndef TP_PROBE_READ
    if (!bpf_rdonly_cast)
        return bpf_skc_to_tcp_sock(sk);
#endif
    if (LOAD(sk, sk_type) != SOCK_STREAM || LOAD_BITS(sk, sk_protocol) != IPPROTO_TCP)
        return 0;
#ifdef TP_PROBE_READ
    return (const struct tcp_sock *)sk;
#else
    return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
#endif
}

/* SO_COOKIE. A probe cannot give one to a socket that has none: 0 then. */
static __always_inline __u64 cookie_of(struct sock *sk) {
#ifdef TP_PROBE_READ
    return LOAD(sk, __sk_common.skc_cookie.counter);
#else
    return bpf_get_socket_cookie(sk);
#endif
}

#endif
