# SPDX-License-Identifier: Apache-2.0
"""Histograms of signed nanoseconds in the buckets of a Prometheus native histogram of schema 4."""

from __future__ import annotations

from tickpath._histogram import MAX_INDEX, MIN_INDEX, SCHEMA, Buckets, Histogram, bucket_index, upper_bound_ns

__all__ = ["MAX_INDEX", "MIN_INDEX", "SCHEMA", "Buckets", "Histogram", "bucket_index", "upper_bound_ns"]
