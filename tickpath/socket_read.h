/* SPDX-License-Identifier: Apache-2.0
 *
 * One read of a stamped TCP socket: recvmsg with its timestamps, the stream offsets it covers, and its READ record.
 */
#ifndef TICKPATH_SOCKET_READ_H
#define TICKPATH_SOCKET_READ_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "tickpath/ring.h"
#include "tickpath/stamps.h"

struct tp_socket_reader {
    int fd;
    uint8_t *buffer;
    size_t capacity;
    size_t start; /* buffer[start, end) is received and not yet taken */
    size_t end;
    uint64_t received;           /* stream offset of buffer[end] */
    int64_t returned_ns;         /* monotonic: the last read that brought bytes returned */
    struct tp_stamps stamps;     /* of that read */
    uint64_t malformed_stamps;   /* control messages that could not be read */
    struct tp_ring_writer *ring; /* NULL: no records are written */
    uint32_t row;
};

static inline int64_t tp_socket_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Reads once into the free end of the buffer, what is not yet taken being moved to its front first, and writes the
 * READ record. `asked_ns` is when the application called for data.
 * @return bytes read, 0 at the end of the stream, or a negative errno */
ssize_t tp_socket_read(struct tp_socket_reader *reader, int flags, int64_t asked_ns);

/* @return the peer's initial sequence number, learnt through TCP_REPAIR before it has sent anything that matters, in
 * `irs`; 0, or -EPERM without CAP_NET_ADMIN, -EAGAIN when bytes kept arriving meanwhile, another negative errno */
int tp_socket_learn_irs(int fd, uint32_t *irs);

#endif
