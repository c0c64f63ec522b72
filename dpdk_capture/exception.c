/* SPDX-License-Identifier: Apache-2.0 */
#include "dpdk_capture/exception.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dpdk_capture/partial.h"
#include "tickpath/packet.h"

#define ETHERNET_BYTES 14
#define TAGS_BYTES 8 /* two VLAN tags lie outside the MTU */
/* A frame that the port received is in one buffer, or in a few where it is longer than those. */
#define MOST_PIECES 16

uint16_t tp_exception_room_bytes(uint32_t mtu_bytes) {
    /* One more than a frame may have, so that a longer one is seen as such. */
    uint32_t room = RTE_PKTMBUF_HEADROOM + mtu_bytes + ETHERNET_BYTES + TAGS_BYTES + 1;
    return room < RTE_MBUF_DEFAULT_BUF_SIZE ? RTE_MBUF_DEFAULT_BUF_SIZE : (uint16_t)RTE_ALIGN(room, 64);
}

int tp_exception_open(struct tp_exception *exception, int fd, uint32_t mtu_bytes, uint64_t tx_offloads,
                      struct rte_mempool *pool) {
    if (rte_pktmbuf_data_room_size(pool) < tp_exception_room_bytes(mtu_bytes))
        return -EMSGSIZE;
    *exception = (struct tp_exception){
        .fd = fd, .frame_bytes = mtu_bytes + ETHERNET_BYTES + TAGS_BYTES, .tx_offloads = tx_offloads, .pool = pool};
    return 0;
}

void tp_exception_close(struct tp_exception *exception) {
    rte_pktmbuf_free_bulk(exception->spare, exception->spares);
    exception->spares = 0;
    close(exception->fd);
    exception->fd = -1;
}

static void fail(struct tp_exception *exception, int error) {
    if (error == EBADFD || error == EBADF)
        exception->error = -error;
}

static bool deliver(struct tp_exception *exception, const struct rte_mbuf *frame) {
    struct virtio_net_hdr header = {0};
    struct iovec pieces[1 + MOST_PIECES] = {{.iov_base = &header, .iov_len = sizeof(header)}};
    int count = 1;

    for (const struct rte_mbuf *piece = frame; piece; piece = piece->next) {
        if (count > MOST_PIECES) {
            exception->counts.to_kernel_refused++;
            return false;
        }
        pieces[count++] =
            (struct iovec){.iov_base = rte_pktmbuf_mtod(piece, void *), .iov_len = rte_pktmbuf_data_len(piece)};
    }
    ssize_t written;
    do
        written = writev(exception->fd, pieces, count);
    while (written < 0 && errno == EINTR);
    if (written >= 0)
        return true;
    if (errno == EIO) {
        exception->counts.to_kernel_down++;
    } else {
        exception->counts.to_kernel_refused++;
        fail(exception, errno);
    }
    return false;
}

uint16_t tp_exception_to_kernel(struct tp_exception *exception, struct rte_mbuf **frames, uint16_t count) {
    uint16_t taken = 0;
    for (uint16_t i = 0; i < count; i++)
        taken += deliver(exception, frames[i]);
    rte_pktmbuf_free_bulk(frames, count);
    exception->counts.to_kernel += taken;
    return taken;
}

/* The port completes it: DPDK, too, wants the sum of the pseudo header in the field. False: not one that it knows. */
static bool leave_to_port(uint64_t offloads, struct rte_mbuf *frame, const uint8_t *bytes,
                          const struct virtio_net_hdr *header) {
    uint64_t flags;
    if (header->csum_offset == TP_PARTIAL_TCP_FIELD && offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
        flags = RTE_MBUF_F_TX_TCP_CKSUM;
    else if (header->csum_offset == TP_PARTIAL_UDP_FIELD && offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
        flags = RTE_MBUF_F_TX_UDP_CKSUM;
    else
        return false;
    uint16_t type = tp_packet_be16(bytes + ETHERNET_BYTES - 2);
    if (header->csum_start <= ETHERNET_BYTES || header->csum_start >= 512)
        return false; /* l3_len has 9 bits */
    if (type == TP_ETHERTYPE_IPV4)
        flags |= RTE_MBUF_F_TX_IPV4;
    else if (type == TP_ETHERTYPE_IPV6)
        flags |= RTE_MBUF_F_TX_IPV6;
    else
        return false;
    frame->l2_len = ETHERNET_BYTES;
    frame->l3_len = header->csum_start - ETHERNET_BYTES;
    frame->ol_flags |= flags;
    return true;
}

/* Makes of what the kernel gave a frame that the port can send; false: it is none. */
static bool finish(const struct tp_exception *exception, struct rte_mbuf *frame, const struct virtio_net_hdr *header,
                   uint32_t length) {
    uint8_t *bytes = rte_pktmbuf_mtod(frame, uint8_t *);
    if (length < ETHERNET_BYTES || length > exception->frame_bytes || header->gso_type != VIRTIO_NET_HDR_GSO_NONE)
        return false;
    frame->data_len = (uint16_t)length;
    frame->pkt_len = length;
    if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return true;
    if ((uint32_t)header->csum_start + header->csum_offset + 2 > length)
        return false;
    return leave_to_port(exception->tx_offloads, frame, bytes, header) ||
           tp_partial_complete(bytes, length, header->csum_start, header->csum_offset);
}

uint16_t tp_exception_from_kernel(struct tp_exception *exception, struct rte_mbuf **frames, uint16_t room) {
    uint16_t taken = 0;
    while (taken < room && !exception->error) {
        if (exception->spares == 0) {
            if (rte_pktmbuf_alloc_bulk(exception->pool, exception->spare, TP_EXCEPTION_SPARES)) {
                exception->counts.starved++;
                break;
            }
            exception->spares = TP_EXCEPTION_SPARES;
        }
        struct rte_mbuf *frame = exception->spare[exception->spares - 1];
        struct virtio_net_hdr header;
        struct iovec pieces[2] = {
            {.iov_base = &header, .iov_len = sizeof(header)},
            {.iov_base = rte_pktmbuf_mtod(frame, void *), .iov_len = rte_pktmbuf_tailroom(frame)},
        };
        ssize_t got = readv(exception->fd, pieces, 2);
        if (got < (ssize_t)sizeof(header)) {
            if (got < 0 && errno == EINTR)
                continue;
            if (got < 0)
                fail(exception, errno);
            break;
        }
        if (!finish(exception, frame, &header, (uint32_t)got - sizeof(header))) {
            exception->counts.from_kernel_bad++;
            continue;
        }
        exception->spares--;
        frames[taken++] = frame;
    }
    exception->counts.from_kernel += taken;
    return taken;
}
