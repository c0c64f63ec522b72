# SPDX-License-Identifier: Apache-2.0
"""What /metrics says is what the snapshot holds, in both formats, read back by parsers that are not ours."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter_samples import FEED, STARTED_NS, VENUE, empty_snapshot, full_snapshot, observation, series
from tickpath.exporter.exposition.buckets import BOUNDS
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.exposition.page import MetricsPage
from tickpath.exporter.snapshot import Exemplar, RingState, SeriesKind, Snapshot
from tickpath.histogram import SCHEMA, upper_bound_ns

Parser = Callable[[str], Iterable[Metric]]
PARSERS: dict[Format, Parser] = {Format.TEXT: parse_text, Format.OPENMETRICS: parse_openmetrics}


def page(observed: Observation, chosen: Format = Format.TEXT) -> str:
    return MetricsPage(lambda: observed).render(chosen).decode()


def samples(observed: Observation, chosen: Format = Format.TEXT) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; empty labels left out, as Prometheus does. A series written twice fails."""
    found = {}
    for family in PARSERS[chosen](page(observed, chosen)):
        for sample in family.samples:
            key = (sample.name, frozenset((k, v) for k, v in sample.labels.items() if v))
            assert key not in found, f"written twice: {key}"
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return (name, frozenset(labels.items()))


def only(snapshot_series: Iterable[object]) -> Observation:
    made = replace(empty_snapshot(), series=tuple(snapshot_series))  # type: ignore[arg-type]
    return observation(made)


def test_the_cost_of_a_probe_is_told_by_hook_where_it_is_counted() -> None:
    counted = {"runs_readable": 40, "cost_readable_ns": 8_000, "told_readable": 30, "runs_asked": 0, "cost_asked_ns": 0}
    rings = (RingState(0, "kernel", "kernel", True, 0, 0, 0, counted), RingState(1, "b", "kernel", True, 0, 0, 0, {}))
    found = samples(observation(replace(empty_snapshot(), rings=rings)), Format.OPENMETRICS)
    told = {name: value for (name, labels), value in found.items() if ("hook", "readable") in labels}
    assert told == {
        "tickpath_probe_cost_seconds_total": pytest.approx(8e-6),
        "tickpath_probe_runs_total": 40,
        "tickpath_probe_records_total": 30,
    }
    assert not any(("probe", "other") in labels or ("hook", "asked") in labels for _, labels in found)


