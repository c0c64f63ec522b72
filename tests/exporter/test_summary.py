# SPDX-License-Identifier: Apache-2.0
"""The summary adds up over feeds, exactly, and never over sources."""

from __future__ import annotations

import msgspec

from exporter_samples import full_snapshot, observation
from tickpath.exporter.exposition.summary import Summary, summarise


def test_figures_add_up_over_feeds() -> None:
    summary = summarise(observation(full_snapshot(("a", "b"))))
    assert summary.messages == 20
    assert sum(summary.matched.values()) + sum(summary.unmatched.values()) == summary.messages
    assert summary.matched == {"offset": 16, "socket": 0, "window": 0}
    assert summary.unmatched == {"wire_gap": 4}
    assert (summary.hops["cpu"].count, summary.hops["cpu"].sum_ns) == (20, 2 * 10_045)
    assert summary.hops["cpu"].max_ns == 1009
    assert summary.missing["nic_to_kernel"] == {"no_kernel": 20}
    assert summary.negative == {"bn_to_nic": 2}
    assert summary.pending == 2
    assert (summary.lost_records, summary.skipped_records) == (5, 4)
    assert summary.feeds == {"a": 10, "b": 10}


def test_a_feed_can_be_asked_for_alone() -> None:
    summary = summarise(observation(full_snapshot(("a", "b"))), frozenset({"b"}))
    assert (summary.messages, summary.hops["cpu"].count, summary.feeds) == (10, 10, {"b": 10})
    assert summarise(observation(), frozenset({"nobody"})).hops == {}


def test_sources_are_never_added_up() -> None:
    hop = summarise(observation()).hops["bn_to_nic"]
    assert (hop.source, hop.count, hop.max_ns) == ("sw", 7, 3_600_000)
    assert {source: one.sum_ns for source, one in hop.other_sources.items()} == {"sock": -1_270_000_000}


def test_hops_come_in_the_order_in_which_a_message_passes_them() -> None:
    summary = summarise(observation())
    assert list(summary.hops) == ["bn_to_nic", "cpu", "msk"]
    assert list(summary.spans) == ["total", "nic_to_user"]


def test_summarising_leaves_the_snapshot_alone() -> None:
    made = observation(full_snapshot(("a", "b")))
    assert summarise(made) == summarise(made)


def test_hostile_names_can_be_encoded() -> None:
    summary = summarise(observation(full_snapshot(("\udcff", '"'))))
    assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary
