# SPDX-License-Identifier: Apache-2.0
"""The protobuf page, read by google's parser with Prometheus's own definitions, says what was observed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_model import COUNTER, GAUGE, HISTOGRAM, families, labels, native
from exporter_samples import FEED, STARTED_NS, VENUE, empty_snapshot, full_snapshot, histogram, observation, series
from tickpath.exporter.exposition.buckets import BOUNDS, FEW
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.exposition.page import MetricsPage
from tickpath.exporter.snapshot import Exemplar, Polls, Series, SeriesKind
from tickpath.histogram import SCHEMA, Histogram, upper_bound_ns

HOP = "tickpath_hop_latency_seconds"


def page(observed: Observation) -> dict[str, Any]:
    return families(MetricsPage(lambda: observed).render(Format.PROTOBUF))


def only(*made: Series) -> Observation:
    return observation(replace(empty_snapshot(), series=made))


def metric(family: Any, **wanted: str) -> Any:
    found = [one for one in family.metric if labels(one.label) == wanted]
    assert len(found) == 1
    return found[0]


def check(shown: Any, expected: Histogram, values: list[int]) -> None:
    """Native and classic buckets alike, count, sum, zero bucket."""
    negative, zero, positive = expected.buckets()
    assert shown.schema == SCHEMA
    assert shown.sample_count == expected.count == len(values)
    assert shown.sample_sum == pytest.approx(expected.sum_ns / 1e9, rel=1e-15)
    assert (shown.zero_threshold, shown.zero_count) == (0, zero)
    assert native(shown.positive_span, shown.positive_delta) == dict(positive)
    assert native(shown.negative_span, shown.negative_delta) == dict(negative)
    assert [bucket.upper_bound for bucket in shown.bucket] == [bound for _, bound in FEW]
    for bucket in shown.bucket:
        assert bucket.cumulative_count == sum(value <= bucket.upper_bound * 1e9 for value in values)
    # Without this Prometheus takes it for a classic histogram.
    assert shown.positive_span or shown.negative_span or shown.zero_count


EDGES = [sign * (upper_bound_ns(index) + by) for index in range(-478, 200, 7) for by in (0, 1) for sign in (1, -1)]
VALUES = st.lists(
    st.integers(-(10**11), 10**11) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from(EDGES), max_size=80
)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_what_is_decoded_is_what_was_observed(values: list[int]) -> None:
    found = page(only(series(SeriesKind.HOP, "bn_to_nic", values, source="sw")))
    assert found[HOP].type == HISTOGRAM
    assert found[HOP].unit == "seconds"
    shown = metric(found[HOP], hop="bn_to_nic", venue=VENUE, feed=FEED, source="sw").histogram
    check(shown, histogram(values), values)


def test_an_empty_histogram_is_marked_as_a_native_one() -> None:
    shown = page(only(series(SeriesKind.HOP, "cpu", [])))[HOP].metric[0].histogram
    assert [(span.offset, span.length) for span in shown.positive_span] == [(0, 0)]
    assert (shown.sample_count, shown.sample_sum, list(shown.positive_delta)) == (0, 0, [])


def test_negative_times_are_in_their_own_histogram_and_in_no_other() -> None:
    found = page(observation())
    shown = metric(found[HOP], hop="bn_to_nic", venue=VENUE, feed=FEED, source="sock").histogram
    assert shown.sample_sum == -1.27
    assert shown.sample_count == 1
    assert "tickpath_negative_latency_seconds" not in found
    counted = metric(found["tickpath_negative_latencies_total"], hop="bn_to_nic", venue=VENUE, feed=FEED)
    assert counted.counter.value == 1


def test_histograms_and_our_counters_say_since_when_they_count_and_producers_do_not() -> None:
    found = page(observation())
    created = found[HOP].metric[0].histogram.created_timestamp
    assert created.seconds * 10**9 + created.nanos == STARTED_NS
    ours = found["tickpath_messages_total"].metric[0].counter
    assert ours.created_timestamp == created
    theirs = found["tickpath_feed_messages_total"].metric[0].counter
    assert theirs.value == 10
    assert not theirs.HasField("created_timestamp")


def test_every_sample_of_the_text_page_is_there_too() -> None:
    """But those of histograms, which are checked above, and of the process, which move."""
    observed = observation(full_snapshot(("a", "b")))
    found = page(observed)
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    text = MetricsPage(lambda: observed).render(Format.TEXT).decode()
    compared = 0
    for family in text_string_to_metric_families(text):
        if family.type == "histogram" or family.name.startswith("process_"):
            continue
        for sample in family.samples:
            shown = metric(found[sample.name], **{k: v for k, v in sample.labels.items() if v})
            kind = {COUNTER: "counter", GAUGE: "gauge"}[found[sample.name].type]
            assert kind == family.type
            assert getattr(shown, kind).value == sample.value
            compared += 1
    assert compared > 30
    assert "process_cpu_seconds_total" in found


def test_polls_of_the_drain_are_a_histogram() -> None:
    observed = replace(observation(), polls=Polls(5, histogram([1_000_000, 2_000_000])))
    shown = page(observed)["tickpath_exporter_poll_interval_seconds"].metric[0]
    assert labels(shown.label) == {}
    assert shown.histogram.sample_count == 2


def exemplars(found: Iterable[Any]) -> list[tuple[dict[str, str], float, int]]:
    return [(labels(one.label), one.value, one.timestamp.seconds * 10**9 + one.timestamp.nanos) for one in found]


def test_exemplars_name_the_message_and_when_it_was_received() -> None:
    made = replace(
        series(SeriesKind.HOP, "bn_to_nic", [-5, 7]),
        exemplars=(Exemplar(-5, STARTED_NS + 1, FEED, 0xABC, 17), Exemplar(7, STARTED_NS, FEED, 0, 2**32 - 1)),
    )
    shown = page(only(made))[HOP].metric[0].histogram
    assert exemplars(shown.exemplars) == [
        ({"feed": FEED, "ordinal": "4294967295"}, 7e-9, STARTED_NS),
        ({"feed": FEED, "connection": "abc", "ordinal": "17"}, -5e-9, STARTED_NS + 1),
    ]


def test_of_many_exemplars_the_slowest_and_the_newest_other_are_shown() -> None:
    times = {20: 4, 30: 5, 40: 3, 50: 2}
    kept = tuple(Exemplar(value, STARTED_NS + at, FEED, 1, value) for value, at in times.items())
    made = replace(series(SeriesKind.HOP, "cpu", list(times)), exemplars=kept)
    shown = page(only(made))[HOP].metric[0].histogram
    assert [labels(one.label)["ordinal"] for one in shown.exemplars] == ["50", "30"]


def test_few_classic_buckets_stand_beside_native_ones_and_hold_what_the_dashboards_ask_for() -> None:
    beside = {repr(bound) for _, bound in FEW}
    assert beside < set(BOUNDS)
    assert {"0.0009765625", "0.015625"} <= beside


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_exemplars_keep_within_what_openmetrics_allows(feed: str, cookie: int, ordinal: int) -> None:
    made = series(SeriesKind.HOP, "cpu", [7], feed=feed)
    made = replace(made, exemplars=(Exemplar(7, STARTED_NS, feed, cookie, ordinal),))
    for named, _, _ in exemplars(page(only(made))[HOP].metric[0].histogram.exemplars):
        assert named["ordinal"] == str(ordinal)
        assert sum(len(name) + len(value) for name, value in named.items()) <= 128


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4, unique=True))
def test_no_name_breaks_the_page(feeds: list[str]) -> None:
    page(observation(full_snapshot(tuple(feeds))))


def test_names_that_encode_alike_are_one_series() -> None:
    twins = ("x\udcff", "x\\udcff")
    shown = metric(page(observation(full_snapshot(twins)))[HOP], hop="cpu", venue=VENUE, feed=twins[1]).histogram
    assert shown.sample_count == 20


def test_a_page_without_series_is_read_too() -> None:
    found = page(observation(empty_snapshot()))
    assert HOP not in found
    assert all(family.metric for family in found.values())
