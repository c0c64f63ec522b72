# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The tracer for Python: loaded when made, and its loop run without the GIL."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tickpath._ring cimport RingWriter, tp_ring_writer

import os
import socket


cdef extern from "probes/kernel/kernel.h" nogil:
    enum:
        TP_KERNEL_SELECTORS

    struct tp_kernel_selector:
        uint32_t remote[4]
        uint16_t port
        uint8_t any_remote

    struct tp_kernel_config:
        uint64_t cgroup
        uint32_t selectors
        tp_kernel_selector selector[TP_KERNEL_SELECTORS]


cdef extern from "probes/kernel/tracer.h" nogil:
    struct tp_tracer:
        void *object
        tp_ring_writer *ring

    int tp_tracer_load(tp_tracer *tracer, const char *path, const tp_kernel_config *config, uint32_t buffer_bytes,
                       char *why, size_t why_bytes)
    int tp_tracer_attach(tp_tracer *tracer, char *why, size_t why_bytes)
    int tp_tracer_write_to(tp_tracer *tracer, tp_ring_writer *ring, uint32_t rows)
    int tp_tracer_run(tp_tracer *tracer, int stop_fd, int interval_ms)
    void tp_tracer_close(tp_tracer *tracer)


cdef class Tracer:
    cdef RingWriter ring
    cdef tp_tracer tracer

    def __cinit__(self, object_file, selectors, *, uint64_t cgroup, uint32_t buffer_bytes):
        cdef char why[256]
        cdef int error
        cdef bytes path = os.fsencode(object_file)
        cdef tp_kernel_config config = _config(selectors, cgroup)
        error = tp_tracer_load(&self.tracer, path, &config, buffer_bytes, why, sizeof(why))
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))

    def __dealloc__(self):
        tp_tracer_close(&self.tracer)

    def attach(self):
        cdef char why[256]
        cdef int error
        self._check_open()
        error = tp_tracer_attach(&self.tracer, why, sizeof(why))
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))

    def write_to(self, RingWriter ring not None, *, uint32_t rows):
        cdef int error
        self._check_open()
        if self.ring is not None:
            raise ValueError("the tracer has its ring")
        error = tp_tracer_write_to(&self.tracer, ring.raw(), rows)
        if error:
            raise OSError(-error, os.strerror(-error))
        self.ring = ring

    def run(self, int stop_fd, int interval_ms):
        cdef int error
        self._check_open()
        if self.ring is None:
            raise ValueError("the tracer has no ring")
        with nogil:
            error = tp_tracer_run(&self.tracer, stop_fd, interval_ms)
        return -error

    def close(self):
        tp_tracer_close(&self.tracer)

    def _check_open(self):
        if self.tracer.object == NULL:
            raise ValueError("the tracer is closed")


cdef tp_kernel_config _config(selectors, uint64_t cgroup) except *:
    cdef tp_kernel_config config
    cdef Py_ssize_t i
    cdef bytes remote
    memset(&config, 0, sizeof(config))
    if len(selectors) > TP_KERNEL_SELECTORS:
        raise ValueError(f"at most {TP_KERNEL_SELECTORS} selectors")
    config.cgroup = cgroup
    config.selectors = <uint32_t>len(selectors)
    for i, selector in enumerate(selectors):
        config.selector[i].port = socket.htons(selector.port)
        config.selector[i].any_remote = selector.remote is None
        if selector.remote is not None:
            remote = selector.remote
            if len(remote) != 16:
                raise ValueError("a remote address has 16 bytes")
            memcpy(config.selector[i].remote, <const char *>remote, 16)
    return config
