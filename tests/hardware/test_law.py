# SPDX-License-Identifier: Apache-2.0
"""The checker's own truth: its inverse is one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hardware.law import Law

PPM = st.integers(-1000 * 65536, 1000 * 65536)


@given(
    st.lists(st.tuples(st.integers(1, 10**12), st.integers(0, 10**18), PPM), min_size=1, max_size=6),
    st.integers(0, 10**13),
)
def test_what_it_showed_leads_back_to_the_moment(changes: list[tuple[int, int, int]], ahead: int) -> None:
    began, lines = 10**9, []
    for gap, phc_ns, scaled_ppm in changes:
        lines.append(f"{began} {phc_ns} {scaled_ppm}\n")
        began += gap
    law = Law("".join(lines))
    moment = 10**9 + ahead
    assert any(abs(found - moment) <= 2 for found in law.when(law.at(moment)))
