# SPDX-License-Identifier: Apache-2.0
"""Alerts on exporters, probes, clocks, records and feeds: each fires on its fault, and on no other host's."""

from __future__ import annotations

import pytest

from rules.scenario import FEED, Fleet, Host, Minutes, Verdict, needs_promtool

pytestmark = needs_promtool

AT, LAST = 40, 90
"""The minute of the fault."""

COUNTERS = {
    "TickpathRingLosses": ("tickpath_ring_lost_records_total", {}),
    "TickpathWireDrops": ("tickpath_wire_frames_discarded_total", {"reason": "dropped"}),
    "TickpathWireInterfaceLost": ("tickpath_wire_interface_lost_total", {}),
    "TickpathKernelEventsLost": ("tickpath_kernel_events_lost_total", {}),
    "TickpathPublishDropped": ("tickpath_publish_dropped_messages_total", {}),
    "TickpathParseFailures": ("tickpath_parse_failures_total", {}),
    "TickpathFeedGaps": ("tickpath_feed_gaps_total", {}),
}


def once(host: Host, alert: str) -> None:
    """Told within two minutes, gone once ten have passed without another."""
    host.quiet(AT - 1)
    host.firing(AT + 2, alert)
    host.quiet(AT + 15, LAST)


def _all_well(host: Host) -> None:
    host.add("tickpath_producer_up", f"1x{LAST}", ring="feed-1", kind="feed")
    host.add("tickpath_probe_mode", f"1x{LAST}", probe="kernel", hook="readable", mode="tp_btf")
    host.add("tickpath_ring_unreadable", f"0x{LAST}", ring="feed-1")
    host.add("tickpath_clock_uncertainty_seconds", f"0.004+0.0001x{LAST}", clock="realtime")
    host.add("tickpath_clock_steps_total", f"3x{LAST}", clock="realtime")
    host.add("tickpath_messages_total", f"0+300x{LAST}", **FEED, tier="A", method="offset")
    host.add("tickpath_unmatched_messages_total", f"0+3x{LAST}", **FEED, reason="wire_gap")
    host.add("tickpath_feed_connects_total", f"1x{LAST}", ring="feed-1", result="opened")
    host.latency(Minutes(LAST, {20e-6: 300}), hop="kernel_to_user")
    for part in ("app_busy", "wake", "backlog", "decode"):
        host.latency(Minutes(LAST, {5e-6: 300}), hop="kernel_to_user", part=part)
    for metric, labels in COUNTERS.values():
        host.add(metric, f"7x{LAST}", ring="feed-1", **labels)
    host.quiet(*range(5, LAST, 5))


def _exporter_down(host: Host) -> None:
    host.add("up", f"1x{AT} 0x20 1x{LAST}")
    host.quiet(AT + 1)
    host.firing(AT + 5, "TickpathExporterDown")
    host.quiet(AT + 25)


def _exporter_restarts(host: Host) -> None:
    """Its counters of losses come back as they were, for producers keep them."""
    host.add("up", f"1x{AT} 0 1x{LAST}")
    for metric, labels in COUNTERS.values():
        host.add(metric, f"7x{AT} _ 7x{LAST}", ring="feed-1", **labels)
    host.quiet(*range(AT, LAST, 2))


def _probe_down(host: Host) -> None:
    host.add("tickpath_producer_up", f"1x{AT} 0x{LAST}", ring="kernel", kind="kernel")
    host.quiet(AT + 1)
    host.firing(AT + 5, "TickpathProbeDown")


def _probe_restarts(host: Host) -> None:
    host.add("tickpath_producer_up", f"1x{AT} 0 1x{LAST}", ring="kernel", kind="kernel")
    host.quiet(AT + 1, AT + 5)


def _probe_stops_of_its_own_will(host: Host) -> None:
    host.add("tickpath_producer_up", f"1x{AT} 0x{LAST}", ring="kernel", kind="kernel")
    host.add("tickpath_producer_stopped", f"0x{AT} 1x{LAST}", ring="kernel", kind="kernel")
    host.quiet(AT + 1, AT + 5, LAST)


def _stopped_probe_fails_later(host: Host) -> None:
    host.add("tickpath_producer_up", f"1x20 0x20 1x5 0x{LAST}", ring="kernel", kind="kernel")
    host.add("tickpath_producer_stopped", f"0x20 1x20 0x{LAST}", ring="kernel", kind="kernel")
    host.quiet(30, 45)
    host.firing(60, "TickpathProbeDown")


def _leftover_ring(host: Host) -> None:
    host.add("tickpath_producer_up", f"0x{LAST}", ring="feed-old", kind="feed")
    host.quiet(LAST)


def _probe_degraded(host: Host) -> None:
    host.add("tickpath_probe_mode", f"1x{AT} stale", probe="kernel", hook="readable", mode="fentry")
    host.add("tickpath_probe_mode", f"_x{AT + 1} 1x{LAST}", probe="kernel", hook="readable", mode="bcc")
    host.quiet(AT + 10)
    host.firing(AT + 20, "TickpathProbeDegraded")


def _asked_is_not_told(host: Host) -> None:
    host.add("tickpath_probe_mode", f"1x{LAST}", probe="kernel", hook="asked", mode="none")
    host.quiet(20, AT, LAST)


def _ring_unreadable(host: Host) -> None:
    host.add("tickpath_ring_unreadable", f"_x{AT} 1x20", ring="feed-1")
    host.firing(AT + 10, "TickpathRingUnreadable")
    host.quiet(AT + 30)


def _clock_stepped(host: Host) -> None:
    host.add("tickpath_clock_steps_total", f"3x{AT} 4x{LAST}", clock="realtime")
    host.quiet(AT)
    host.firing(AT + 2, "TickpathClockStepped")
    host.quiet(AT + 20)


def _clock_unsynchronised(host: Host) -> None:
    unknown = " ".join(["Inf"] * 30)
    host.add("tickpath_clock_uncertainty_seconds", f"0.01x{AT} {unknown} 0.01x{LAST}", clock="realtime")
    host.quiet(AT + 5)
    host.firing(AT + 20, "TickpathClockUnsynchronised")
    host.quiet(AT + 35)


def _arrives_before_it_was_sent(host: Host) -> None:
    host.latency(Minutes(AT, {3e-3: 300}), Minutes(LAST - AT, {-2e-3: 300}), hop="bn_to_nic", source="sw")
    host.quiet(AT)
    host.firing(LAST - 20, "TickpathNegativeLatency")


def _unmatched(host: Host) -> None:
    host.add("tickpath_messages_total", f"0+300x{LAST}", **FEED, tier="", method="none")
    host.add("tickpath_unmatched_messages_total", f"0x{AT} 0+60x{LAST}", **FEED, reason="wire_gap")
    host.quiet(AT)
    host.firing(LAST - 20, "TickpathUnmatchedMessages")


def _unmatched_by_nature(host: Host) -> None:
    host.add("tickpath_messages_total", f"0+300x{LAST}", **FEED, tier="", method="none")
    host.add("tickpath_unmatched_messages_total", f"0+150x{LAST}", **FEED, reason="sock_not_last")
    host.quiet(LAST - 20)


def _silent_feed(host: Host) -> None:
    host.add("tickpath_messages_total", f"0+300x{AT} {300 * AT}x{LAST}", **FEED, tier="A", method="offset")
    host.quiet(AT)
    host.firing(AT + 10, "TickpathFeedSilent")


def _rare_feed(host: Host) -> None:
    host.add("tickpath_messages_total", f"0x30 1x30 2x{LAST}", **FEED, tier="A", method="offset")
    host.quiet(20, 50, LAST)


def _cannot_connect(host: Host) -> None:
    host.add("tickpath_connects_total", f"_x{AT} 1+1x{LAST}", result="refused")
    host.quiet(AT + 1)
    host.firing(AT + 6, "TickpathConnectFailures")


def _gives_up_connecting(host: Host) -> None:
    """This host's own doing: a client that was ended while it connected."""
    host.add("tickpath_connects_total", f"_x{AT} 1+1x{LAST}", result="aborted")
    host.quiet(AT + 1, AT + 6, LAST)


def _feed_cannot_connect(host: Host) -> None:
    host.add("tickpath_feed_connects_total", f"_x{AT} 1+1x{LAST}", ring="feed-1", result="failed")
    host.quiet(AT + 1)
    host.firing(AT + 6, "TickpathConnectFailures")


def _connected_again(host: Host) -> None:
    host.add("tickpath_feed_connects_total", f"0x{AT} 1x{LAST}", ring="feed-1", result="failed")
    host.add("tickpath_feed_connects_total", f"1+1x{LAST}", ring="feed-1", result="opened")
    host.quiet(AT + 1, AT + 6)


def _slow_to_connect(host: Host) -> None:
    host.add(
        "tickpath_connect_latency_seconds",
        "{{schema:4 sum:0 count:0}}x40 {{schema:4 sum:6 count:2 offset:25 buckets:[2]}}x60",
        family="ipv4",
    )
    host.quiet(AT)
    host.firing(AT + 5, "TickpathConnectSlow")


def _classic_histograms_alone(host: Host) -> None:
    host.add("tickpath_hop_latency_seconds_count", f"0+300x{LAST}", **FEED, hop="cpu")
    host.quiet(10)
    host.firing(AT, "TickpathNoNativeHistograms")


def _both_histograms(host: Host) -> None:
    host.add("tickpath_hop_latency_seconds_count", f"0+300x{LAST}", **FEED, hop="cpu")
    host.latency(Minutes(LAST, {20e-6: 300}), hop="cpu")
    host.quiet(10, AT, LAST)


def _application_queues(host: Host) -> None:
    slow = Minutes(LAST - AT, {20e-3: 150, 1e-6: 150})
    host.latency(Minutes(AT, {20e-6: 300}), slow, hop="kernel_to_user")
    host.latency(Minutes(AT, {1e-6: 300}), slow, hop="kernel_to_user", part="app_busy")
    host.latency(Minutes(LAST, {1e-6: 300}), hop="kernel_to_user", part="wake")
    host.quiet(AT + 5)
    host.expect(AT + 15, 'group by (feed) (ALERTS{alertname="TickpathApplicationQueues", HOST})', {"feed": "btcusdt"})


def _counted(alert: str, host: Host) -> None:
    metric, labels = COUNTERS[alert]
    host.add(metric, f"7x{AT - 1} 9x{LAST}", ring="feed-1", **labels)
    once(host, alert)


def _counted_for_the_first_time(alert: str, host: Host) -> None:
    metric, labels = COUNTERS[alert]
    host.add(metric, f"_x{AT} 1x{LAST}", ring="feed-1", **labels)
    once(host, alert)


CASES = {
    function.__name__.strip("_"): function
    for function in (
        _all_well,
        _exporter_restarts,
        _probe_down,
        _probe_restarts,
        _probe_stops_of_its_own_will,
        _stopped_probe_fails_later,
        _leftover_ring,
        _probe_degraded,
        _asked_is_not_told,
        _ring_unreadable,
        _clock_stepped,
        _clock_unsynchronised,
        _arrives_before_it_was_sent,
        _unmatched,
        _unmatched_by_nature,
        _silent_feed,
        _rare_feed,
        _cannot_connect,
        _gives_up_connecting,
        _feed_cannot_connect,
        _connected_again,
        _slow_to_connect,
        _classic_histograms_alone,
        _both_histograms,
        _application_queues,
        _exporter_down,
    )
}
UNSCRAPED = {"exporter_restarts", "exporter_down"}
"""These say themselves when they were up."""


def fleet() -> Fleet:
    every = Fleet(minimum_history="10000")
    for name, case in CASES.items():
        case(every.host(name, up=None if name in UNSCRAPED else f"1x{2 * LAST}"))
    for alert in COUNTERS:
        _counted(alert, every.host(f"{alert}-again"))
        _counted_for_the_first_time(alert, every.host(f"{alert}-first"))
    return every


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return Verdict(fleet().run(tmp_path_factory.mktemp("health")))


@pytest.mark.parametrize("case", CASES)
def test_health_alert(case: str, verdict: Verdict) -> None:
    assert not verdict.unattributed
    assert not verdict.of(case)


@pytest.mark.parametrize("alert", COUNTERS)
@pytest.mark.parametrize("when", ["again", "first"])
def test_a_counted_loss_is_told(alert: str, when: str, verdict: Verdict) -> None:
    assert not verdict.unattributed
    assert not verdict.of(f"{alert}-{when}")


def test_no_exporter_at_all(tmp_path_factory: pytest.TempPathFactory) -> None:
    none = Fleet()
    none.host("nobody", up=None).expect(
        10, 'group by (alertname) (ALERTS{alertstate="firing"})', {"alertname": "TickpathNoExporter"}
    )
    assert not none.run(tmp_path_factory.mktemp("none"))


def test_what_is_told_names_the_host_the_page_and_the_dashboard(tmp_path_factory: pytest.TempPathFactory) -> None:
    one = Fleet()
    one.host("10.0.1.11:18064", up="0x10")
    where = {"instance": "10.0.1.11:18064", "region": "tokyo"}
    one.annotations(
        8,
        "TickpathExporterDown",
        {"job": "tickpath", "severity": "critical", **where},
        {
            "summary": "No scrape of the exporter on 10.0.1.11:18064 (tokyo)",
            "description": "Prometheus has not reached the exporter for two minutes: the host, its network or the "
            "exporter is down. Nothing of this host is known meanwhile.",
            "runbook_url": "http://127.0.0.1:9090/consoles/processes.html#tickpathexporterdown",
            "dashboard_url": "http://127.0.0.1:3000/d/tickpath-clocks?var-region=tokyo&var-instance=10.0.1.11%3A18064",
        },
    )
    assert not one.run(tmp_path_factory.mktemp("told"))