@pytest.mark.parametrize("chosen", PARSERS)
def test_counters_are_those_of_the_snapshot(chosen: Format) -> None:
    found = samples(observation(), chosen)
    feed = {"venue": VENUE, "feed": FEED}
    assert found[key("tickpath_messages_total", tier="A", method="offset", **feed)] == 8
    assert found[key("tickpath_messages_total", method="none", **feed)] == 2
    assert found[key("tickpath_unmatched_messages_total", reason="wire_gap", **feed)] == 2
    assert found[key("tickpath_missing_hop_total", hop="nic_to_kernel", reason="no_kernel", **feed)] == 10
    assert found[key("tickpath_head_of_line_blocked_messages_total", **feed)] == 1
    assert found[key("tickpath_retransmitted_messages_total", **feed)] == 0
    assert found[key("tickpath_merged_messages_total", **feed)] == 2
    assert found[key("tickpath_pending_messages")] == 2
    assert found[key("tickpath_evicted_total", what="segment")] == 9
    assert found[key("tickpath_ring_lost_records_total", ring="wire-lo")] == 5
    assert found[key("tickpath_ring_skipped_records_total", ring="feed-btcusdt")] == 4
    assert found[key("tickpath_ring_unreadable", ring="broken")] == 1
    assert found[key("tickpath_ring_unreadable_files_total")] == 1
    assert found[key("tickpath_producer_up", ring="feed-btcusdt", kind="feed")] == 1
    assert found[key("tickpath_producer_up", ring="wire-lo", kind="wire")] == 0
    assert found[key("tickpath_producer_stopped", ring="wire-lo", kind="wire")] == 0
    assert found[key("tickpath_producer_stopped", ring="feed-btcusdt", kind="feed")] == 0
    assert found[key("tickpath_publish_dropped_messages_total", ring="feed-btcusdt")] == 3
    assert found[key("tickpath_feed_connects_total", ring="feed-btcusdt", result="opened")] == 1
    assert found[key("tickpath_connects_total", result="opened")] == 3
    assert found[key("tickpath_connects_total", result="aborted")] == 0
    assert found[key("tickpath_connect_latency_seconds_count", family="ipv4")] == 2
    assert found[key("tickpath_connect_latency_seconds_sum", family="ipv6")] == 0.0005
    pinged = {"target": "10.0.0.1", "proto": "icmp"}
    counts = {"sent": 12, "received": 9, "lost": 2, "late": 1, "duplicates": 3, "errors": 1, "no_stamp": 4}
    assert {name: found[key(f"tickpath_ping_{name}_total", **pinged)] for name in counts} == counts
    assert found[key("tickpath_ping_rtt_seconds_count", source="sw", **pinged)] == 2
    assert found[key("tickpath_ping_rtt_seconds_sum", source="app", **pinged)] == 0.0003
    split = {"target": "10.0.0.2:18066"}
    assert found[key("tickpath_ping_path_seconds_count", source="sw", **split)] == 3
    assert found[key("tickpath_ping_oneway_seconds_sum", direction="out", source="sw", **split)] == 0.000195
    assert found[key("tickpath_ping_oneway_unknown_total", reason="far_unbound", **split)] == 1
    assert found[key("tickpath_ping_oneway_uncertainty_seconds", **split)] == float("inf")
    assert found[key("tickpath_wire_frames_discarded_total", ring="wire-lo", reason="dropped")] == 2
    assert found[key("tickpath_clock_steps_total", clock="realtime")] == 1
    assert found[key("tickpath_exporter_records_total")] == 197


def test_a_poll_loop_tells_what_it_did_with_every_frame() -> None:
    counted = {"dpdk_polls": 900, "dpdk_polls_idle": 800, "dpdk_received": 110, "dpdk_published": 100, "dpdk_other": 10}
    counted |= {"dpdk_busy_ns": 2_500_000_000, "dpdk_missed": 3, "frames_dropped": 1, "dpdk_holes": 4}
    counted |= {"dpdk_residence_ns": 1500, "dpdk_bound_ns": 700, "dpdk_to_kernel": 9, "dpdk_held": 6}
    ring = RingState(2, "dpdk-0000-01-00.0-0", "wire", True, 0, 0, 5, counted)
    found = samples(observation(replace(full_snapshot(), rings=(ring,))))
    name = {"ring": ring.name}
    assert found[key("tickpath_dpdk_received_frames_total", **name)] == 110
    assert found[key("tickpath_dpdk_published_frames_total", **name)] == 100
    assert found[key("tickpath_dpdk_other_frames_total", **name)] == 10
    assert found[key("tickpath_dpdk_forwarded_frames_total", direction="to_kernel", **name)] == 9
    assert found[key("tickpath_dpdk_forwarded_frames_total", direction="from_kernel", **name)] == 0
    assert found[key("tickpath_dpdk_dropped_frames_total", reason="missed", **name)] == 3
    assert found[key("tickpath_wire_frames_discarded_total", reason="dropped", **name)] == 4
    assert found[key("tickpath_dpdk_sequence_gaps_total", **name)] == 4
    assert found[key("tickpath_dpdk_idle_polls_total", **name)] == 800
    assert found[key("tickpath_dpdk_held_polls_total", **name)] == 6
    assert found[key("tickpath_dpdk_busy_seconds_total", **name)] == 2.5
    assert found[key("tickpath_dpdk_residence_seconds", **name)] == 1.5e-6
    assert found[key("tickpath_dpdk_stamp_bound_seconds", **name)] == 7e-7
    assert not [one for one in samples(observation()) if one[0].startswith("tickpath_dpdk")]


