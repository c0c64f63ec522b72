# SPDX-License-Identifier: Apache-2.0
"""The correlator: records in, joined messages and histograms out; C without the GIL."""

from __future__ import annotations

from tickpath.exporter.correlator.correlator import Correlator
from tickpath.exporter.correlator.joined import HOPS, JOINED, PARTS, SPANS, Leg, Match, Reason, Stamp

__all__ = ["HOPS", "JOINED", "PARTS", "SPANS", "Correlator", "Leg", "Match", "Reason", "Stamp"]
