# SPDX-License-Identifier: Apache-2.0
"""What the demo shows can be read: units, missing hops with their reason, sources apart."""

from __future__ import annotations

from rich.console import Console

from tickpath.exporter.exposition.summary import Figures, Summary
from tickpath.lab.demo.plan import planned_feeds
from tickpath.lab.demo.screen import render
from tickpath.lab.simulator.address import Address, read_address
from tickpath.lab.simulator.config import Venue


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


def test_times_have_three_digits_also_just_below_the_next_unit() -> None:
    one = Figures(1, 999_600, 999, 9_996, 99_960, 999_600, "sw")
    lines = [line.split() for line in _shown(_summary(hops={"cpu": one})).splitlines()]
    assert ["cpu", "sw", "1", "999", "ns", "10.0", "µs", "100", "µs", "1.00", "ms"] in lines


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
