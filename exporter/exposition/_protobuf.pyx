# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""Python face of the protobuf writer in C."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from tickpath._histogram cimport Histogram, tp_histogram


cdef extern from "exporter/exposition/protobuf.h" nogil:
    enum:
        TP_PB_FAMILY
        TP_PB_FAMILY_NAME
        TP_PB_FAMILY_HELP
        TP_PB_FAMILY_TYPE
        TP_PB_FAMILY_METRIC
        TP_PB_FAMILY_UNIT
        TP_PB_METRIC_LABEL
        TP_PB_METRIC_GAUGE
        TP_PB_METRIC_COUNTER
        TP_PB_METRIC_UNTYPED
        TP_PB_METRIC_HISTOGRAM
        TP_PB_LABEL_NAME
        TP_PB_LABEL_VALUE
        TP_PB_NUMBER_VALUE
        TP_PB_COUNTER_CREATED
        TP_PB_HISTOGRAM_EXEMPLAR
        TP_PB_EXEMPLAR_LABEL
        TP_PB_EXEMPLAR_VALUE
        TP_PB_EXEMPLAR_TIME
        TP_PB_COUNTER
        TP_PB_GAUGE
        TP_PB_UNTYPED
        TP_PB_HISTOGRAM

    struct tp_pb:
        uint8_t *bytes
        size_t used
        bint failed

    struct tp_pb_threshold:
        int index
        double bound

    void tp_pb_free(tp_pb *p)
    size_t tp_pb_open(const tp_pb *p)
    void tp_pb_close(tp_pb *p, size_t opened, unsigned field)
    void tp_pb_number(tp_pb *p, unsigned field, uint64_t value)
    void tp_pb_double(tp_pb *p, unsigned field, double value)
    void tp_pb_text(tp_pb *p, unsigned field, const char *text, size_t size)
    void tp_pb_time(tp_pb *p, unsigned field, int64_t time_ns)
    void tp_pb_histogram(tp_pb *p, const tp_histogram *h, const tp_pb_threshold *thresholds, size_t count,
                         int64_t created_ns)


COUNTER = TP_PB_COUNTER
GAUGE = TP_PB_GAUGE
UNTYPED = TP_PB_UNTYPED

cdef dict _FIELDS = {
    TP_PB_COUNTER: TP_PB_METRIC_COUNTER, TP_PB_GAUGE: TP_PB_METRIC_GAUGE, TP_PB_UNTYPED: TP_PB_METRIC_UNTYPED,
}


cdef class Writer:
    """Families one after the other; bytes() is the page. Not thread-safe."""

    cdef tp_pb page
    cdef tp_pb_threshold *thresholds
    cdef size_t count

    def __cinit__(self, thresholds=()):
        self.thresholds = <tp_pb_threshold *>calloc(len(thresholds) + 1, sizeof(tp_pb_threshold))
        if self.thresholds is NULL:
            raise MemoryError
        for index, bound in thresholds:
            self.thresholds[self.count].index = index
            self.thresholds[self.count].bound = bound
            self.count += 1

    def __dealloc__(self):
        tp_pb_free(&self.page)
        free(self.thresholds)

    cdef void text(self, unsigned field, str value):
        cdef bytes encoded = value.encode()
        tp_pb_text(&self.page, field, encoded, len(encoded))

    cdef void labels(self, unsigned field, pairs):
        cdef size_t opened
        for name, value in pairs:
            opened = tp_pb_open(&self.page)
            self.text(TP_PB_LABEL_NAME, name)
            self.text(TP_PB_LABEL_VALUE, value)
            tp_pb_close(&self.page, opened, field)

    cdef void family(self, str name, str meaning, int kind, str unit):
        self.text(TP_PB_FAMILY_NAME, name)
        self.text(TP_PB_FAMILY_HELP, meaning)
        tp_pb_number(&self.page, TP_PB_FAMILY_TYPE, kind)
        if unit:
            self.text(TP_PB_FAMILY_UNIT, unit)

    def numbers(self, str name, str meaning, int kind, str unit, int64_t created_ns, values):
        cdef size_t family = tp_pb_open(&self.page)
        cdef size_t metric, number
        self.family(name, meaning, kind, unit)
        for pairs, value in values:
            metric = tp_pb_open(&self.page)
            self.labels(TP_PB_METRIC_LABEL, pairs)
            number = tp_pb_open(&self.page)
            tp_pb_double(&self.page, TP_PB_NUMBER_VALUE, value)
            if created_ns >= 0 and kind == TP_PB_COUNTER:
                tp_pb_time(&self.page, TP_PB_COUNTER_CREATED, created_ns)
            tp_pb_close(&self.page, number, _FIELDS[kind])
            tp_pb_close(&self.page, metric, TP_PB_FAMILY_METRIC)
        tp_pb_close(&self.page, family, TP_PB_FAMILY)

    def histograms(self, str name, str meaning, str unit, int64_t created_ns, values):
        cdef size_t family = tp_pb_open(&self.page)
        cdef size_t metric, histogram, exemplar
        cdef Histogram observed
        self.family(name, meaning, TP_PB_HISTOGRAM, unit)
        for pairs, observed, exemplars in values:
            metric = tp_pb_open(&self.page)
            self.labels(TP_PB_METRIC_LABEL, pairs)
            histogram = tp_pb_open(&self.page)
            with nogil:
                tp_pb_histogram(&self.page, &observed.histogram, self.thresholds, self.count, created_ns)
            for named, value_ns, time_ns in exemplars:
                exemplar = tp_pb_open(&self.page)
                self.labels(TP_PB_EXEMPLAR_LABEL, named)
                tp_pb_double(&self.page, TP_PB_EXEMPLAR_VALUE, value_ns / 1e9)
                tp_pb_time(&self.page, TP_PB_EXEMPLAR_TIME, time_ns)
                tp_pb_close(&self.page, exemplar, TP_PB_HISTOGRAM_EXEMPLAR)
            tp_pb_close(&self.page, histogram, TP_PB_METRIC_HISTOGRAM)
            tp_pb_close(&self.page, metric, TP_PB_FAMILY_METRIC)
        tp_pb_close(&self.page, family, TP_PB_FAMILY)

    def bytes(self):
        if self.page.failed:
            raise MemoryError
        return (<char *>self.page.bytes)[:self.page.used] if self.page.used else b""
