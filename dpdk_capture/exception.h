/* SPDX-License-Identifier: Apache-2.0
 *
 * The exception path: frames of a port that DPDK owns, to the kernel and from it, through a TAP (tap.h).
 *
 * One thread, the poll loop, uses it. A write to the TAP runs the kernel's receive path, TCP included, before it
 * returns; a read that finds nothing costs a system call. Both are therefore part of the loop's interval, and so of
 * the bound of its stamps.
 */
#ifndef TICKPATH_DPDK_EXCEPTION_H
#define TICKPATH_DPDK_EXCEPTION_H

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#define TP_EXCEPTION_SPARES 32

/* Checksums that the kernel leaves to us go on to the port where these are on (its txmode.offloads); else they are
 * completed here. */
#define TP_EXCEPTION_TX_OFFLOADS                                                                                       \
    (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)

/* Frames since it was opened, written by the loop alone. */
struct tp_exception_counts {
    uint64_t to_kernel;         /* taken by the kernel */
    uint64_t to_kernel_down;    /* dropped: the TAP is down */
    uint64_t to_kernel_refused; /* dropped: the kernel had no memory for it, would not take it, or the TAP is gone */
    uint64_t from_kernel;       /* handed to the loop */
    uint64_t from_kernel_bad;   /* dropped: longer than the port's MTU, not segmented, its checksum nowhere, the driver
                                  cannot send it, or it still waited for the port at the end */
    uint64_t starved;           /* times that no buffer was free: frames waited in the kernel */
};

struct tp_exception {
    int fd;               /* of the TAP */
    int error;            /* negative errno once the TAP cannot be used any more (-EBADFD: it was removed), for good */
    uint32_t frame_bytes; /* the largest frame that the port sends */
    uint64_t tx_offloads;
    struct rte_mempool *pool;
    uint32_t spares; /* buffers to read into */
    struct rte_mbuf *spare[TP_EXCEPTION_SPARES];
    struct tp_exception_counts counts;
};

/* Takes over the TAP's descriptor. `pool` has buffers that hold a whole frame of `mtu_bytes`, or it is refused with
 * -EMSGSIZE. */
int tp_exception_open(struct tp_exception *, int fd, uint32_t mtu_bytes, uint64_t tx_offloads,
                      struct rte_mempool *pool);
/* The TAP stays. */
void tp_exception_close(struct tp_exception *);

/* Room that a buffer of tp_exception_open's pool needs, RTE_PKTMBUF_HEADROOM included. */
uint16_t tp_exception_room_bytes(uint32_t mtu_bytes);

/* Hands frames from the port to the kernel. All are its own now: what the kernel does not take is counted, and every
 * one is freed. How many the kernel took. */
uint16_t tp_exception_to_kernel(struct tp_exception *, struct rte_mbuf **frames, uint16_t count);

/* Takes at most `room` frames for the port from the kernel; they are the caller's. What there is no room for stays in
 * the TAP's queue, and behind that in the kernel's, which then slows down who sends. */
uint16_t tp_exception_from_kernel(struct tp_exception *, struct rte_mbuf **frames, uint16_t room);

#endif
