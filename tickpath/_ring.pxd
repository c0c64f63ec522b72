# SPDX-License-Identifier: Apache-2.0
# ring.h for Cython, and the writer class that other native parts write through.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from tickpath._event cimport tp_counter, tp_event, tp_row


cdef extern from "tickpath/ring.h" nogil:
    struct tp_ring_header:
        uint32_t rows
        uint64_t capacity
        char name[64]
        char kind[16]
        uint64_t instance
        int64_t started_ns
        uint32_t pid
        uint64_t head

    struct tp_ring_writer:
        uint64_t head

    struct tp_ring_reader:
        const tp_ring_header *header
        uint64_t cursor
        uint64_t lost
        uint32_t rows
        uint64_t inode

    int tp_ring_create(tp_ring_writer *writer, const char *path, const char *kind, uint64_t capacity, uint32_t rows,
                       char *why, size_t why_bytes)
    void tp_ring_close(tp_ring_writer *writer)
    void tp_ring_abandon(tp_ring_writer *writer)
    bint tp_ring_writer_truncated(const tp_ring_writer *writer)
    void tp_ring_write(tp_ring_writer *writer, const tp_event *event)
    void tp_ring_count(tp_ring_writer *writer, tp_counter counter, uint64_t add)
    uint32_t tp_ring_row_open(tp_ring_writer *writer, const tp_row *row)
    void tp_ring_row_update(tp_ring_writer *writer, uint32_t handle, const tp_row *row)
    void tp_ring_row_close(tp_ring_writer *writer, uint32_t handle, int64_t closed_ns)
    int tp_ring_attach(tp_ring_reader *reader, const char *path, char *why, size_t why_bytes)
    void tp_ring_rewind(tp_ring_reader *reader)
    void tp_ring_detach(tp_ring_reader *reader)
    size_t tp_ring_read(tp_ring_reader *reader, tp_event *out, size_t max)
    int tp_ring_row(const tp_ring_reader *reader, uint32_t handle, tp_row *out)
    int tp_ring_row_at(const tp_ring_reader *reader, uint32_t index, tp_row *out, uint32_t *handle)
    int tp_ring_alive(const tp_ring_reader *reader)
    bint tp_ring_stopped(const tp_ring_reader *reader)
    bint tp_ring_truncated(const tp_ring_reader *reader)
    uint64_t tp_ring_counter(const tp_ring_reader *reader, tp_counter counter)


cdef class RingWriter:
    cdef tp_ring_writer writer
    cdef bint is_open
    cdef readonly str name
    cdef readonly str kind
    cdef readonly object path

    cdef tp_ring_writer *raw(self) except NULL
    cdef int _row(self, object row, tp_row *into) except -1


cdef class RingReader:
    cdef tp_ring_reader reader
    cdef bint is_open
    cdef readonly object path

    cdef tp_ring_reader *raw(self) except NULL
