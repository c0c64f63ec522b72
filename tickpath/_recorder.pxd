# SPDX-License-Identifier: Apache-2.0
# What the stamped socket needs of a connection's recorder: where its READ records go.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tickpath._event cimport tp_event, tp_row
from tickpath._ring cimport RingWriter, tp_ring_writer

cdef class Recorder:
    cdef readonly RingWriter ring


cdef class ConnectionRecorder:
    cdef Recorder recorder
    cdef readonly uint32_t row
    cdef readonly bint open
    cdef readonly uint64_t messages
    cdef tp_row state
    cdef tp_event event
    cdef tp_event wide
    cdef int64_t parsed_ns

    cdef tp_ring_writer *writer(self) except NULL
    cdef int _bound(self, int kind, int64_t time_ns, uint64_t received) except -1
    cdef void widen(self) noexcept
    cdef int fill(self, uint64_t end, uint64_t ordinal, uint64_t length, object exchange_ns, int resolution,
                  object transaction_ns, object decode_began_ns, int64_t received_ns, object parsed_ns,
                  int tier) except -1
    cdef int finish(self, object published_ns) except -1
