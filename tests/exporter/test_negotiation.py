# SPDX-License-Identifier: Apache-2.0
"""Content negotiation follows the weights that a client gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpath.exporter.exposition.negotiation import Format, accepts_gzip, choose_format

TEXT = Format.TEXT
OPENMETRICS = Format.OPENMETRICS
PROTOBUF = Format.PROTOBUF
PROTOBUF_TYPE = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("text/plain", TEXT),
        ("text/*", TEXT),
        ("application/*", OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0;q=0.5", OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, PROTOBUF),
        (PROMETHEUS_2_NATIVE, PROTOBUF),
        (f"{PROTOBUF_TYPE};encoding=delimited", PROTOBUF),
        (f"{PROTOBUF_TYPE};encoding=delimited".lower(), PROTOBUF),
        (f'{PROTOBUF_TYPE}; encoding="delimited"; q=0.1', PROTOBUF),
        (f"{PROTOBUF_TYPE};encoding=delimited;q=0.4,application/openmetrics-text;q=0.5", OPENMETRICS),
        (f"{PROTOBUF_TYPE};encoding=delimited;q=0,*/*", TEXT),
        (f"{PROTOBUF_TYPE};encoding=text", TEXT),
        (f"{PROTOBUF_TYPE};encoding=compact-text,application/openmetrics-text;q=0.1", OPENMETRICS),
        (PROTOBUF_TYPE, TEXT),
        ("application/vnd.google.protobuf", TEXT),
        ("application/vnd.google.protobuf;proto=other.Family;encoding=delimited", TEXT),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", TEXT),
        ("text/plain;q=0.4,application/openmetrics-text;q=0.5", OPENMETRICS),
        ("application/openmetrics-text;q=0,*/*", TEXT),
        ("text/plain;q=0,*/*", OPENMETRICS),
        ("text/plain;version=0.0.4;q=0.1,text/plain;q=0.9,application/openmetrics-text;q=0.5", OPENMETRICS),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=-1", TEXT),
        ("application/openmetrics-text;q=lots", TEXT),
        ("image/png", TEXT),
        (",;,;;q=,", TEXT),
    ],
)
def test_the_heaviest_format_that_is_served_wins(accept: str | None, expected: Format) -> None:
    assert choose_format(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.1", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0.5, gzip;q=0", False),
        ("identity", False),
        ("x-gzip", True),
        ("gzipped", False),
    ],
)
def test_gzip_only_when_accepted(accept_encoding: str | None, expected: bool) -> None:
    assert accepts_gzip(accept_encoding) is expected


@given(st.text())
def test_no_header_breaks_negotiation(header: str) -> None:
    choose_format(header)
    accepts_gzip(header)
