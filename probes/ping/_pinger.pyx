# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The pinger and the echo server for Python: each runs in a thread of its own without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tickpath._event cimport tp_ping_split
from tickpath._ring cimport RingWriter, tp_ring_writer

import os
import socket

import numpy as np

from tickpath.event import ROW, Transport


cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr_storage:
        uint16_t ss_family


cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t htons(uint16_t port)


cdef extern from "probes/ping/packet.h" nogil:
    enum:
        TP_PING_LEAST_BYTES
        TP_PING_MOST_BYTES
        TP_PING_ASKS_TIMES


cdef extern from "probes/ping/split.h" nogil:
    enum:
        TP_PING_TIMES_BYTES
    struct tp_ping_times:
        int64_t received_ns
    struct tp_ping_far:
        int64_t received_ns
        int64_t monotonic_ns
        int64_t turn_ns
        int64_t nic_turn_ns
        int64_t bound_ns
        uint32_t host
        uint16_t serial
        uint8_t source
    struct tp_ping_near:
        int64_t sent_ns
        int64_t received_ns
        int64_t before_ns
        int64_t after_ns
        int64_t bound_ns
        uint32_t host
    void tp_ping_times_fill(tp_ping_times *out, uint64_t nonce, uint64_t ordinal, const tp_ping_far *far)
    int tp_ping_times_read(const uint8_t *at, uint32_t bytes, uint64_t nonce, uint64_t *ordinal, tp_ping_far *out)
    void tp_ping_split_of "tp_ping_split" (const tp_ping_near *near, const tp_ping_far *far, tp_ping_split *out)


cdef extern from "probes/ping/target.h" nogil:
    struct tp_ping_plan:
        sockaddr_storage address
        sockaddr_storage from_ "from"
        char interface[16]
        uint8_t proto
        bint raw
        bint stamps
        bint split
        uint32_t bytes
        uint64_t count
        int64_t first_ns
        int64_t interval_ns
        int64_t jitter_ns
        int64_t allowed_ns
        int64_t linger_ns
        uint64_t nonce
        uint64_t slots
        uint32_t row

    struct tp_ping_window:
        bint stamped

    struct tp_ping_target:
        tp_ping_window window
        bint is_raw

    int tp_ping_target_open(tp_ping_target *target, const tp_ping_plan *plan, tp_ring_writer *ring, char *why,
                            size_t why_bytes)
    void tp_ping_target_close(tp_ping_target *target)


cdef extern from "probes/ping/pinger.h" nogil:
    int tp_pinger_run(tp_ping_target *targets, uint32_t count, int stop_fd)


cdef extern from "probes/ping/echo.h" nogil:
    struct tp_ping_echo:
        int fd
        uint64_t answered
        uint64_t ignored
        uint64_t unsent
        uint64_t told
    int tp_ping_echo_open(tp_ping_echo *echo, const sockaddr_storage *address)
    int tp_ping_echo_run(tp_ping_echo *echo, int stop_fd)
    void tp_ping_echo_close(tp_ping_echo *echo)

LEAST_BYTES = TP_PING_LEAST_BYTES
MOST_BYTES = TP_PING_MOST_BYTES
SPLIT_BYTES = TP_PING_TIMES_BYTES
ASKS_TIMES = TP_PING_ASKS_TIMES


def write_times(uint64_t nonce, uint64_t ordinal, tuple far not None):
    cdef tp_ping_times times
    cdef tp_ping_far said = _far(far)
    tp_ping_times_fill(&times, nonce, ordinal, &said)
    return (<char *>&times)[:sizeof(times)]


def read_times(const uint8_t[::1] message not None, uint64_t nonce):
    cdef tp_ping_far far
    cdef uint64_t ordinal
    cdef const uint8_t *at = &message[0] if message.shape[0] else NULL
    cdef int error = tp_ping_times_read(at, <uint32_t>message.shape[0], nonce, &ordinal, &far)
    if error:
        raise OSError(-error, os.strerror(-error))
    return ordinal, (far.received_ns, far.monotonic_ns, far.turn_ns, far.nic_turn_ns, far.bound_ns, far.host,
                     far.serial, far.source)


def split_of(tuple near not None, tuple far not None):
    cdef tp_ping_near here
    cdef tp_ping_far there = _far(far)
    cdef tp_ping_split split
    (here.sent_ns, here.received_ns, here.before_ns, here.after_ns, here.bound_ns, here.host) = near
    tp_ping_split_of(&here, &there, &split)
    return split.why, split.path_ns, split.turn_ns, split.out_ns, split.bound_ns


cdef tp_ping_far _far(tuple said):
    cdef tp_ping_far far
    memset(&far, 0, sizeof(far))
    (far.received_ns, far.monotonic_ns, far.turn_ns, far.nic_turn_ns, far.bound_ns, far.host, far.serial,
     far.source) = said
    return far


