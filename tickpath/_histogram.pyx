# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""Python face of histogram.h; the public name is tickpath.histogram."""

from typing import NamedTuple

from libc.errno cimport EINVAL
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp

SCHEMA = TP_HISTOGRAM_SCHEMA
MIN_INDEX = TP_HISTOGRAM_MIN_INDEX
MAX_INDEX = TP_HISTOGRAM_MAX_INDEX


class Buckets(NamedTuple):
    """What a histogram holds, sparsely: (index, count) in ascending index for each sign, and the zero bucket."""

    negative: list
    zero: int
    positive: list


def upper_bound_ns(int index):
    """Return the largest magnitude in ns that bucket `index` holds: floor(2^(index/16) * 10^9).

    Raises ValueError outside MIN_INDEX - 1 (whose bound is 0) and MAX_INDEX.
    """
    if not TP_HISTOGRAM_MIN_INDEX - 1 <= index <= TP_HISTOGRAM_MAX_INDEX:
        raise ValueError(f"bucket index {index} is not within {MIN_INDEX - 1} and {MAX_INDEX}")
    return tp_histogram_upper_bound_ns(index)


def bucket_index(uint64_t magnitude_ns):
    """Return the index of the bucket that holds a magnitude of 1 to 2^63 ns. Raises ValueError for others."""
    if not 1 <= magnitude_ns <= <uint64_t>1 << 63:
        raise ValueError(f"magnitude {magnitude_ns} ns is not within 1 and 2^63")
    return tp_histogram_index(magnitude_ns)


cdef class Histogram:
    """Signed nanoseconds in the buckets of a Prometheus native histogram of schema 4, over all of int64.

    Every method runs under the GIL, so threads may share one.
    """

    def __cinit__(self):
        tp_histogram_reset(&self.histogram)

    @staticmethod
    cdef Histogram of(const tp_histogram *source):
        """A copy of a C histogram. The caller holds whatever lock keeps its writer away."""
        cdef Histogram copy = Histogram.__new__(Histogram)
        copy.histogram = source[0]
        return copy

    def observe(self, int64_t ns):
        """Record one value. Raises OverflowError when it is no int64."""
        tp_histogram_observe(&self.histogram, ns)

    def observe_many(self, const int64_t[:] values_ns):
        """Record every element of a one-dimensional int64 array."""
        cdef Py_ssize_t i
        for i in range(values_ns.shape[0]):
            tp_histogram_observe(&self.histogram, values_ns[i])

    def merge(self, Histogram other not None):
        """Add all observations of `other`."""
        tp_histogram_merge(&self.histogram, &other.histogram)

    def copy(self):
        """Return an independent Histogram with the same observations."""
        return Histogram.of(&self.histogram)

    @property
    def count(self):
        """Number of observations."""
        return tp_histogram_count(&self.histogram)

    @property
    def sum_ns(self):
        """Exact signed sum; 0 while empty."""
        return ((<object>self.histogram.sum_high) << 64) + self.histogram.sum_low

    @property
    def negative_sum_ns(self):
        """Exact sum of the observations below zero; 0 where there are none."""
        return ((<object>self.histogram.negative_high) << 64) + self.histogram.negative_low

    @property
    def min_ns(self):
        """Exact smallest observation; None while empty."""
        return None if self.histogram.max_ns < self.histogram.min_ns else self.histogram.min_ns

    @property
    def max_ns(self):
        """Exact largest observation; None while empty."""
        return None if self.histogram.max_ns < self.histogram.min_ns else self.histogram.max_ns

    def quantile_ns(self, double q):
        """Estimate the observation of rank ceil(q * count); None while empty.

        The estimate lies in that observation's bucket; the first and the last rank are exact.
        Raises ValueError when q is not within 0 and 1.
        """
        cdef int64_t ns = 0
        cdef int error = tp_histogram_quantile_ns(&self.histogram, q, &ns)
        if error == -EINVAL:
            raise ValueError(f"quantile {q} is not within 0 and 1")
        return None if error else ns

    def buckets(self):
        """Return the Buckets that hold observations."""
        cdef unsigned slot = tp_histogram_next(&self.histogram, 0)
        negative = []
        positive = []
        while slot < TP_HISTOGRAM_SLOTS:
            if slot != TP_HISTOGRAM_ZERO_SLOT:
                entry = (tp_histogram_slot_index(slot), self.histogram.counts[slot])
                (negative if slot < TP_HISTOGRAM_ZERO_SLOT else positive).append(entry)
            slot = tp_histogram_next(&self.histogram, slot + 1)
        negative.reverse()
        return Buckets(negative, self.histogram.counts[TP_HISTOGRAM_ZERO_SLOT], positive)

    def __eq__(self, other):
        if not isinstance(other, Histogram):
            return NotImplemented
        return memcmp(&self.histogram, &(<Histogram>other).histogram, sizeof(tp_histogram)) == 0

    def __repr__(self):
        return f"Histogram(count={self.count}, sum_ns={self.sum_ns}, min_ns={self.min_ns}, max_ns={self.max_ns})"
