# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""A socket-like object that knows the stream offset of every byte it hands out; see tickpath.socket."""

import os
import socket as _socket
import ssl

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from libc.errno cimport EAGAIN, EINTR, EPERM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.types cimport suseconds_t, time_t

from tickpath._recorder cimport ConnectionRecorder
from tickpath._ring cimport tp_ring_writer

from tickpath.errors import InputError

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd *fds, unsigned long count, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SOL_SOCKET
        SO_RCVTIMEO
        SO_SNDTIMEO
        SO_TIMESTAMPING
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int setsockopt(int fd, int level, int option, const void *value, unsigned int size)

cdef extern from "<sys/time.h>" nogil:
    struct timeval:
        time_t tv_sec
        suseconds_t tv_usec

cdef extern from "<linux/net_tstamp.h>":
    enum:
        SOF_TIMESTAMPING_RX_HARDWARE
        SOF_TIMESTAMPING_RX_SOFTWARE
        SOF_TIMESTAMPING_SOFTWARE
        SOF_TIMESTAMPING_RAW_HARDWARE

cdef extern from "tickpath/stamps.h":
    struct tp_stamps:
        int64_t sw_ns
        int64_t hw_ns

cdef extern from "tickpath/tls_record.h":
    enum:
        TP_TLS_RECORD_BYTES
    ssize_t tp_tls_record_cut(const uint8_t *at, size_t size) nogil

cdef extern from "tickpath/socket_read.h":
    struct tp_socket_reader:
        int fd
        uint8_t *buffer
        size_t capacity
        size_t start
        size_t end
        uint64_t received
        int64_t returned_ns
        tp_stamps stamps
        uint64_t malformed_stamps
        tp_ring_writer *ring
        uint32_t row
    int64_t tp_socket_now_ns() nogil
    ssize_t tp_socket_read(tp_socket_reader *reader, int flags, int64_t asked_ns) nogil
    int tp_socket_learn_irs(int fd, uint32_t *irs) nogil

# Blasts are read in pieces of this size; several TLS records fit, so that few reads end inside one.
cdef enum:
    BUFFER_BYTES = 128 * 1024
    # The most plaintext that one TLS record holds (RFC 8446, 5.1).
    PLAIN_BYTES = 16384


def enable_stamps(sock):
    cdef int flags = (SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
                      | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE)
    sock.setsockopt(SOL_SOCKET, SO_TIMESTAMPING, flags)


def learn_irs(sock):
    cdef uint32_t irs = 0
    cdef int failed = tp_socket_learn_irs(sock.fileno(), &irs)
    if failed:
        raise OSError(-failed, os.strerror(-failed))
    return irs


