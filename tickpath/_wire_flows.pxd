# SPDX-License-Identifier: Apache-2.0
# wire_flows.h for Cython: which peers are watched, and the table of their flows.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tickpath._ring cimport tp_ring_writer


cdef extern from "tickpath/wire_flows.h" nogil:
    struct tp_wire_selector:
        uint8_t remote[16]
        uint16_t port
        bint any_remote

    struct tp_wire_flows:
        uint32_t used

    int tp_wire_flows_create(tp_wire_flows *flows, tp_ring_writer *ring, uint32_t rows, uint64_t netns)
    void tp_wire_flows_destroy(tp_wire_flows *flows)


cdef inline int fill_selectors(tp_wire_selector *into, selectors) except -1:
    """`into` has room for all. ValueError: a remote address of another size than 16 bytes."""
    cdef Py_ssize_t i
    cdef bytes remote
    for i, selector in enumerate(selectors):
        into[i].port = selector.port
        into[i].any_remote = selector.remote is None
        if selector.remote is not None:
            remote = selector.remote
            if len(remote) != 16:
                raise ValueError("a remote address has 16 bytes")
            memcpy(into[i].remote, <const char *>remote, 16)
    return 0