def test_messages_add_up_over_methods() -> None:
    found = samples(observation(full_snapshot(("a", "b", "c"))))
    assert sum(value for (name, _), value in found.items() if name == "tickpath_messages_total") == 30


def test_an_unknown_clock_bound_is_infinite_not_zero() -> None:
    found = samples(observation())
    assert found[key("tickpath_clock_uncertainty_seconds", clock="realtime")] == 0.0015
    assert found[key("tickpath_clock_uncertainty_seconds", clock="phc0")] == math.inf


@pytest.mark.parametrize("chosen", PARSERS)
def test_the_process_and_the_build_are_there(chosen: Format) -> None:
    found = samples(observation(), chosen)
    assert [labels for name, labels in found if name == "tickpath_build_info"]
    assert key("process_cpu_seconds_total") in found


def test_no_label_clashes_with_target_labels() -> None:
    names = {k for _, labels in samples(observation()) for k, _ in labels}
    assert not names & {"region", "stage", "type", "zone", "env", "service", "instance", "job", "symbol"}


def test_thresholds_are_bounds_of_the_schema() -> None:
    for le in BOUNDS[:-1]:
        index = math.log2(float(le)) * 2**SCHEMA
        assert index == int(index)
        assert upper_bound_ns(int(index)) == math.floor(float(le) * 1e9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**11), 10**11) | st.sampled_from([upper_bound_ns(16 * e) for e in range(-20, 5)])))
def test_classic_buckets_count_exactly_and_both_sides_sum_up(values: list[int]) -> None:
    found = samples(only([series(SeriesKind.HOP, "cpu", values)]))
    labels = {"hop": "cpu", "venue": VENUE, "feed": FEED}
    for name, side in (
        ("tickpath_hop_latency_seconds", [value for value in values if value >= 0]),
        ("tickpath_negative_latency_seconds", [-value for value in values if value < 0]),
    ):
        if not side and name == "tickpath_negative_latency_seconds":
            assert key(f"{name}_count", **labels) not in found
            continue
        assert found[key(f"{name}_count", **labels)] == len(side)
        assert found[key(f"{name}_sum", **labels)] == sum(side) / 1e9
        for le in BOUNDS:
            at_most = sum(value <= float(le) * 1e9 for value in side)
            assert found[key(f"{name}_bucket", le=le, **labels)] == at_most


def test_negatives_of_parts_and_spans_are_told_apart_from_hops() -> None:
    found = samples(
        only(
            [
                series(SeriesKind.HOP, "bn_to_nic", [-5], source="sw"),
                series(SeriesKind.PART, "kernel_to_user", [-6], part="wake"),
                series(SeriesKind.SPAN, "total", [-7], source="sw"),
            ]
        )
    )
    feed = {"venue": VENUE, "feed": FEED}
    name = "tickpath_negative_latency_seconds_sum"
    assert found[key(name, hop="bn_to_nic", source="sw", **feed)] == 5e-9
    assert found[key(name, hop="kernel_to_user", part="wake", **feed)] == 6e-9
    assert found[key(name, span="total", source="sw", **feed)] == 7e-9


HOSTILE = ['a"b', "back\\slash", "new\nline", "cr\rlf", "nul\0", "\x1b[31mred", "é✓𝄞", "\udcff\udc80", "a,b}", " ", "{"]


@pytest.mark.parametrize("chosen", PARSERS)
def test_hostile_names_come_back_as_they_are(chosen: Format) -> None:
    found = samples(observation(full_snapshot(tuple(HOSTILE))), chosen)
    seen = {value for name, labels in found if name == "tickpath_messages_total" for k, value in labels if k == "feed"}
    assert seen == {name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE}


