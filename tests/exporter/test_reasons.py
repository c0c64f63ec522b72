# SPDX-License-Identifier: Apache-2.0
"""Every reason of the correlator has words for the operator, and no word is left of one that is gone."""

from __future__ import annotations

from tickpath.exporter.correlator import Leg, Reason
from tickpath.exporter.exposition.summary import HOPS, PARTS, SPANS
from tickpath.exporter.web.landing import MEANINGS
from tickpath.exporter.web.reasons import WORDS


def test_reasons_are_those_of_the_correlator() -> None:
    assert set(WORDS) == {reason.name.lower() for reason in Reason} - {"none"}


def test_legs_are_those_of_the_correlator() -> None:
    legs = {leg.name.lower() for leg in Leg}
    assert legs == {*HOPS, *SPANS, *(part for parts in PARTS.values() for part in parts)} == set(MEANINGS)
