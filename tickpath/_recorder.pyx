# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""The records of a feed, written to its ring; see tickpath.recorder."""

import os
import socket as _socket
import time
from pathlib import Path

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, INT32_MIN, UINT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tickpath._event cimport (
    TP_CLOCK_MONOTONIC,
    TP_COUNT_CONNECTS,
    TP_COUNT_MESSAGES,
    TP_COUNTERS,
    TP_KIND_CLOSED,
    TP_KIND_MESSAGE,
    TP_KIND_MESSAGE_WIDE,
    TP_KIND_OPENED,
    TP_MESSAGE_HAS_DECODE,
    TP_MESSAGE_HAS_EXCHANGE,
    TP_MESSAGE_HAS_PARSED,
    TP_MESSAGE_HAS_PUBLISHED,
    TP_MESSAGE_HAS_TRANSACTION,
    TP_MESSAGE_RESOLUTION_MASK,
    TP_MESSAGE_WIDE,
    TP_ROW_HAS_IRS,
    tp_counter,
    tp_message,
    tp_message_wide,
    tp_row,
)
from tickpath._ring cimport (
    tp_ring_count,
    tp_ring_row_close,
    tp_ring_row_open,
    tp_ring_row_update,
    tp_ring_write,
)

from tickpath.clock import clock_records
from tickpath.errors import RingError

cdef enum:
    SO_COOKIE = 57


cdef int _text(char *into, size_t size, str text) except -1:
    """Copy `text` as UTF-8 into a zeroed field; where it does not fit it is cut at a character and ends in '~'."""
    cdef bytes encoded = text.encode()
    if <size_t>len(encoded) > size:
        encoded = encoded[: size - 1].decode(errors="ignore").encode() + b"~"
    memcpy(into, <const char *>encoded, len(encoded))
    return 0


