# SPDX-License-Identifier: Apache-2.0
"""Rings: records pass from one producer to any number of readers in other processes; the producer never waits."""

from __future__ import annotations

from tickpath._ring import SUFFIX, RingReader, RingWriter, make_directory

__all__ = ["SUFFIX", "RingReader", "RingWriter", "make_directory"]
