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
        TP_KERNEL_PIDS
        TP_KERNEL_SELECTORS

    struct tp_kernel_selector:
        uint32_t remote[4]
        uint16_t port
        uint8_t any_remote

    struct tp_kernel_config:
        uint64_t cgroup
        uint32_t selectors
        uint32_t pids
        tp_kernel_selector selector[TP_KERNEL_SELECTORS]
        uint32_t pid[TP_KERNEL_PIDS]
        uint8_t connects_only


cdef extern from "probes/kernel/rungs.h" nogil:
    enum:
        TP_HOOKS
        TP_HOOKS_ALL
        TP_MODES
        TP_ADOPTED
        TP_HOOK_PROGRAMS

    enum tp_hook:
        TP_HOOK_STATE

    enum tp_mode:
        TP_MODE_NONE

    struct tp_attached:
        tp_mode mode
        char why[256]

    struct tp_rungs:
        tp_attached hooks[TP_HOOKS]

    struct tp_rungs_wanted:
        const char *typed_path
        const char *kprobe_path
        const char *btf_path
        tp_kernel_config config
        uint32_t buffer_bytes
        uint32_t hooks
        tp_mode only

    struct tp_adopted:
        int events
        int counters
        int programs[TP_HOOK_PROGRAMS]
        int tracepoints[TP_ADOPTED]

    const char *tp_hook_name(tp_hook hook)
    const char *tp_mode_name(tp_mode mode)
    int tp_rungs_claim(const tp_rungs *rungs, int socket_fd)


cdef extern from "probes/kernel/cost.h" nogil:
    struct tp_kernel_cost:
        int stats_fd

    int tp_kernel_cost_open(tp_kernel_cost *cost)
    void tp_kernel_cost_of(const tp_attached *attached, uint64_t *ns, uint64_t *runs)


cdef extern from "probes/kernel/tracer.h" nogil:
    struct tp_tracer:
        tp_rungs rungs
        void *events
        tp_kernel_cost cost

    int tp_tracer_open(tp_tracer *tracer, const tp_rungs_wanted *wanted, char *why, size_t why_bytes)
    int tp_tracer_adopt(tp_tracer *tracer, const tp_adopted *adopted, char *why, size_t why_bytes)
    int tp_tracer_write_to(tp_tracer *tracer, tp_ring_writer *ring, uint32_t rows)
    int tp_tracer_run(tp_tracer *tracer, int stop_fd, int interval_ms)
    void tp_tracer_close(tp_tracer *tracer)


_MODES = {tp_mode_name(<tp_mode>mode).decode(): mode for mode in range(TP_MODES)}
MODES = tuple(_MODES)


cdef class Tracer:
    cdef RingWriter ring
    cdef tp_tracer tracer

    def __cinit__(self, typed, kprobe, selectors, *, uint64_t cgroup, pids, uint32_t buffer_bytes, only, btf,
                  bint connects_only=False, adopted=None):
        cdef char why[256]
        cdef int error
        cdef bytes typed_path = os.fsencode(typed), kprobe_path = os.fsencode(kprobe), btf_path
        cdef tp_rungs_wanted wanted
        cdef tp_adopted taken
        if adopted is not None:
            taken = _adopted(adopted)
            error = tp_tracer_adopt(&self.tracer, &taken, why, sizeof(why))
            if error:
                raise OSError(-error, why.decode("utf-8", "replace"))
            return
        memset(&wanted, 0, sizeof(wanted))
        wanted.typed_path = typed_path
        wanted.kprobe_path = kprobe_path
        if btf is not None:
            btf_path = os.fsencode(btf)
            wanted.btf_path = btf_path
        wanted.config = _config(selectors, cgroup, pids)
        wanted.config.connects_only = connects_only
        wanted.buffer_bytes = buffer_bytes
        wanted.hooks = 1 << TP_HOOK_STATE if connects_only else TP_HOOKS_ALL
        wanted.only = TP_MODE_NONE if only is None else <tp_mode><int>_MODES[only]
        with nogil:
            error = tp_tracer_open(&self.tracer, &wanted, why, sizeof(why))
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))

    def __dealloc__(self):
        tp_tracer_close(&self.tracer)

    @property
    def modes(self):
        self._check_open()
        return {
            tp_hook_name(<tp_hook>hook).decode(): tp_mode_name(self.tracer.rungs.hooks[hook].mode).decode()
            for hook in range(TP_HOOKS)
        }

    @property
    def refusals(self):
        self._check_open()
        found = {
            tp_hook_name(<tp_hook>hook).decode(): self.tracer.rungs.hooks[hook].why.decode("utf-8", "replace")
            for hook in range(TP_HOOKS)
        }
        return {hook: why for hook, why in found.items() if why}

    def claim(self, int socket_fd):
        cdef int error
        self._check_open()
        error = tp_rungs_claim(&self.tracer.rungs, socket_fd)
        if error:
            raise OSError(-error, os.strerror(-error))

    def count_cost(self):
        cdef int error
        self._check_open()
        if self.tracer.cost.stats_fd:
            raise ValueError("the cost is counted already")
        error = tp_kernel_cost_open(&self.tracer.cost)
        if error:
            raise OSError(-error, os.strerror(-error))

    @property
    def costs(self):
        cdef uint64_t ns, runs
        self._check_open()
        found = {}
        for hook in range(TP_HOOKS):
            tp_kernel_cost_of(&self.tracer.rungs.hooks[hook], &ns, &runs)
            found[tp_hook_name(<tp_hook>hook).decode()] = (ns, runs)
        return found

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
        if self.tracer.events == NULL:
            raise ValueError("the tracer is closed")


def config_bytes(selectors, *, uint64_t cgroup, pids):
    cdef tp_kernel_config config = _config(selectors, cgroup, pids)
    return (<const char *>&config)[:sizeof(config)]


cdef tp_adopted _adopted(adopted) except *:
    cdef tp_adopted taken
    cdef int i
    memset(&taken, 0xff, sizeof(taken))
    if len(adopted.programs) < 1 or len(adopted.tracepoints) > TP_ADOPTED:
        raise ValueError(f"from 1 program on, up to {TP_ADOPTED} tracepoints")
    taken.events = adopted.events
    taken.counters = adopted.counters
    for i, fd in enumerate(adopted.programs[:TP_HOOK_PROGRAMS]):
        taken.programs[i] = fd
    for i, fd in enumerate(adopted.tracepoints):
        taken.tracepoints[i] = fd
    return taken


cdef tp_kernel_config _config(selectors, uint64_t cgroup, pids) except *:
    cdef tp_kernel_config config
    cdef Py_ssize_t i
    cdef bytes remote
    memset(&config, 0, sizeof(config))
    if len(selectors) > TP_KERNEL_SELECTORS:
        raise ValueError(f"at most {TP_KERNEL_SELECTORS} selectors")
    if len(pids) > TP_KERNEL_PIDS:
        raise ValueError(f"at most {TP_KERNEL_PIDS} processes")
    config.cgroup = cgroup
    config.pids = <uint32_t>len(pids)
    for i, pid in enumerate(pids):
        config.pid[i] = pid
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
