# SPDX-License-Identifier: Apache-2.0
"""Prometheus's protobuf messages (prometheus/client_model, metrics.proto), for google's own parser: an oracle."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

# Message: field: (number, type); a capital is another message, `*` a repeated field.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double"), "exemplar": (2, "Exemplar"), "created_timestamp": (3, "Timestamp")},
    "Untyped": {"value": (1, "double")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Exemplar": {"label": (1, "*LabelPair"), "value": (2, "double"), "timestamp": (3, "Timestamp")},
    "Bucket": {
        "cumulative_count": (1, "uint64"),
        "upper_bound": (2, "double"),
        "exemplar": (3, "Exemplar"),
        "cumulative_count_float": (4, "double"),
    },
    "Histogram": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "bucket": (3, "*Bucket"),
        "sample_count_float": (4, "double"),
        "schema": (5, "sint32"),
        "zero_threshold": (6, "double"),
        "zero_count": (7, "uint64"),
        "zero_count_float": (8, "double"),
        "negative_span": (9, "*BucketSpan"),
        "negative_delta": (10, "*sint64"),
        "negative_count": (11, "*double"),
        "positive_span": (12, "*BucketSpan"),
        "positive_delta": (13, "*sint64"),
        "positive_count": (14, "*double"),
        "created_timestamp": (15, "Timestamp"),
        "exemplars": (16, "*Exemplar"),
    },
    "Metric": {
        "label": (1, "*LabelPair"),
        "gauge": (2, "Gauge"),
        "counter": (3, "Counter"),
        "untyped": (5, "Untyped"),
        "timestamp_ms": (6, "int64"),
        "histogram": (7, "Histogram"),
    },
    "MetricFamily": {
        "name": (1, "string"),
        "help": (2, "string"),
        "type": (3, "int32"),
        "metric": (4, "*Metric"),
        "unit": (5, "string"),
    },
}
COUNTER, GAUGE, HISTOGRAM = 0, 1, 4
_PACKAGE = "io.prometheus.client"


def _family_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="metrics.proto", package=_PACKAGE, syntax="proto2", dependency=["google/protobuf/timestamp.proto"]
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, written) in fields.items():
            kind = written.lstrip("*")
            made = message.field.add(name=field, number=number)
            made.label = made.LABEL_REPEATED if written.startswith("*") else made.LABEL_OPTIONAL
            if kind[0].isupper():
                made.type = made.TYPE_MESSAGE
                made.type_name = ".google.protobuf.Timestamp" if kind == "Timestamp" else f".{_PACKAGE}.{kind}"
            else:
                made.type = getattr(made, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricFamily"))


_FAMILY = _family_type()


def _length(page: bytes, at: int) -> tuple[int, int]:
    """A varint and where the next byte is."""
    value = shift = 0
    while True:
        byte = page[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def unknown(message: Any) -> list[int]:
    """Numbers of the fields that the definitions do not know, of the message and all in it."""
    from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415 # not of the oldest versions

    found = [field.field_number for field in UnknownFieldSet(message)]
    for descriptor, value in message.ListFields():
        if descriptor.message_type:
            for one in [value] if hasattr(value, "ListFields") else value:
                found += unknown(one)
    return found


def families(page: bytes) -> dict[str, Any]:
    """The families of a delimited page, by name; one that comes twice or is not understood in full fails."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(page):
        length, at = _length(page, at)
        family = _FAMILY.FromString(page[at : at + length])
        assert at + length <= len(page), "cut short"
        assert family.name not in found, f"written twice: {family.name}"
        assert not unknown(family), f"not in the definitions: {unknown(family)}"
        found[family.name] = family
        at += length
    return found


def labels(pairs: Any) -> dict[str, str]:
    """Labels of a metric or an exemplar; one that comes twice fails."""
    made = {pair.name: pair.value for pair in pairs}
    assert len(made) == len(pairs)
    return made


def native(spans: Any, deltas: Any) -> dict[int, int]:
    """Counts by bucket index, empty buckets left out."""
    found = {}
    index = count = 0
    left = list(deltas)
    for span in spans:
        index += span.offset
        for _ in range(span.length):
            count += left.pop(0)
            assert count >= 0
            if count:
                found[index] = count
            index += 1
    assert not left, "more deltas than buckets"
    return found
