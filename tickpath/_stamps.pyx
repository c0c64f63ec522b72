# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""Timestamp control messages; see tickpath.stamps."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from typing import NamedTuple

from tickpath.errors import InputError

cdef extern from "tickpath/stamps.h":
    enum:
        TP_SO_TIMESTAMPING_NEW
        TP_SO_TIMESTAMPING_OLD
        TP_STAMPS_CONTROL_BYTES
    struct tp_stamps:
        int64_t sw_ns
        int64_t hw_ns
    struct tp_control:
        tp_stamps stamps
        uint32_t ifindex
        int hops
        bint has_error
        uint32_t error
        uint8_t origin
        uint8_t type
        uint8_t code
        uint32_t info
        uint32_t data
        uint8_t offender[16]
    int tp_control_parse(const void *control, size_t size, tp_control *out) nogil
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


def parse_control(const unsigned char[::1] control not None):
    cdef tp_control c
    if tp_control_parse(&control[0] if control.shape[0] else NULL, control.shape[0], &c) < 0:
        raise InputError(f"{control.shape[0]} bytes of control messages hold one of impossible length")
    error = None
    if c.has_error:
        error = ExtendedError(c.error, c.origin, c.type, c.code, c.info, c.data, (<char *>c.offender)[:16])
    return Control(c.stamps.sw_ns, c.stamps.hw_ns, c.ifindex, c.hops if c.hops >= 0 else None, error)


class ExtendedError(NamedTuple):
    number: int
    origin: int
    type: int
    code: int
    info: int
    data: int
    offender: bytes


class Control(NamedTuple):
    sw_ns: int
    hw_ns: int
    ifindex: int
    hops: int | None
    error: ExtendedError | None
