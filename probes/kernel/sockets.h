/* SPDX-License-Identifier: Apache-2.0
 *
 * Which table row a socket has: cookie to handle, in a fixed table as large as the ring's, that never allocates.
 *
 * A closed socket stays known, and its row readable, until its place is needed: what had come before a reset can still
 * be read after it.
 */
#ifndef TICKPATH_KERNEL_SOCKETS_H
#define TICKPATH_KERNEL_SOCKETS_H

#include "tickpath/ring.h"

struct tp_kernel_socket {
    uint64_t cookie; /* 0: free */
    uint64_t used;   /* when it last had a record, or was closed: in records of this table */
    uint32_t next;   /* in its bucket, by index + 1 */
    uint32_t row;
    bool closed;
};

struct tp_kernel_sockets {
    struct tp_ring_writer *ring;
    struct tp_kernel_socket *table;
    uint32_t *buckets; /* index + 1 of the first; as many as places, rounded up to a power of two */
    uint64_t clock;    /* counts uses */
    uint32_t places;
    uint32_t filled; /* places that were ever used */
    uint32_t mask;
};

/* `rows`: how many the ring has. -ENOMEM, -EINVAL (none, or more than a ring can have). */
int tp_kernel_sockets_create(struct tp_kernel_sockets *, struct tp_ring_writer *, uint32_t rows);
void tp_kernel_sockets_destroy(struct tp_kernel_sockets *);

/* Gives a socket a row. When the table is full, the socket closed longest ago is forgotten for it, else the one longest
 * without a record (counted in TP_COUNT_ROWS_EXHAUSTED; the event of its end may have been lost). A cookie that comes
 * again is a socket that connected again. Returns the handle. */
uint32_t tp_kernel_sockets_open(struct tp_kernel_sockets *, uint64_t cookie, const struct tp_row *);

/* The handle of a socket; TP_ROW_NONE when it has none. */
uint32_t tp_kernel_sockets_row(struct tp_kernel_sockets *, uint64_t cookie);

/* Closes its row; the handle, as above. */
uint32_t tp_kernel_sockets_close(struct tp_kernel_sockets *, uint64_t cookie, int64_t closed_ns);

#endif
