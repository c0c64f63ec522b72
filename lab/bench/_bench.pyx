# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""The bench's loops in C, for Python."""

from typing import NamedTuple

import os

from libc.stdint cimport int64_t, uint64_t

from tickpath._histogram cimport Histogram, tp_histogram

from tickpath.errors import RingError


cdef extern from "lab/bench/ring_bench.h" nogil:
    enum tp_bench_path:
        TP_BENCH_RING
        TP_BENCH_BARE
    struct tp_bench_ring_plan:
        tp_bench_path path
        const char *file
        uint64_t capacity
        int64_t duration_ns
        uint64_t rate
        int writer_cpu
        int reader_cpu
        bint restless
        bint real_time
    struct tp_bench_ring_result:
        uint64_t written
        uint64_t received
        uint64_t lost
        uint64_t wrong
        int64_t elapsed_ns
        uint64_t preempted
        bint real_time
    int tp_bench_ring(const tp_bench_ring_plan *plan, tp_bench_ring_result *result, char *why, size_t why_bytes)

cdef extern from "lab/bench/loops.h" nogil:
    int64_t tp_bench_clock(size_t count)
    int64_t tp_bench_observe(tp_histogram *h, const int64_t *values_ns, size_t count, size_t rounds)


class Passed(NamedTuple):
    written: int
    received: int
    lost: int
    wrong: int
    elapsed_ns: int
    preempted: int
    real_time: bool


def pass_records(file, *, uint64_t capacity, int64_t duration_ns, uint64_t rate, int writer_cpu, int reader_cpu,
                 bint restless, bint real_time):
    cdef tp_bench_ring_plan plan
    cdef tp_bench_ring_result result
    cdef char why[512]
    cdef int failed
    cdef bytes name = b"" if file is None else os.fsencode(file)
    plan.path = TP_BENCH_BARE if file is None else TP_BENCH_RING
    plan.file = name
    plan.capacity = capacity
    plan.duration_ns = duration_ns
    plan.rate = rate
    plan.writer_cpu = writer_cpu
    plan.reader_cpu = reader_cpu
    plan.restless = restless
    plan.real_time = real_time
    with nogil:
        failed = tp_bench_ring(&plan, &result, why, sizeof(why))
    if failed:
        raise RingError(why.decode("utf-8", "replace"))
    return Passed(result.written, result.received, result.lost, result.wrong, result.elapsed_ns, result.preempted,
                  result.real_time)


def clock_ns(size_t count):
    cdef int64_t spent
    with nogil:
        spent = tp_bench_clock(count)
    return spent / count


def observe_ns(Histogram histogram not None, const int64_t[::1] values_ns, size_t rounds):
    cdef int64_t spent
    with nogil:
        spent = tp_bench_observe(&histogram.histogram, &values_ns[0], values_ns.shape[0], rounds)
    return spent / (values_ns.shape[0] * rounds)
