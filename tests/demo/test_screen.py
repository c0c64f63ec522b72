# SPDX-License-Identifier: Apache-2.0
"""What the demo shows can be read: units, missing hops with their reason, sources apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tickpath.exporter.exposition.summary import Figures, Summary
from tickpath.lab.demo.plan import planned_feeds
from tickpath.lab.demo.screen import duration, render
from tickpath.lab.simulator.address import Address, read_address
from tickpath.lab.simulator.config import Venue


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (-1_270_000_000, "-1.27 s"),
        (123_456_789, "123 ms"),
        (None, "-"),
    ],
)
def test_a_duration_has_three_digits_and_its_unit(value_ns: int | None, text: str) -> None:
    assert duration(value_ns) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_duration_is_within_half_a_percent_of_what_it_says(value_ns: int) -> None:
    number, unit = duration(value_ns).split()
    said = float(number) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert abs(said - value_ns) <= abs(value_ns) * 0.0051


def _summary(**given_fields: object) -> Summary:
    empty: dict[str, object] = {name: {} for name in ("hops", "parts", "spans", "matched", "unmatched", "missing")}
    empty |= {name: {} for name in ("negative", "sources", "feeds", "rings", "unreadable_rings", "clocks")}
    empty |= {"messages": 0, "pending": 0, "lost_records": 0, "skipped_records": 0, "missed": 0}
    return Summary(**{**empty, **given_fields})  # type: ignore[arg-type]


def _shown(summary: Summary) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(summary, sent=7, elapsed_s=1.0, where="http://here"))
    return console.export_text()


def test_a_missing_hop_is_shown_with_its_reason_and_remedy() -> None:
    text = _shown(_summary(messages=7, missing={"nic_to_kernel": {"no_kernel": 7}}))
    assert "nic_to_kernel of 7 (no_kernel)" in text
    assert "needs the kernel probe" in text


def test_stamps_of_two_sources_are_shown_apart() -> None:
    one = Figures(3, 30, 10, 10, 10, 10, "sw", {"sock": Figures(2, 40, 20, 20, 20, 20)})
    lines = [line.split() for line in _shown(_summary(spans={"nic_to_user": one})).splitlines()]
    assert ["nic_to_user", "sw", "3", "10", "ns", "10", "ns", "10", "ns", "10", "ns"] in lines
    assert ["sock", "2", "20", "ns", "20", "ns", "20", "ns", "20", "ns"] in lines


def test_every_stream_is_asked_for_once_on_the_path_that_serves_it() -> None:
    streams = {"btcusdt@bookTicker", "btcusdt@trade", "btcusdt@depth@0ms"}
    asked: list[str] = []
    for feed in planned_feeds(Venue.USDM, streams):
        address = read_address(feed.target, Venue.USDM)
        assert isinstance(address, Address)
        asked += address.streams
    assert sorted(asked) == sorted(streams)
    assert len(planned_feeds(Venue.USDM, streams)) == 2
    assert len(planned_feeds(Venue.SPOT, streams)) == 1
