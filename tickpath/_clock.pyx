# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
"""Python's face of clock.h, epochs.h and fit.h; tickpath.clock is what others import."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport clockid_t

import os


cdef extern from "tickpath/event.h":
    enum: TP_RECORD_BYTES
    struct tp_event:
        pass


cdef extern from "tickpath/clock.h":
    enum: TP_MARK_AMBIGUOUS
    enum: TP_MARK_UNCONFIRMED
    struct tp_reading:
        int64_t time_ns
        int64_t before_ns
        int64_t after_ns
    struct tp_converted:
        int64_t time_ns
        int64_t bound_ns
        uint32_t marks
    struct tp_clock_status:
        int64_t max_error_ns
        int64_t frequency
        int32_t tai_offset_s
        bint synchronised
    int tp_clock_read_bracketed(clockid_t, unsigned, tp_reading *) nogil
    int tp_clock_status_read(tp_clock_status *) nogil
    int tp_clock_records(int, unsigned, tp_event *) nogil
    int tp_clock_watch_open() nogil
    int tp_clock_watch_fired(int) nogil


cdef extern from "tickpath/epochs.h":
    enum: TP_EPOCHS
    struct tp_epoch:
        int64_t lo_ns
        int64_t hi_ns
        int64_t from_ns
        int64_t until_ns
        uint64_t readings
    struct tp_epochs:
        tp_epoch ring[64]
        uint64_t begun
        uint64_t evicted
        uint64_t unplaced
    int tp_epochs_add(tp_epochs *, const tp_reading *) nogil
    int tp_epochs_add_after_set(tp_epochs *, const tp_reading *, int64_t) nogil
    int tp_epochs_add_record(tp_epochs *, const tp_event *, int64_t *) nogil
    int64_t TP_EPOCHS_SINCE_UNKNOWN
    uint64_t tp_epochs_steps(const tp_epochs *) nogil
    const tp_epoch *tp_epochs_current(const tp_epochs *) nogil
    int tp_epochs_to_monotonic(const tp_epochs *, int64_t, tp_converted *) nogil
    int tp_epochs_from_monotonic(const tp_epochs *, int64_t, tp_converted *) nogil


cdef extern from "tickpath/fit.h":
    struct tp_fit:
        uint32_t count
        uint64_t readings
        uint64_t breaks
        double slow
        double fast
        double residual_ns
    void tp_fit_init(tp_fit *, double) nogil
    int tp_fit_add(tp_fit *, const tp_reading *) nogil
    double tp_fit_ns_per_tick(const tp_fit *) nogil
    int tp_fit_convert(const tp_fit *, int64_t, tp_converted *) nogil


cdef extern from "tickpath/phc.h":
    enum: PTP_MAX_SAMPLES
    enum: TP_PHC_BASIC
    struct ptp_sys_offset_extended:
        pass
    struct ptp_sys_offset_precise:
        pass
    struct ptp_sys_offset:
        pass
    struct tp_phc_offset:
        int64_t lo_ns
        int64_t hi_ns
    struct tp_phc:
        int fd
        uint32_t index
        uint32_t samples
        int way
    int tp_phc_open(tp_phc *, const char *, uint32_t, uint32_t)
    void tp_phc_close(tp_phc *)
    int tp_phc_record(tp_phc *, tp_event *) nogil
    int tp_phc_from_extended(const ptp_sys_offset_extended *, uint32_t, const tp_phc_offset *, tp_reading *)
    int tp_phc_from_basic(const ptp_sys_offset *, uint32_t, const tp_phc_offset *, tp_reading *)
    int tp_phc_from_precise(const ptp_sys_offset_precise *, const tp_phc_offset *, tp_reading *)
    int tp_phc_offset_of(const tp_reading *, const tp_reading *, tp_phc_offset *)


cdef int check(int result) except -1:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


cdef tuple as_tuple(const tp_converted *converted):
    return (converted.time_ns, converted.bound_ns, converted.marks)


def read_bracketed(clockid_t clock_id, unsigned tries):
    cdef tp_reading reading
    check(tp_clock_read_bracketed(clock_id, tries, &reading))
    return (reading.time_ns, reading.before_ns, reading.after_ns)


def read_status():
    cdef tp_clock_status status
    tp_clock_status_read(&status)
    return (status.synchronised, status.max_error_ns, status.frequency, status.tai_offset_s)


def read_records(int watch_fd, unsigned tries, uint8_t[::1] out):
    cdef tp_event events[2]
    if out.shape[0] != 2 * TP_RECORD_BYTES:
        raise ValueError(f"room for two records is {2 * TP_RECORD_BYTES} bytes, not {out.shape[0]}")
    check(tp_clock_records(watch_fd, tries, events))
    memcpy(&out[0], events, 2 * TP_RECORD_BYTES)


def watch_open():
    return check(tp_clock_watch_open())


def watch_fired(int fd):
    return check(tp_clock_watch_fired(fd)) != 0


cdef class Epochs:
    cdef tp_epochs epochs

    def add(self, int64_t time_ns, int64_t before_ns, int64_t after_ns):
        cdef tp_reading reading = tp_reading(time_ns, before_ns, after_ns)
        return check(tp_epochs_add(&self.epochs, &reading)) != 0

    def add_after_set(self, int64_t time_ns, int64_t before_ns, int64_t after_ns, int64_t since_ns):
        cdef tp_reading reading = tp_reading(time_ns, before_ns, after_ns)
        return check(tp_epochs_add_after_set(&self.epochs, &reading, since_ns)) != 0

    def add_record(self, const uint8_t[::1] record, since_ns):
        cdef tp_event event
        cdef int64_t since = TP_EPOCHS_SINCE_UNKNOWN if since_ns is None else since_ns
        if record.shape[0] != TP_RECORD_BYTES:
            raise ValueError(f"a record is {TP_RECORD_BYTES} bytes, not {record.shape[0]}")
        memcpy(&event, &record[0], TP_RECORD_BYTES)
        return check(tp_epochs_add_record(&self.epochs, &event, &since)) != 0, since

    def to_monotonic(self, int64_t clock_ns):
        cdef tp_converted out
        check(tp_epochs_to_monotonic(&self.epochs, clock_ns, &out))
        return as_tuple(&out)

    def from_monotonic(self, int64_t monotonic_ns):
        cdef tp_converted out
        check(tp_epochs_from_monotonic(&self.epochs, monotonic_ns, &out))
        return as_tuple(&out)

    def steps(self):
        return tp_epochs_steps(&self.epochs)

    def unplaced(self):
        return self.epochs.unplaced

    def evicted(self):
        return self.epochs.evicted

    def history(self):
        cdef uint64_t n = self.epochs.begun - min(self.epochs.begun, <uint64_t>TP_EPOCHS)
        cdef tp_epoch *epoch
        kept = []
        while n < self.epochs.begun:
            epoch = &self.epochs.ring[n % TP_EPOCHS]
            kept.append((epoch.lo_ns, epoch.hi_ns, epoch.from_ns, epoch.until_ns, epoch.readings))
            n += 1
        return kept


cdef class Fit:
    cdef tp_fit fit

    def __init__(self, double wander_ppb):
        tp_fit_init(&self.fit, wander_ppb)

    def add(self, int64_t counter, int64_t before_ns, int64_t after_ns):
        cdef tp_reading reading = tp_reading(counter, before_ns, after_ns)
        return check(tp_fit_add(&self.fit, &reading)) != 0

    def convert(self, int64_t counter):
        cdef tp_converted out
        check(tp_fit_convert(&self.fit, counter, &out))
        return as_tuple(&out)

    def state(self):
        return (
            self.fit.count,
            self.fit.readings,
            self.fit.breaks,
            tp_fit_ns_per_tick(&self.fit),
            0.5 * (self.fit.fast - self.fit.slow),
            self.fit.residual_ns,
        )


PHC_WAYS = ("precise", "extended, monotonic", "extended", "basic")
PHC_MAX_SAMPLES = PTP_MAX_SAMPLES
PHC_ANSWER_BYTES = (
    sizeof(ptp_sys_offset_precise), sizeof(ptp_sys_offset_extended), sizeof(ptp_sys_offset_extended),
    sizeof(ptp_sys_offset),
)


cdef class Phc:
    cdef tp_phc phc

    def __cinit__(self, str path, uint32_t index, uint32_t samples):
        self.phc.fd = -1
        check(tp_phc_open(&self.phc, os.fsencode(path), index, samples))

    def __dealloc__(self):
        tp_phc_close(&self.phc)

    def record(self, uint8_t[::1] out):
        cdef tp_event event
        if out.shape[0] != TP_RECORD_BYTES:
            raise ValueError(f"a record is {TP_RECORD_BYTES} bytes, not {out.shape[0]}")
        with nogil:
            error = tp_phc_record(&self.phc, &event)
        check(error)
        memcpy(&out[0], &event, TP_RECORD_BYTES)

    def way(self):
        return PHC_WAYS[self.phc.way]

    def close(self):
        tp_phc_close(&self.phc)


def phc_answer(int way, const uint8_t[::1] answer, uint32_t samples, offset):
    """What an answer of the kernel comes to: for tests of the parsers."""
    cdef tp_phc_offset bounds
    cdef tp_reading reading
    cdef tp_phc_offset *between = NULL
    if answer.shape[0] != PHC_ANSWER_BYTES[way]:
        raise ValueError(f"an answer is {PHC_ANSWER_BYTES[way]} bytes, not {answer.shape[0]}")
    if offset is not None:
        bounds = tp_phc_offset(offset[0], offset[1])
        between = &bounds
    if way == 0:
        check(tp_phc_from_precise(<const ptp_sys_offset_precise *>&answer[0], between, &reading))
    elif way == TP_PHC_BASIC:
        check(tp_phc_from_basic(<const ptp_sys_offset *>&answer[0], samples, between, &reading))
    else:
        check(tp_phc_from_extended(<const ptp_sys_offset_extended *>&answer[0], samples, between, &reading))
    return (reading.time_ns, reading.before_ns, reading.after_ns)


def phc_offset(before, after):
    """What two readings of the realtime clock leave of its offset."""
    cdef tp_reading first = tp_reading(before[0], before[1], before[2])
    cdef tp_reading last = tp_reading(after[0], after[1], after[2])
    cdef tp_phc_offset out
    check(tp_phc_offset_of(&first, &last, &out))
    return (out.lo_ns, out.hi_ns)
