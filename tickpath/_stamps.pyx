# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""Timestamp control messages; see tickpath.stamps."""

from libc.stdint cimport int64_t

from tickpath.errors import InputError

cdef extern from "tickpath/stamps.h":
    enum:
        TP_SO_TIMESTAMPING_NEW
        TP_SO_TIMESTAMPING_OLD
        TP_STAMPS_CONTROL_BYTES
    struct tp_stamps:
        int64_t sw_ns
        int64_t hw_ns
    int tp_stamps_parse(const void *control, size_t size, tp_stamps *out) nogil

SO_TIMESTAMPING_OLD = TP_SO_TIMESTAMPING_OLD
SO_TIMESTAMPING_NEW = TP_SO_TIMESTAMPING_NEW
CONTROL_BYTES = TP_STAMPS_CONTROL_BYTES


def parse(const unsigned char[::1] control not None):
    cdef tp_stamps stamps
    cdef int found = tp_stamps_parse(&control[0] if control.shape[0] else NULL, control.shape[0], &stamps)
    if found < 0:
        raise InputError(f"{control.shape[0]} bytes of control messages hold one of impossible length")
    return stamps.sw_ns, stamps.hw_ns
