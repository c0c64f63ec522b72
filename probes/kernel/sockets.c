/* SPDX-License-Identifier: Apache-2.0
 *
 * Chained buckets over a table of fixed places.
 */
#include "sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *bucket_of(const struct tp_kernel_sockets *sockets, uint64_t cookie) {
    return &sockets->buckets[(uint32_t)((cookie * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & sockets->mask];
}

int tp_kernel_sockets_create(struct tp_kernel_sockets *sockets, struct tp_ring_writer *ring, uint32_t rows) {
    uint32_t buckets = 16;
    if (rows == 0 || rows > TP_RING_MAX_ROWS)
        return -EINVAL;
    while (buckets < rows)
        buckets *= 2;
    *sockets = (struct tp_kernel_sockets){.ring = ring, .places = rows, .mask = buckets - 1};
    sockets->table = calloc(rows, sizeof(*sockets->table));
    sockets->buckets = calloc(buckets, sizeof(*sockets->buckets));
    if (!sockets->table || !sockets->buckets) {
        tp_kernel_sockets_destroy(sockets);
        return -ENOMEM;
    }
    return 0;
}

void tp_kernel_sockets_destroy(struct tp_kernel_sockets *sockets) {
    free(sockets->table);
    free(sockets->buckets);
    sockets->table = NULL;
    sockets->buckets = NULL;
}

static struct tp_kernel_socket *find(const struct tp_kernel_sockets *sockets, uint64_t cookie) {
    for (uint32_t at = *bucket_of(sockets, cookie); at; at = sockets->table[at - 1].next)
        if (sockets->table[at - 1].cookie == cookie)
            return &sockets->table[at - 1];
    return NULL;
}

static void forget(struct tp_kernel_sockets *sockets, struct tp_kernel_socket *socket) {
    uint32_t *link = bucket_of(sockets, socket->cookie);
    while (&sockets->table[*link - 1] != socket)
        link = &sockets->table[*link - 1].next;
    *link = socket->next;
    memset(socket, 0, sizeof(*socket));
}

static void end(struct tp_kernel_sockets *sockets, struct tp_kernel_socket *socket, int64_t closed_ns) {
    if (socket->closed)
        return;
    tp_ring_row_close(sockets->ring, socket->row, closed_ns);
    socket->closed = true;
    socket->used = ++sockets->clock;
}

static struct tp_kernel_socket *place(struct tp_kernel_sockets *sockets, int64_t now_ns) {
    if (sockets->filled < sockets->places)
        return &sockets->table[sockets->filled++];
    struct tp_kernel_socket *oldest = &sockets->table[0];
    for (uint32_t i = 0; i < sockets->places; i++) {
        struct tp_kernel_socket *socket = &sockets->table[i];
        if (socket->closed != oldest->closed ? socket->closed : socket->used < oldest->used)
            oldest = socket;
    }
    if (!oldest->closed) {
        tp_ring_count(sockets->ring, TP_COUNT_ROWS_EXHAUSTED, 1);
        end(sockets, oldest, now_ns);
    }
    forget(sockets, oldest);
    return oldest;
}

uint32_t tp_kernel_sockets_open(struct tp_kernel_sockets *sockets, uint64_t cookie, const struct tp_row *row) {
    struct tp_kernel_socket *socket = find(sockets, cookie);
    if (socket) {
        end(sockets, socket, row->opened_ns);
    } else {
        socket = place(sockets, row->opened_ns);
        uint32_t *bucket = bucket_of(sockets, cookie);
        socket->cookie = cookie;
        socket->next = *bucket;
        *bucket = (uint32_t)(socket - sockets->table) + 1;
    }
    socket->row = tp_ring_row_open(sockets->ring, row);
    socket->closed = false;
    socket->used = ++sockets->clock;
    return socket->row;
}

uint32_t tp_kernel_sockets_row(struct tp_kernel_sockets *sockets, uint64_t cookie) {
    struct tp_kernel_socket *socket = find(sockets, cookie);
    if (!socket)
        return TP_ROW_NONE;
    if (!socket->closed)
        socket->used = ++sockets->clock;
    return socket->row;
}

uint32_t tp_kernel_sockets_close(struct tp_kernel_sockets *sockets, uint64_t cookie, int64_t closed_ns) {
    struct tp_kernel_socket *socket = find(sockets, cookie);
    if (!socket)
        return TP_ROW_NONE;
    end(sockets, socket, closed_ns);
    return socket->row;
}
