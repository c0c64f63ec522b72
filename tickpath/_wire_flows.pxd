# SPDX-License-Identifier: Apache-2.0
# wire_flows.h for Cython: which peers are watched, and the table of their flows.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

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