cdef class StampedSocket:
    cdef tp_socket_reader reader
    cdef readonly object sock
    cdef readonly ConnectionRecorder connection
    cdef readonly bint _closed
    cdef uint64_t taken_end
    cdef int64_t timeout_ns
    cdef int64_t wait_began_ns
    cdef bint interrupted
    cdef object tls
    cdef object incoming
    cdef object outgoing
    cdef object plain_view
    cdef uint8_t *plain
    cdef size_t plain_start
    cdef size_t plain_end
    cdef uint64_t record_end
    cdef bint tls_ended

    def __cinit__(self, sock, ConnectionRecorder connection=None, *, size_t buffer_bytes=BUFFER_BYTES):
        if buffer_bytes < TP_TLS_RECORD_BYTES:
            raise ValueError(f"a buffer of {buffer_bytes} bytes cannot hold a TLS record of {TP_TLS_RECORD_BYTES}")
        memset(&self.reader, 0, sizeof(self.reader))
        self.reader.buffer = <uint8_t *>PyMem_Malloc(buffer_bytes)
        if self.reader.buffer == NULL:
            raise MemoryError()
        self.reader.capacity = buffer_bytes
        self.reader.fd = sock.fileno()
        if connection is not None:
            self.reader.row = connection.row
        self.connection = connection
        self.sock = sock
        timeout = sock.gettimeout()
        # The descriptor itself blocks; how long, is told to the kernel, so that a read that waits is one system call.
        sock.settimeout(None)
        try:
            enable_stamps(sock)
        except OSError:
            pass  # a kernel without stamps: the READ records say that none came
        self.settimeout(timeout)

    def __dealloc__(self):
        PyMem_Free(self.reader.buffer)
        PyMem_Free(self.plain)

    # What was read, in stream offsets and times.

    @property
    def end(self):
        return self.taken_end

    @property
    def received(self):
        return self.reader.received

    @property
    def returned_ns(self):
        return self.reader.returned_ns

    @property
    def stamps_ns(self):
        return self.reader.stamps.sw_ns, self.reader.stamps.hw_ns

    @property
    def malformed_stamps(self):
        return self.reader.malformed_stamps

    @property
    def tls_version(self):
        return None if self.tls is None else self.tls.version()

    # The face of a socket.

    def fileno(self):
        return self.sock.fileno()

    def gettimeout(self):
        return None if self.timeout_ns < 0 else self.timeout_ns / 1e9

    def settimeout(self, timeout):
        cdef timeval value
        if timeout is not None and not timeout >= 0:
            raise ValueError("a timeout is None, zero or more seconds")
        self.timeout_ns = -1 if timeout is None else <int64_t>(timeout * 1e9)
        # 0 means "for ever" to the kernel; a timeout of zero is MSG_DONTWAIT to us and never gets there.
        value.tv_sec = 0 if self.timeout_ns < 0 else self.timeout_ns // 1000000000
        value.tv_usec = 0 if self.timeout_ns < 0 else self.timeout_ns % 1000000000 // 1000
        if self.timeout_ns > 0 and value.tv_sec == 0 and value.tv_usec == 0:
            value.tv_usec = 1
        for option in (SO_RCVTIMEO, SO_SNDTIMEO):
            if setsockopt(self.reader.fd, SOL_SOCKET, option, &value, sizeof(value)) < 0:
                raise OSError(errno, os.strerror(errno))

    def pending(self):
        if self.tls is None:
            return self.reader.end - self.reader.start
        while self.plain_start == self.plain_end and not self.tls_ended:
            if not self._open_record():
                break
        return self.plain_end - self.plain_start

    def recv(self, Py_ssize_t size):
        cdef size_t taken
        cdef bytes result
        if size <= 0:
            return b""
        self.wait_began_ns = 0
        if self.tls is None:
            if self.reader.start == self.reader.end and not self._read():
                return b""
            taken = min(<size_t>size, self.reader.end - self.reader.start)
            result = PyBytes_FromStringAndSize(<char *>self.reader.buffer + self.reader.start, taken)
            self.reader.start += taken
            self.taken_end = self.reader.received - (self.reader.end - self.reader.start)
            return result
        if self.plain_start == self.plain_end and not self._decrypt():
            return b""
        taken = min(<size_t>size, self.plain_end - self.plain_start)
        result = PyBytes_FromStringAndSize(<char *>self.plain + self.plain_start, taken)
        self.plain_start += taken
        self.taken_end = self.record_end
        return result

    def send(self, data):
        if self.tls is None:
            return self._send(data)
        cdef object written = self.tls.write(data)
        self._flush()
        return written

    def sendall(self, data):
        cdef object view = memoryview(data)
        while len(view):
            view = view[self.send(view):]

    def interrupt(self):
        self.interrupted = True

    def resume(self):
        self.interrupted = False

    def shutdown(self, how):
        self.sock.shutdown(how)

    def close(self):
        if self._closed:
            return
        self._closed = True
        self.sock.close()
        self.reader.fd = -1
        self.reader.ring = NULL
        if self.connection is not None:
            self.connection.close(self.reader.received)

    def start_tls(self, context, server_hostname):
        if self.tls is not None or self.reader.end != self.reader.start:
            raise ValueError("TLS starts once, before anything was read")
        self.plain = <uint8_t *>PyMem_Malloc(PLAIN_BYTES)
        if self.plain == NULL:
            raise MemoryError()
        self.plain_view = PyMemoryView_FromMemory(<char *>self.plain, PLAIN_BYTES, PyBUF_WRITE)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_hostname)
        self.wait_began_ns = 0
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._flush_alert()
                raise
            else:
                self._flush()
                return self.tls.version()
            while not self._feed_record():
                if not self._read():
                    raise ConnectionResetError("the peer closed the connection during the TLS handshake")

    # One read of the kernel.

    cdef bint _read(self) except -1:
        """Bytes into the buffer; False at the end of the stream."""
        cdef int64_t asked_ns
        cdef ssize_t got
        if self._closed:
            raise OSError("this socket is closed")
        if self.connection is not None:
            self.reader.ring = self.connection.writer()
        asked_ns = tp_socket_now_ns()
        # Data that is there already is taken without giving up the GIL, which costs more than the copy.
        got = tp_socket_read(&self.reader, MSG_DONTWAIT, asked_ns)
        if got == -EAGAIN:
            got = self._wait(asked_ns)
        if got < 0:
            raise OSError(-got, os.strerror(-got))
        return got > 0

    cdef ssize_t _wait(self, int64_t asked_ns) except? -1:
        """The kernel's own time limit serves the first wait of a call; the rest of it is what later ones may take."""
        cdef int64_t left_ns = 0
        cdef pollfd ready
        cdef ssize_t got
        if self.timeout_ns == 0:
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        while True:
            if self.interrupted:
                self.interrupted = False
                raise InterruptedError(EINTR, "interrupted")
            if self.wait_began_ns == 0:
                self.wait_began_ns = asked_ns
            elif self.timeout_ns > 0:
                left_ns = self.wait_began_ns + self.timeout_ns - tp_socket_now_ns()
                if left_ns <= 0:
                    raise TimeoutError("timed out")
            with nogil:
                if left_ns > 0:
                    ready.fd = self.reader.fd
                    ready.events = POLLIN
                    poll(&ready, 1, <int>((left_ns + 999999) // 1000000))
                    got = tp_socket_read(&self.reader, MSG_DONTWAIT, asked_ns)
                else:
                    got = tp_socket_read(&self.reader, 0, asked_ns)
            if got == -EINTR or got == -EAGAIN:
                PyErr_CheckSignals()
                continue
            return got

    cdef ssize_t _send(self, const unsigned char[::1] data) except -1:
        cdef ssize_t sent
        cdef int failed
        cdef int flags = MSG_NOSIGNAL | (MSG_DONTWAIT if self.timeout_ns == 0 else 0)
        if self._closed:
            raise OSError("this socket is closed")
        if data.shape[0] == 0:
            return 0
        while True:
            with nogil:
                sent = send(self.reader.fd, &data[0], data.shape[0], flags)
                failed = errno
            if sent >= 0:
                return sent
            if failed == EINTR:
                PyErr_CheckSignals()
            elif failed == EAGAIN and self.timeout_ns != 0:
                raise TimeoutError("timed out")
            else:
                raise OSError(failed, os.strerror(failed))

    # TLS, one record at a time.

    cdef bint _feed_record(self) except -1:
        """Hand one complete record to the TLS engine; False while none is complete."""
        cdef uint8_t *at = self.reader.buffer + self.reader.start
        cdef size_t held = self.reader.end - self.reader.start
        cdef ssize_t size = tp_tls_record_cut(at, held)
        if size < 0:
            raise InputError(
                f"not TLS: at stream offset {self.reader.received - held} the peer sent "
                f"{PyBytes_FromStringAndSize(<char *>at, min(held, 5)).hex(' ')}, which begins no TLS record"
            )
        if size == 0:
            return False
        self.incoming.write(PyMemoryView_FromMemory(<char *>at, size, PyBUF_READ))
        self.reader.start += size
        self.record_end = self.reader.received - (self.reader.end - self.reader.start)
        return True

    cdef bint _open_record(self) except -1:
        """Decrypt the next complete record, which may hold no plaintext; False while none is complete."""
        cdef size_t got = 0
        if not self._feed_record():
            return False
        try:
            got = self.tls.read(PLAIN_BYTES, self.plain_view)
            # A record without plaintext wants more; nothing at all is the peer's close_notify.
            self.tls_ended = got == 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._flush_alert()
            raise
        # A KeyUpdate that asks for one, or an alert, has its answer here.
        if self.outgoing.pending:
            self._flush()
        self.plain_start = 0
        self.plain_end = got
        return True

    cdef bint _decrypt(self) except -1:
        """Plaintext of the next record that holds some; False at the end of the stream."""
        while True:
            if self.tls_ended:
                return False
            if self._open_record():
                if self.plain_end > 0:
                    return True
            elif not self._read():
                return False

    cdef int _flush(self) except -1:
        cdef object view
        if not self.outgoing.pending:
            return 0
        view = memoryview(self.outgoing.read())
        while len(view):
            view = view[self._send(view):]
        return 0

    cdef int _flush_alert(self) except -1:
        """Tell the peer why; that it may be gone already is no second error."""
        try:
            self._flush()
        except OSError:
            pass
        return 0
