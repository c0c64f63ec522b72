# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""The ring for Python: records in batches, no copy but the one out of the shared memory."""

from libc.string cimport memcpy

from tickpath._event cimport TP_COUNTERS, TP_RECORD_BYTES, TP_ROW_BYTES, TP_ROW_NONE, TP_ROW_OPEN, TP_ROW_PROBE

import os
import re
from pathlib import Path

import numpy as np

from tickpath.errors import RingError
from tickpath.event import RECORD, ROW, Counter

SUFFIX = ".ring"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def make_directory(directory: Path) -> None:
    """Make the ring directory, setgid and sticky, unless it is there; RingError when that cannot be."""
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o3775)
    except OSError as error:
        raise RingError(
            f"cannot make ring directory {directory}: {error.strerror}; set TICKPATH_DIRECTORY to one of your own"
        ) from None


cdef class RingWriter:
    """The producer's end of the ring DIRECTORY/NAME.ring. One thread only."""

    def __cinit__(self, directory, str name, str kind, *, capacity=1 << 16, rows=256):
        cdef char why[512]
        if not _NAME.fullmatch(name):
            raise RingError(f"ring name {name!r} is not made of 1 to 63 letters, digits, '.', '_' and '-'")
        if not 0 < capacity < 1 << 63 or not 0 < rows < 1 << 32:
            raise RingError(f"ring capacity {capacity} or rows {rows} out of range")
        make_directory(Path(directory))
        self.path = Path(directory) / (name + SUFFIX)
        self.name = name
        self.kind = kind
        path = os.fsencode(self.path)
        if tp_ring_create(&self.writer, path, kind.encode(), capacity, rows, why, sizeof(why)) != 0:
            raise RingError(why.decode("utf-8", "replace"))
        self.is_open = True

    cdef tp_ring_writer *raw(self) except NULL:
        if not self.is_open:
            raise RingError(f"ring {self.name} is closed")
        return &self.writer

    def write(self, const unsigned char[::1] records not None):
        cdef tp_ring_writer *writer = self.raw()
        cdef Py_ssize_t at
        cdef tp_event event
        if records.shape[0] % TP_RECORD_BYTES:
            raise ValueError(f"{records.shape[0]} bytes are not whole records of {TP_RECORD_BYTES}")
        for at in range(0, records.shape[0], TP_RECORD_BYTES):
            memcpy(&event, &records[at], TP_RECORD_BYTES)
            tp_ring_write(writer, &event)

    def count(self, counter, uint64_t add=1):
        if not 0 <= counter < TP_COUNTERS:
            raise ValueError(f"no counter {counter}")
        tp_ring_count(self.raw(), <tp_counter><int>counter, add)

    cdef int _row(self, object row, tp_row *into) except -1:
        data = np.asarray(row, dtype=ROW).tobytes()
        memcpy(into, <const char *>data, TP_ROW_BYTES)
        return 0

    def open_row(self, row):
        cdef tp_row raw
        self._row(row, &raw)
        cdef uint32_t handle = tp_ring_row_open(self.raw(), &raw)
        return None if handle == TP_ROW_NONE else handle

    def update_row(self, uint32_t handle, row):
        cdef tp_row raw
        self._row(row, &raw)
        tp_ring_row_update(self.raw(), handle, &raw)

    def close_row(self, uint32_t handle, int64_t closed_ns):
        tp_ring_row_close(self.raw(), handle, closed_ns)

    @property
    def head(self):
        return self.raw().head

    @property
    def truncated(self):
        return tp_ring_writer_truncated(self.raw())

    def close(self):
        if self.is_open:
            self.is_open = False
            tp_ring_close(&self.writer)

    def abandon(self):
        if self.is_open:
            self.is_open = False
            tp_ring_abandon(&self.writer)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # Ctrl-C and sys.exit are no failures.
        if kind is None or not issubclass(kind, Exception):
            self.close()
        else:
            self.abandon()

    def __dealloc__(self):
        if self.is_open:
            tp_ring_abandon(&self.writer)


cdef class RingReader:
    """A reader's end of a ring file: maps it read-only. One thread only."""

    def __cinit__(self, path, *, bint from_start=False):
        cdef char why[512]
        self.path = Path(path)
        name = os.fsencode(self.path)
        if tp_ring_attach(&self.reader, name, why, sizeof(why)) != 0:
            raise RingError(why.decode("utf-8", "replace"))
        if from_start:
            tp_ring_rewind(&self.reader)
        self.is_open = True

    cdef tp_ring_reader *raw(self) except NULL:
        if not self.is_open:
            raise RingError(f"ring {self.path} is detached")
        if tp_ring_truncated(&self.reader):
            raise RingError(f"ring file {self.path} was cut short under its readers")
        return &self.reader

    def read(self, unsigned char[::1] out not None):
        cdef tp_ring_reader *reader = self.raw()
        cdef size_t taken
        cdef size_t room = <size_t>out.shape[0] // TP_RECORD_BYTES
        if room == 0:
            return 0
        with nogil:
            taken = tp_ring_read(reader, <tp_event *>&out[0], room)
        self.raw()
        return taken

    def row(self, uint32_t handle):
        cdef tp_row raw
        if tp_ring_row(self.raw(), handle, &raw) != 0:
            return None
        return np.frombuffer((<char *>&raw)[:TP_ROW_BYTES], dtype=ROW)[0]

    def rows(self):
        cdef tp_row raw
        cdef uint32_t handle, index
        cdef tp_ring_reader *reader = self.raw()
        found = {}
        for index in range(reader.rows):
            if tp_ring_row_at(reader, index, &raw, &handle) == 0:
                found[handle] = np.frombuffer((<char *>&raw)[:TP_ROW_BYTES], dtype=ROW)[0]
        return found

    def modes(self):
        cdef tp_row raw
        cdef uint32_t handle, index
        cdef tp_ring_reader *reader = self.raw()
        found = {}
        for index in range(reader.rows):
            if tp_ring_row_at(reader, index, &raw, &handle) != 0:
                continue
            if raw.state == TP_ROW_OPEN and raw.flags & TP_ROW_PROBE:
                row = np.frombuffer((<char *>&raw)[:TP_ROW_BYTES], dtype=ROW)[0]
                words = row["stream"].decode("utf-8", "replace").split()
                found[row["feed"].decode("utf-8", "replace")] = dict(word.partition("=")[::2] for word in words)
        return found

    def counters(self):
        cdef tp_ring_reader *reader = self.raw()
        return {counter: tp_ring_counter(reader, <tp_counter><int>counter) for counter in Counter}

    @property
    def name(self):
        return self.raw().header.name[:64].split(b"\0")[0].decode("utf-8", "replace")

    @property
    def kind(self):
        return self.raw().header.kind[:16].split(b"\0")[0].decode("utf-8", "replace")

    @property
    def capacity(self):
        return self.raw().header.capacity

    @property
    def instance(self):
        return self.raw().header.instance

    @property
    def head(self):
        return self.raw().header.head

    @property
    def cursor(self):
        return self.raw().cursor

    @property
    def lost(self):
        return self.raw().lost

    @property
    def inode(self):
        return self.raw().inode

    @property
    def alive(self):
        return tp_ring_alive(self.raw()) == 1

    @property
    def stopped(self):
        return tp_ring_stopped(self.raw())

    def close(self):
        if self.is_open:
            self.is_open = False
            tp_ring_detach(&self.reader)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __dealloc__(self):
        if self.is_open:
            tp_ring_detach(&self.reader)
