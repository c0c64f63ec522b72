# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The steps of the DPDK capture's loop, for the bench's child process."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

import os


cdef extern from "tickpath/histogram.h" nogil:
    struct tp_histogram:
        pass
    int tp_histogram_quantile_ns(const tp_histogram *h, double q, int64_t *ns)
    uint64_t tp_histogram_count(const tp_histogram *h)


cdef extern from "lab/bench/dpdk_bench.h" nogil:
    enum tp_bench_dpdk_step:
        TP_BENCH_DPDK_BURST
        TP_BENCH_DPDK_STAMP
        TP_BENCH_DPDK_PARSE

    struct tp_bench_dpdk_pace:
        tp_histogram residence
        uint64_t given
        uint64_t late

    int tp_bench_dpdk_fill(const char *pool, const uint8_t *frames, size_t bytes, unsigned count)
    int tp_bench_dpdk_run(const char *port, tp_bench_dpdk_step step, int64_t duration_ns, uint64_t *frames,
                          int64_t *cpu_ns)
    int tp_bench_dpdk_pace_set "tp_bench_dpdk_pace"(tp_bench_dpdk_pace *pace, const char *port, double frames_per_s)


_STEPS = {"burst": TP_BENCH_DPDK_BURST, "stamp": TP_BENCH_DPDK_STAMP, "parse": TP_BENCH_DPDK_PARSE}


def fill(str pool not None, list frames not None):
    _check(tp_bench_dpdk_fill(pool.encode(), b"".join(frames), len(frames[0]), <unsigned>len(frames)))


def run(str port not None, str step not None, int64_t duration_ns):
    cdef uint64_t frames = 0
    cdef int64_t cpu_ns = 0
    cdef bytes name = port.encode()
    cdef const char *raw = name
    cdef tp_bench_dpdk_step chosen = _STEPS[step]
    cdef int error
    with nogil:
        error = tp_bench_dpdk_run(raw, chosen, duration_ns, &frames, &cpu_ns)
    _check(error)
    return frames, cpu_ns


cdef class Pace:
    cdef tp_bench_dpdk_pace pace
    cdef str port

    def __cinit__(self, str port not None, double frames_per_s):
        self.port = port
        _check(tp_bench_dpdk_pace_set(&self.pace, port.encode(), frames_per_s))

    def end(self):
        _check(tp_bench_dpdk_pace_set(&self.pace, self.port.encode(), 0))

    def quantile_ns(self, double q):
        cdef int64_t ns = 0
        _check(tp_histogram_quantile_ns(&self.pace.residence, q, &ns))
        return ns

    @property
    def frames(self):
        return self.pace.given

    @property
    def late(self):
        return self.pace.late


cdef int _check(int error) except -1:
    if error:
        raise OSError(-error, os.strerror(-error))
    return 0
