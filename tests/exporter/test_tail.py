# SPDX-License-Identifier: Apache-2.0
"""A line of tail says what is known, why the rest is not, and nothing that the terminal would obey."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpath.errors import ConfigError
from tickpath.event import Source, Tier
from tickpath.exporter.correlator import JOINED, Leg, Match, Reason
from tickpath.exporter.exposition.units import human
from tickpath.exporter.tail import Message, parse_duration_ns, render_json, render_text
from tickpath.exporter.tail_command import Tail, message_of

FULL = Message(
    venue="binance-usdm",
    feed="btcusdt",
    connection=0xBEEF,
    ordinal=7,
    tcp_seq=123456,
    tier="A",
    source="sw",
    method="offset",
    legs={
        "bn_to_nic": -1_270_000_000,
        "nic_to_kernel": 4_000,
        "kernel_to_user": 12_300,
        "cpu": 940,
        "msk": 17_000,
        "total": -1_269_965_760,
    },
    missing={"hol_wait": "wire_gap"},
)
NO_KERNEL = Message(
    venue="binance-usdm",
    feed="btcusdt",
    connection=0,
    ordinal=8,
    tcp_seq=None,
    tier="A",
    source="sw",
    method="offset",
    legs={"nic_to_user": 40_000, "cpu": 1_000},
    missing={
        "bn_to_nic": "no_exchange",
        "nic_to_kernel": "no_kernel",
        "kernel_to_user": "no_kernel",
        "msk": "not_published",
        "total": "no_exchange",
    },
)


def with_feed(feed: str) -> Message:
    return Message("v", feed, 0, 0, None, "A", "", "", {}, {})


def test_a_message_with_all_stamps() -> None:
    assert render_text(FULL) == (
        "[delay] feed=btcusdt ordinal=7 tcp_seq=123456 BN->NIC=-1.27s NIC->Kernel=4.00µs Kernel->User=12.3µs "
        "CPU=940ns MSK=17.0µs Total=-1.27s"
    )


def test_without_a_kernel_probe_the_known_span_stands_for_its_hops() -> None:
    assert render_text(NO_KERNEL) == (
        "[delay] feed=btcusdt ordinal=8 tcp_seq=- BN->NIC=-(no_exchange) NIC->User=40.0µs CPU=1.00µs "
        "MSK=-(not_published) Total=-(no_exchange)"
    )


def test_colour_changes_nothing_but_colour() -> None:
    for message in (FULL, NO_KERNEL):
        coloured = render_text(message, colour=True)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[\d+m", "", coloured) == render_text(message)


@given(st.text(max_size=32))
def test_no_name_reaches_the_terminal_raw_or_passes_for_another_field(feed: str) -> None:
    for line in (render_text(with_feed(feed)), render_json(with_feed(feed))):
        assert line.isprintable()
        line.encode()
    assert re.fullmatch(r'\[delay\] feed=(?:"(?:[^"\\]|\\.)*"|[^\s="]+) ordinal=0 .*', render_text(with_feed(feed)))


def test_json_holds_everything_in_nanoseconds() -> None:
    read = json.loads(render_json(FULL))
    assert read["connection"] == "beef"
    assert (read["ordinal"], read["tcp_seq"], read["total_ns"], read["cpu_ns"]) == (7, 123456, -1_269_965_760, 940)
    assert read["missing"] == {"hol_wait": "wire_gap"}
    assert json.loads(render_json(NO_KERNEL))["tcp_seq"] is None


def test_the_longest_known_span_is_what_is_compared() -> None:
    assert FULL.longest_ns == -1_269_965_760
    assert NO_KERNEL.longest_ns == 40_000
    assert with_feed("x").longest_ns is None
    behind = msgspec.structs.replace(FULL, legs={"total": -1_200_000_000, "in_host": 190_000, "nic_to_user": 150_000})
    assert behind.longest_ns == 190_000


def shown(messages: list[Message], **options: Any) -> tuple[list[str], Tail]:
    lines: list[str] = []
    tail = Tail(lines.append, lambda message: str(message.ordinal), **options)
    for message in messages:
        tail.add(message)
    return lines, tail


def test_slower_than_leaves_out_the_fast_and_counts_what_it_cannot_compare() -> None:
    lines, tail = shown([FULL, NO_KERNEL, with_feed("x")], slower_than_ns=39_999)
    assert lines == ["8\n"]
    assert tail.closing(2, 3) == (
        "1 of 3 messages shown, 1 had no span to compare, 3 came faster than they could be shown, 2 records lost"
    )
    assert shown([NO_KERNEL], slower_than_ns=40_000)[0] == []


def test_feeds_are_picked_and_counts_kept() -> None:
    lines, tail = shown([FULL, with_feed("x"), NO_KERNEL, FULL], feeds=frozenset({"btcusdt"}), count=2)
    assert lines == ["7\n", "8\n"]
    assert tail.done
    assert tail.closing(0, 0) == "2 of 2 messages shown"


def test_a_result_of_the_correlator_in_words() -> None:
    joined = np.zeros(1, dtype=JOINED)
    joined["label"], joined["ordinal"], joined["tcp_seq"], joined["cookie"] = 1, 9, 2**32 - 1, 77
    joined["tier"], joined["source"], joined["method"] = Tier.A, Source.SW, Match.OFFSET
    joined["legs"] = 1 << Leg.CPU
    joined["leg_ns"][:, Leg.CPU] = -3
    joined["missing"][:, Leg.MSK] = Reason.NOT_PUBLISHED
    message = message_of(joined[0], [("other", "x"), ("binance-usdm", "btcusdt")])
    assert (message.venue, message.feed, message.ordinal, message.tcp_seq) == ("binance-usdm", "btcusdt", 9, 2**32 - 1)
    assert message.connection == 77
    assert (message.tier, message.source, message.method) == ("A", "sw", "offset")
    assert message.legs == {"cpu": -3}
    assert message.missing["msk"] == "not_published"
    assert "cpu" not in message.missing


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"),
        (0, "0 ns"),
        (-1, "-1 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (9_994, "9.99 µs"),
        (9_996, "10.0 µs"),
        (99_960, "100 µs"),
        (999_499, "999 µs"),
        (999_600, "1.00 ms"),
        (999_999_999, "1.00 s"),
        (-1_270_000_000, "-1.27 s"),
        (3_600_000_000_000, "3,600 s"),
    ],
)
def test_times_in_human_units(ns: int | None, text: str) -> None:
    assert human(ns) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_human_times_are_within_half_a_percent(ns: int) -> None:
    number, unit = human(ns).replace(",", "").split()
    value = float(number) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert value == pytest.approx(ns, rel=0.0051)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("5ms", 5_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("1.5s", 1_500_000_000),
        ("0.000000001 s", 1),
        ("7ns", 7),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "5", "ms", "-5ms", "5 minutes", "1e3ms", "\u0665ms", "1.ms", "5ms5"])
def test_what_is_no_duration_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="5ms") as caught:
        parse_duration_ns(text)
    assert "\n" not in str(caught.value)