cdef int _address(uint8_t *into, uint16_t *port, tuple name) except -1:
    """Copy a socket name as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    cdef str host = name[0].partition("%")[0]
    cdef bytes packed
    if ":" in host:
        packed = _socket.inet_pton(_socket.AF_INET6, host)
    else:
        packed = bytes(10) + b"\xff\xff" + _socket.inet_pton(_socket.AF_INET, host)
    memcpy(into, <const char *>packed, 16)
    port[0] = name[1]
    return 0


cdef class Recorder:
    def __init__(self, directory, str name, str kind="feed", *, capacity=1 << 16, rows=64):
        self.ring = RingWriter(Path(directory), f"{kind}-{name}", kind, capacity=capacity, rows=rows)

    def count(self, int counter, uint64_t add=1):
        if not 0 <= counter < TP_COUNTERS:
            raise ValueError(f"no counter {counter}")
        tp_ring_count(self.ring.raw(), <tp_counter>counter, add)

    def open_connection(self, sock, *, str venue, str feed, str stream, int transport=0, int reconnects=0, irs=None):
        cdef ConnectionRecorder connection = ConnectionRecorder.__new__(ConnectionRecorder)
        cdef tp_row *row = &connection.state
        memset(row, 0, sizeof(tp_row))
        row.cookie = int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, SO_COOKIE, 8), "little")
        row.netns = os.stat("/proc/thread-self/ns/net").st_ino
        row.opened_ns = time.monotonic_ns()
        _address(row.local, &row.local_port, sock.getsockname())
        _address(row.remote, &row.remote_port, sock.getpeername())
        if irs is not None:
            row.irs = irs
            row.flags = TP_ROW_HAS_IRS
        row.transport = transport
        row.reconnects = reconnects
        _text(row.venue, sizeof(row.venue), venue)
        _text(row.feed, sizeof(row.feed), feed)
        _text(row.stream, sizeof(row.stream), stream)
        connection.recorder = self
        connection.open = True
        connection.row = tp_ring_row_open(self.ring.raw(), row)
        connection._bound(TP_KIND_OPENED, row.opened_ns, 0)
        return connection

    def record_clocks(self, watch=None):
        self.ring.write(clock_records(watch).view("u1"))

    def close(self):
        self.ring.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.ring.__exit__(kind, error, trace)


cdef class ConnectionRecorder:
    def __init__(self):
        raise TypeError("a ConnectionRecorder comes from Recorder.open_connection")

    cdef tp_ring_writer *writer(self) except NULL:
        if not self.open:
            raise RingError("this connection's record is closed")
        return self.recorder.ring.raw()

    cdef int _bound(self, int kind, int64_t time_ns, uint64_t received) except -1:
        cdef tp_event event
        memset(&event, 0, sizeof(event))
        event.kind = kind
        event.clock = TP_CLOCK_MONOTONIC
        event.row = self.row
        event.time_ns = time_ns
        event.connection.cookie = self.state.cookie
        event.connection.bytes = received
        event.connection.messages = self.messages
        tp_ring_write(self.writer(), &event)
        return 0

    @property
    def cookie(self):
        return self.state.cookie

    def established(self, int transport):
        self.state.transport = transport
        tp_ring_row_update(self.writer(), self.row, &self.state)
        tp_ring_count(self.writer(), TP_COUNT_CONNECTS, 1)

    def message(self, uint64_t end, uint64_t ordinal, uint64_t length, exchange_ns, int resolution, transaction_ns,
                decode_began_ns, int64_t received_ns, parsed_ns, published_ns, int tier):
        self.fill(end, ordinal, length, exchange_ns, resolution, transaction_ns, decode_began_ns, received_ns,
                  parsed_ns, tier)
        self.finish(published_ns)

    def draft(self, uint64_t end, uint64_t ordinal, uint64_t length, exchange_ns, int resolution, transaction_ns,
              decode_began_ns, int64_t received_ns, parsed_ns, int tier):
        self.fill(end, ordinal, length, exchange_ns, resolution, transaction_ns, decode_began_ns, received_ns,
                  parsed_ns, tier)
        cdef bytes record = PyBytes_FromStringAndSize(<const char *>&self.event, sizeof(tp_event))
        if self.event.flags & TP_MESSAGE_WIDE:
            record += PyBytes_FromStringAndSize(<const char *>&self.wide, sizeof(tp_event))
        return record

    def publish(self, published_ns):
        if self.event.kind != TP_KIND_MESSAGE:
            raise RingError("publish() completes a draft(), and there is none")
        self.finish(published_ns)

    def close(self, uint64_t received=0):
        cdef int64_t now_ns = time.monotonic_ns()
        if not self.open:
            return
        if not self.recorder.ring.is_open:
            # The ring closed its rows with itself.
            self.open = False
            return
        self._bound(TP_KIND_CLOSED, now_ns, received)
        tp_ring_row_close(self.writer(), self.row, now_ns)
        self.open = False

    cdef int fill(self, uint64_t end, uint64_t ordinal, uint64_t length, object exchange_ns, int resolution,
                  object transaction_ns, object decode_began_ns, int64_t received_ns, object parsed_ns,
                  int tier) except -1:
        cdef tp_event *event = &self.event
        cdef tp_message_wide *wide = &self.wide.wide
        cdef int64_t exchange
        cdef bint fits = length <= UINT32_MAX

        event.kind = TP_KIND_MESSAGE
        event.clock = TP_CLOCK_MONOTONIC
        event.source = tier
        event.flags = resolution & TP_MESSAGE_RESOLUTION_MASK
        event.row = self.row
        event.time_ns = received_ns
        event.message.end = end
        event.message.ordinal = <uint32_t>ordinal
        event.message.length = <uint32_t>length if fits else UINT32_MAX
        event.message.exchange_ns = 0
        event.message.published_ns = 0
        wide.length = length
        wide.decode_ns = wide.parsed_ns = wide.published_ns = wide.transaction_ns = 0
        if exchange_ns is not None:
            exchange = exchange_ns
            event.message.exchange_ns = exchange
            event.flags |= TP_MESSAGE_HAS_EXCHANGE
            if transaction_ns is not None:
                wide.transaction_ns = <int64_t>transaction_ns - exchange
                event.flags |= TP_MESSAGE_HAS_TRANSACTION
        if decode_began_ns is not None:
            wide.decode_ns = received_ns - <int64_t>decode_began_ns
            event.flags |= TP_MESSAGE_HAS_DECODE
        # Without a parsed stamp `published` counts from received.
        self.parsed_ns = received_ns
        if parsed_ns is not None:
            self.parsed_ns = parsed_ns
            wide.parsed_ns = self.parsed_ns - received_ns
            event.flags |= TP_MESSAGE_HAS_PARSED
        fits = (fits and 0 <= wide.decode_ns <= UINT32_MAX and 0 <= wide.parsed_ns <= UINT32_MAX
                and INT32_MIN <= wide.transaction_ns <= INT32_MAX)
        event.message.decode_ns = <uint32_t>wide.decode_ns
        event.message.parsed_ns = <uint32_t>wide.parsed_ns
        event.message.transaction_ns = <int32_t>wide.transaction_ns
        if not fits:
            self.widen()
        return 0

    cdef void widen(self) noexcept:
        """Flag the message and head the record that follows it; what does not fit reads as 0 in the first."""
        cdef tp_message_wide *wide = &self.wide.wide
        cdef tp_message *message = &self.event.message
        self.event.flags |= TP_MESSAGE_WIDE
        self.wide.kind = TP_KIND_MESSAGE_WIDE
        self.wide.clock = TP_CLOCK_MONOTONIC
        self.wide.source = self.event.source
        self.wide.flags = self.event.flags
        self.wide.row = self.row
        self.wide.time_ns = self.event.time_ns
        if not 0 <= wide.decode_ns <= UINT32_MAX:
            message.decode_ns = 0
        if not 0 <= wide.parsed_ns <= UINT32_MAX:
            message.parsed_ns = 0
        if not 0 <= wide.published_ns <= UINT32_MAX:
            message.published_ns = 0
        if not INT32_MIN <= wide.transaction_ns <= INT32_MAX:
            message.transaction_ns = 0

    cdef int finish(self, object published_ns) except -1:
        cdef tp_ring_writer *ring = self.writer()
        cdef int64_t published
        if published_ns is not None:
            published = <int64_t>published_ns - self.parsed_ns
            self.wide.wide.published_ns = published
            self.event.message.published_ns = <uint32_t>published
            self.event.flags |= TP_MESSAGE_HAS_PUBLISHED
            if self.event.flags & TP_MESSAGE_WIDE or not 0 <= published <= UINT32_MAX:
                self.widen()
        tp_ring_write(ring, &self.event)
        if self.event.flags & TP_MESSAGE_WIDE:
            tp_ring_write(ring, &self.wide)
        tp_ring_count(ring, TP_COUNT_MESSAGES, 1)
        self.messages += 1
        self.event.kind = 0
        return 0
