/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes io.prometheus.client.MetricFamily messages (prometheus/client_model, metrics.proto), each behind its length.
 *
 * Only what tickpath exposes can be written. Lists of deltas are packed, which every protobuf parser reads and which
 * saves a byte a bucket. Nothing here is thread-safe.
 */
#ifndef TICKPATH_EXPOSITION_PROTOBUF_H
#define TICKPATH_EXPOSITION_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tickpath/histogram.h"

/* Fields by their numbers in metrics.proto. */
enum tp_pb_field {
    TP_PB_FAMILY = 0, /* no field: a message of its own, behind its length alone */
    TP_PB_FAMILY_NAME = 1,
    TP_PB_FAMILY_HELP = 2,
    TP_PB_FAMILY_TYPE = 3,
    TP_PB_FAMILY_METRIC = 4,
    TP_PB_FAMILY_UNIT = 5,
    TP_PB_METRIC_LABEL = 1,
    TP_PB_METRIC_GAUGE = 2,
    TP_PB_METRIC_COUNTER = 3,
    TP_PB_METRIC_UNTYPED = 5,
    TP_PB_METRIC_HISTOGRAM = 7,
    TP_PB_LABEL_NAME = 1,
    TP_PB_LABEL_VALUE = 2,
    TP_PB_NUMBER_VALUE = 1, /* of gauge, counter and untyped alike */
    TP_PB_COUNTER_CREATED = 3,
    TP_PB_HISTOGRAM_COUNT = 1,
    TP_PB_HISTOGRAM_SUM = 2,
    TP_PB_HISTOGRAM_BUCKET = 3,
    TP_PB_HISTOGRAM_SCHEMA = 5,
    TP_PB_HISTOGRAM_ZERO_COUNT = 7,
    TP_PB_HISTOGRAM_NEGATIVE_SPAN = 9,
    TP_PB_HISTOGRAM_NEGATIVE_DELTA = 10,
    TP_PB_HISTOGRAM_POSITIVE_SPAN = 12,
    TP_PB_HISTOGRAM_POSITIVE_DELTA = 13,
    TP_PB_HISTOGRAM_CREATED = 15,
    TP_PB_HISTOGRAM_EXEMPLAR = 16,
    TP_PB_BUCKET_COUNT = 1,
    TP_PB_BUCKET_BOUND = 2,
    TP_PB_SPAN_OFFSET = 1,
    TP_PB_SPAN_LENGTH = 2,
    TP_PB_EXEMPLAR_LABEL = 1,
    TP_PB_EXEMPLAR_VALUE = 2,
    TP_PB_EXEMPLAR_TIME = 3,
    TP_PB_TIME_SECONDS = 1,
    TP_PB_TIME_NANOS = 2,
};

enum tp_pb_type { TP_PB_COUNTER = 0, TP_PB_GAUGE = 1, TP_PB_UNTYPED = 3, TP_PB_HISTOGRAM = 4 };

/* What has been written. All zero is an empty one. */
struct tp_pb {
    uint8_t *bytes;
    size_t used;
    size_t room;
    bool failed; /* out of memory: what is written from then on is dropped */
};

/* A threshold of the classic buckets: a bound of the schema, so that its count is exact. */
struct tp_pb_threshold {
    int index;
    double bound;
};

void tp_pb_free(struct tp_pb *);

/* A message inside another: what is written between the two is its content. */
size_t tp_pb_open(const struct tp_pb *);
void tp_pb_close(struct tp_pb *, size_t opened, unsigned field);

void tp_pb_number(struct tp_pb *, unsigned field, uint64_t value);
void tp_pb_double(struct tp_pb *, unsigned field, double value);
void tp_pb_text(struct tp_pb *, unsigned field, const char *text, size_t bytes);
/* A google.protobuf.Timestamp; time_ns from 0 up. */
void tp_pb_time(struct tp_pb *, unsigned field, int64_t time_ns);

/* Count, sum, thresholds (ascending) and native buckets: the content of a histogram but for its exemplars. Times are
 * written in seconds. created_ns < 0: left out. */
void tp_pb_histogram(struct tp_pb *, const struct tp_histogram *, const struct tp_pb_threshold *, size_t thresholds,
                     int64_t created_ns);

#endif