def test_names_that_encode_alike_are_one_series() -> None:
    twins = ("x\udcff", "x\\udcff")
    found = samples(observation(full_snapshot(twins)))
    assert found[key("tickpath_messages_total", tier="A", method="offset", venue=VENUE, feed=twins[1])] == 16
    assert found[key("tickpath_hop_latency_seconds_count", hop="cpu", venue=VENUE, feed=twins[1])] == 20


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4, unique=True))
def test_no_name_breaks_the_page(feeds: list[str]) -> None:
    for chosen in PARSERS:
        samples(observation(full_snapshot(tuple(feeds))), chosen)


@pytest.mark.parametrize("made", [empty_snapshot(), full_snapshot(), full_snapshot(tuple(HOSTILE))])
def test_promtool_finds_nothing_wrong(made: Snapshot) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page(observation(made)), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_page_has_no_timestamps_and_ends_as_its_format_wants() -> None:
    assert page(observation(), Format.OPENMETRICS).endswith("# EOF\n")
    assert "# EOF" not in page(observation())


def exemplars_of(observed: Observation) -> dict[tuple[str, str], tuple[dict[str, str], float, float]]:
    """By sample name and `le`, as prometheus_client's own parser reads them."""
    found = {}
    for family in parse_openmetrics(page(observed, Format.OPENMETRICS)):
        for sample in family.samples:
            if sample.exemplar:
                one = sample.exemplar
                assert sum(len(k) + len(v) for k, v in one.labels.items()) <= 128
                found[sample.name, sample.labels["le"]] = (one.labels, one.value, float(one.timestamp or 0))
    return found


def test_openmetrics_shows_the_slowest_exemplar_of_each_bucket() -> None:
    values = [1_000, 20_000, 30_000, 5_000_000, -7_000]
    shown = tuple(Exemplar(value, STARTED_NS + n, FEED, 0xBEEF, n) for n, value in enumerate(values))
    made = replace(series(SeriesKind.HOP, "cpu", values), exemplars=shown)
    found = exemplars_of(only([made]))
    hop, negative = "tickpath_hop_latency_seconds_bucket", "tickpath_negative_latency_seconds_bucket"
    assert {place: value for place, (_, value, _) in found.items()} == {
        (hop, "3.814697265625e-06"): 1e-6,
        (hop, "6.103515625e-05"): 3e-5,
        (hop, "0.015625"): 5e-3,
        (negative, "1.52587890625e-05"): 7e-6,
    }
    labels, _, when = found[hop, "6.103515625e-05"]
    assert labels == {"feed": FEED, "connection": "beef", "ordinal": "2"}
    assert when == pytest.approx(STARTED_NS / 1e9, abs=1e-6)
    assert "# {" not in page(only([made]), Format.TEXT)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 1), min_size=1, max_size=6),
    # prometheus_client's parser takes an escaped quote in an exemplar's label for its end: the test below stands in.
    st.text(max_size=60).map(lambda text: text.replace('"', "'")),
    st.integers(0, 2**64 - 1),
)
def test_no_exemplar_breaks_the_page(values: list[int], feed: str, cookie: int) -> None:
    shown = tuple(Exemplar(value, STARTED_NS, feed, cookie, 2**32 - 1) for value in values)
    made = replace(series(SeriesKind.SPAN, "total", values, feed=feed), exemplars=shown)
    assert exemplars_of(only([made]))


@pytest.mark.parametrize(("feed", "escaped"), [('"', r"\""), (r"\"", r"\\\""), ('a"}', r"a\"}"), ("\n", r"\n")])
def test_a_quote_in_an_exemplars_label_is_escaped_as_in_any_other(feed: str, escaped: str) -> None:
    shown = (Exemplar(7, STARTED_NS, feed, 0, 1),)
    made = replace(series(SeriesKind.SPAN, "total", [7], feed=feed), exemplars=shown)
    lines = page(only([made]), Format.OPENMETRICS).splitlines()
    (found,) = [line for line in lines if " # {" in line]
    assert f' # {{feed="{escaped}",ordinal="1"}} 7e-09' in found
    assert f'_bucket{{feed="{escaped}",' in found
