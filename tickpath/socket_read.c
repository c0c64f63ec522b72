/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a stamped TCP socket; see socket_read.h.
 */
#include "tickpath/socket_read.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "tickpath/event.h"

ssize_t tp_socket_read(struct tp_socket_reader *reader, int flags, int64_t asked_ns) {
    union {
        char bytes[TP_STAMPS_CONTROL_BYTES];
        struct cmsghdr align;
    } control;

    if (reader->start == reader->end) {
        reader->start = 0;
        reader->end = 0;
    } else if (reader->start > 0) {
        memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
        reader->end -= reader->start;
        reader->start = 0;
    }
    size_t space = reader->capacity - reader->end;
    if (space == 0)
        return -ENOBUFS;

    struct iovec into = {.iov_base = reader->buffer + reader->end, .iov_len = space};
    /* Filled anew for every call: the kernel shortens msg_controllen to what it wrote. */
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(reader->fd, &message, flags);
    if (got < 0)
        return -errno;
    if (got == 0)
        return 0;

    reader->returned_ns = tp_socket_now_ns();
    if (tp_stamps_parse(control.bytes, message.msg_controllen, &reader->stamps) < 0)
        reader->malformed_stamps++;
    uint64_t from = reader->received;
    reader->received += (uint64_t)got;
    reader->end += (size_t)got;
    if (reader->ring) {
        struct tp_event event = {
            .kind = TP_KIND_READ,
            .clock = TP_CLOCK_MONOTONIC,
            .source = TP_TIER_A,
            .flags = (size_t)got < space ? TP_READ_DRAINED : 0,
            .row = reader->row,
            .time_ns = reader->returned_ns,
            .read = {.from = from,
                     .to = reader->received,
                     .asked_ns = (uint64_t)asked_ns,
                     .sw_ns = reader->stamps.sw_ns,
                     .hw_ns = reader->stamps.hw_ns},
        };
        tp_ring_write(reader->ring, &event);
    }
    return got;
}

static int received_bytes(int fd, uint64_t *bytes) {
    struct tcp_info info;
    socklen_t length = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        return -errno;
    if (length < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
        return -EOPNOTSUPP;
    /* A FIN moves rcv_nxt too: only an established connection's sequence is a plain sum. */
    if (info.tcpi_state != 1 /* TCP_ESTABLISHED */)
        return -ENOTCONN;
    *bytes = info.tcpi_bytes_received;
    return 0;
}

static int next_sequence(int fd, uint32_t *sequence) {
    int on = 1, off = -1 /* TCP_REPAIR_OFF_NO_WP: no window probe goes out */, queue = 1 /* TCP_RECV_QUEUE */;
    socklen_t length = sizeof(*sequence);
    int failed = 0;

    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
        return -errno;
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) < 0 ||
        getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, sequence, &length) < 0)
        failed = -errno;
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0 && !failed)
        failed = -errno;
    return failed;
}

int tp_socket_learn_irs(int fd, uint32_t *irs) {
    for (int attempt = 0; attempt < 8; attempt++) {
        uint64_t before, after;
        uint32_t sequence;
        int failed;

        if ((failed = received_bytes(fd, &before)) || (failed = next_sequence(fd, &sequence)) ||
            (failed = received_bytes(fd, &after)))
            return failed;
        if (before == after) {
            *irs = sequence - 1 - (uint32_t)before;
            return 0;
        }
    }
    return -EAGAIN;
}