cdef int _address(tuple given, sockaddr_storage *into) except -1:
    """(host, port) or (host, port, flow, scope), numeric, as getaddrinfo gives it."""
    cdef sockaddr_in *v4 = <sockaddr_in *>into
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>into
    cdef bytes packed
    memset(into, 0, sizeof(sockaddr_storage))
    if len(given) == 2:
        packed = socket.inet_pton(socket.AF_INET, given[0])
        v4.sin_family = <uint16_t><int>socket.AF_INET
        v4.sin_port = htons(given[1])
        memcpy(&v4.sin_addr, <const char *>packed, 4)
    else:
        packed = socket.inet_pton(socket.AF_INET6, given[0].partition("%")[0])
        v6.sin6_family = <uint16_t><int>socket.AF_INET6
        v6.sin6_port = htons(given[1])
        v6.sin6_scope_id = given[3]
        memcpy(&v6.sin6_addr, <const char *>packed, 16)
    return 0


cdef class Pinger:
    cdef tp_ping_target *targets
    cdef uint32_t room
    cdef uint32_t count
    cdef RingWriter ring

    def __cinit__(self, RingWriter ring not None, uint32_t targets):
        self.ring = ring
        self.room = targets
        self.targets = <tp_ping_target *>calloc(targets, sizeof(tp_ping_target))
        if self.targets == NULL:
            raise MemoryError

    def __dealloc__(self):
        self.close()
        free(self.targets)

    def add(self, tuple address not None, *, uint8_t proto, str name not None, str label not None,
            tuple source, str interface not None, bint raw, bint stamps, bint split, uint32_t size_bytes, uint64_t count,
            int64_t first_ns, int64_t interval_ns, int64_t jitter_ns, int64_t allowed_ns, int64_t linger_ns,
            uint64_t slots):
        cdef tp_ping_plan plan
        cdef char why[128]
        cdef bytes device = interface.encode()
        cdef int error
        if self.count == self.room:
            raise ValueError("more targets than there is room for")
        if len(device) > 15:
            raise OSError(19, "naming the interface")
        memset(&plan, 0, sizeof(plan))
        _address(address, &plan.address)
        if source is not None:
            _address(source, &plan.from_)
        memcpy(plan.interface, <const char *>device, len(device))
        plan.proto = proto
        plan.raw = raw
        plan.stamps = stamps
        plan.split = split
        plan.bytes = size_bytes
        plan.count = count
        plan.first_ns = first_ns
        plan.interval_ns = interval_ns
        plan.jitter_ns = jitter_ns
        plan.allowed_ns = allowed_ns
        plan.linger_ns = linger_ns
        plan.slots = slots
        plan.nonce = int.from_bytes(os.urandom(8), "little")
        handle = self.ring.open_row(_row(address, name, label))
        if handle is None:
            raise OSError(28, "taking a row of the ring")
        plan.row = handle
        error = tp_ping_target_open(&self.targets[self.count], &plan, self.ring.raw(), why, sizeof(why))
        self.count += 1
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))
        return handle, self.targets[self.count - 1].is_raw, self.targets[self.count - 1].window.stamped

    def run(self, int stop_fd):
        cdef int error
        with nogil:
            error = tp_pinger_run(self.targets, self.count, stop_fd)
        return -error

    def close(self):
        cdef uint32_t i
        for i in range(self.count):
            tp_ping_target_close(&self.targets[i])
        self.count = 0


def _row(tuple address, str name, str label):
    row = np.zeros((), dtype=ROW)
    packed = socket.inet_pton(socket.AF_INET if len(address) == 2 else socket.AF_INET6, address[0].partition("%")[0])
    row["remote"] = np.void(packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed)
    row["remote_port"] = address[1]
    row["transport"] = Transport.UNKNOWN
    row["venue"] = label.encode()
    text = name.encode()
    row["stream"] = text if len(text) <= 119 else text[:118].decode("utf-8", "ignore").encode() + b"~"
    return row


cdef class Echo:
    cdef tp_ping_echo echo

    def __cinit__(self, tuple address not None):
        cdef sockaddr_storage raw
        cdef int error
        self.echo.fd = -1
        _address(address, &raw)
        error = tp_ping_echo_open(&self.echo, &raw)
        if error:
            raise OSError(-error, os.strerror(-error))

    def __dealloc__(self):
        tp_ping_echo_close(&self.echo)

    @property
    def port(self):
        with socket.socket(fileno=os.dup(self.echo.fd)) as bound:
            return bound.getsockname()[1]

    @property
    def answered(self):
        return self.echo.answered

    @property
    def ignored(self):
        return self.echo.ignored

    @property
    def unsent(self):
        return self.echo.unsent

    @property
    def told(self):
        return self.echo.told

    def run(self, int stop_fd):
        cdef int error
        with nogil:
            error = tp_ping_echo_run(&self.echo, stop_fd)
        return -error
