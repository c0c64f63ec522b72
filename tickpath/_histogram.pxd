# SPDX-License-Identifier: Apache-2.0
"""The C contract of histogram.h, and a Histogram that other Cython modules may fill or copy."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "tickpath/histogram.h" nogil:
    enum:
        TP_HISTOGRAM_SCHEMA
        TP_HISTOGRAM_MIN_INDEX
        TP_HISTOGRAM_MAX_INDEX
        TP_HISTOGRAM_SLOTS
        TP_HISTOGRAM_ZERO_SLOT

    struct tp_histogram:
        uint64_t sum_low
        int64_t sum_high
        uint64_t negative_low
        int64_t negative_high
        int64_t min_ns
        int64_t max_ns
        uint64_t counts[TP_HISTOGRAM_SLOTS]

    void tp_histogram_reset(tp_histogram *h)
    int tp_histogram_index(uint64_t magnitude_ns)
    uint64_t tp_histogram_upper_bound_ns(int index)
    int tp_histogram_slot_index(unsigned slot)
    void tp_histogram_observe(tp_histogram *h, int64_t ns)
    unsigned tp_histogram_next(const tp_histogram *h, unsigned slot)
    uint64_t tp_histogram_count(const tp_histogram *h)
    void tp_histogram_merge(tp_histogram *h, const tp_histogram *source)
    int tp_histogram_quantile_ns(const tp_histogram *h, double q, int64_t *ns)


cdef class Histogram:
    cdef tp_histogram histogram

    @staticmethod
    cdef Histogram of(const tp_histogram *source)
