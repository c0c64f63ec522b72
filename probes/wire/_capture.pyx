# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The capture loop for Python: one object per interface, which runs in a thread of its own without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from tickpath._ring cimport RingWriter, tp_ring_writer
from tickpath._wire_flows cimport (
    fill_selectors, tp_wire_flows, tp_wire_flows_create, tp_wire_flows_destroy, tp_wire_selector
)

import errno
import os


cdef extern from "probes/wire/merging.h" nogil:
    bint tp_wire_merging(int fd, const char *interface)


cdef extern from "probes/wire/hardware.h" nogil:
    struct tp_wire_hardware:
        uint32_t nic_count
    int tp_wire_hardware_add(tp_wire_hardware *, uint32_t ifindex, uint32_t phc, const char *path, uint32_t samples,
                             int64_t every_ns)
    void tp_wire_hardware_clear(tp_wire_hardware *)


cdef extern from "probes/wire/capture.h" nogil:
    struct sock_filter:
        pass

    struct sock_fprog:
        uint16_t len
        sock_filter *filter

    struct tp_wire_socket:
        int fd
        uint32_t ifindex

    struct tp_wire:
        tp_ring_writer *ring
        tp_wire_flows flows
        const tp_wire_selector *selectors
        uint32_t selector_count
        tp_wire_hardware hardware

    int tp_wire_soften(tp_wire *wire, tp_wire_socket *socket)
    int tp_wire_open(tp_wire_socket *wire, const char *interface, const sock_fprog *ethernet,
                     const sock_fprog *bare, uint32_t buffer_bytes, uint32_t block_bytes, bint hardware, char *why, size_t why_bytes)
    void tp_wire_close(tp_wire_socket *wire)
    int tp_wire_state(const tp_wire_socket *wire)
    int tp_wire_run(tp_wire *wire, tp_wire_socket *socket, int stop_fd, int clock_fd)


cdef extern from "tickpath/clock.h" nogil:
    int tp_clock_watch_open()


cdef extern from *:
    """
    enum { TP_WIRE_INSTRUCTION_BYTES = sizeof(struct sock_filter) };
    """
    enum:
        TP_WIRE_INSTRUCTION_BYTES
        TP_WIRE_SNAP_BYTES

SNAP_BYTES = TP_WIRE_SNAP_BYTES


cdef class Capture:
    cdef RingWriter ring
    cdef bytes ethernet
    cdef bytes bare
    cdef tp_wire wire
    cdef tp_wire_socket socket
    cdef tp_wire_selector *selectors
    cdef int clock_fd
    cdef readonly str interface

    def __cinit__(self, str interface not None, bytes ethernet not None, bytes bare not None, selectors):
        self.socket.fd = -1
        self.clock_fd = -1
        self.interface = interface
        self.ethernet = ethernet
        self.bare = bare
        self.selectors = <tp_wire_selector *>calloc(max(len(selectors), 1), sizeof(tp_wire_selector))
        if self.selectors == NULL:
            raise MemoryError
        fill_selectors(self.selectors, selectors)
        self.wire.selectors = self.selectors
        self.wire.selector_count = <uint32_t>len(selectors)
        self.clock_fd = _check(tp_clock_watch_open(), "timerfd")

    def __dealloc__(self):
        tp_wire_close(&self.socket)
        tp_wire_flows_destroy(&self.wire.flows)
        tp_wire_hardware_clear(&self.wire.hardware)
        if self.clock_fd >= 0:
            os.close(self.clock_fd)
        free(self.selectors)

    def open(self, *, uint32_t buffer_bytes, uint32_t block_bytes, bint hardware):
        cdef char why[160]
        cdef int error
        cdef bytes name = self.interface.encode()
        cdef sock_fprog ethernet = _program(self.ethernet)
        cdef sock_fprog bare = _program(self.bare)
        error = tp_wire_state(&self.socket)
        if error == 0:
            return
        if error == -errno.ENETDOWN:
            raise OSError(errno.ENETDOWN, "it is down")
        tp_wire_close(&self.socket)
        error = tp_wire_open(&self.socket, name, &ethernet, &bare, buffer_bytes, block_bytes, hardware, why,
                             sizeof(why))
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))

    def write_to(self, RingWriter ring not None, *, uint32_t rows, uint64_t netns):
        if self.ring is not None:
            raise ValueError("the capture has its ring")
        _check(tp_wire_flows_create(&self.wire.flows, ring.raw(), rows, netns), "flow table")
        self.ring = ring
        self.wire.ring = ring.raw()

    def stamped_by(self, uint32_t ifindex, uint32_t phc, str path, *, uint32_t samples, int64_t every_ns):
        cdef bytes name = os.fsencode(path)
        _check(tp_wire_hardware_add(&self.wire.hardware, ifindex, phc, name, samples, every_ns), path)

    def soften(self):
        _check(tp_wire_soften(&self.wire, &self.socket), "PACKET_TIMESTAMP")

    def run(self, int stop_fd):
        cdef int error
        if self.socket.fd < 0 or self.ring is None:
            raise ValueError("the capture is not open, or has no ring")
        with nogil:
            error = tp_wire_run(&self.wire, &self.socket, stop_fd, self.clock_fd)
        return -error

    def close(self):
        tp_wire_close(&self.socket)


def merges(str interface not None):
    import socket

    cdef bytes name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        return tp_wire_merging(asked.fileno(), name)


cdef sock_fprog _program(bytes code) except *:
    """Borrows the bytes."""
    cdef sock_fprog program
    if len(code) == 0 or len(code) % TP_WIRE_INSTRUCTION_BYTES:
        raise ValueError(f"{len(code)} bytes are no filter program")
    program.len = <uint16_t>(len(code) // TP_WIRE_INSTRUCTION_BYTES)
    program.filter = <sock_filter *><const char *>code
    return program


cdef int _check(int result, str what) except -1:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result
