# SPDX-License-Identifier: Apache-2.0
"""A P99 against its own baseline: what the regression alert tells, for which hop, and what leaves it quiet."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rules.scenario import FEED, Fleet, Host, Minutes, Verdict, needs_promtool

pytestmark = needs_promtool

# A short history instead of six hours, set where operators set it: steps are what promtool's time goes into.
HISTORY = 85
BEGIN, END, LAST = 100, 140, 200
TOLD = BEGIN + 10
"""A regression is told within ten minutes."""
CLEARED = END + 15

CALM = {20e-6: 200, 30e-6: 92, 50e-6: 8}
"""Latencies of one minute: 300 messages, P99 near 50 us."""


def later(latencies: dict[float, int], by: float) -> dict[float, int]:
    return {seconds + by: count for seconds, count in latencies.items()}


SLOW = later(CALM, 500e-6)
MILLISECONDS = {3e-3: 200, 4e-3: 92, 5e-3: 8}
CERTAIN = "0.001x2000"


def regression(**labels: str) -> dict[str, str]:
    return {"alertname": "TickpathLatencyRegression", **FEED, **labels}


def lives(host: Host, during: dict[float, int], before: dict[float, int] = CALM, **labels: str) -> None:
    """A hop that is as before, then otherwise, then as before again."""
    host.latency(Minutes(BEGIN, before), Minutes(END - BEGIN, during), Minutes(LAST - END, before), **labels)


def calm(host: Host, *hops: str) -> None:
    for hop in hops:
        host.latency(Minutes(LAST, CALM), hop=hop, source="sw" if "nic" in hop else "")


def told(host: Host, **labels: str) -> None:
    """It fires in time for this and nothing else, and goes."""
    host.quiet(BEGIN - 1, BEGIN + 5)
    for minute in (TOLD, END):
        host.firing(minute, regression(**labels))
    host.quiet(CLEARED, LAST - 1)


def untold(host: Host) -> None:
    host.quiet(*range(BEGIN, LAST, 5))


def _cpu(host: Host) -> None:
    lives(host, SLOW, hop="cpu")
    calm(host, "nic_to_kernel", "msk")
    told(host, hop="cpu")


def _network(host: Host) -> None:
    lives(host, SLOW, hop="nic_to_kernel", source="hw")
    calm(host, "cpu", "msk")
    told(host, hop="nic_to_kernel", source="hw")


def _publish(host: Host) -> None:
    lives(host, SLOW, hop="msk")
    calm(host, "cpu")
    told(host, hop="msk")


def _wake(host: Host) -> None:
    lives(host, SLOW, hop="kernel_to_user")
    lives(host, SLOW, hop="kernel_to_user", part="wake")
    host.latency(Minutes(LAST, CALM), hop="kernel_to_user", part="decode")
    calm(host, "cpu")
    told(host, hop="kernel_to_user", part="wake")


def _hop_without_parts(host: Host) -> None:
    lives(host, SLOW, hop="kernel_to_user")
    told(host, hop="kernel_to_user")


def _span_without_kernel_probe(host: Host) -> None:
    lives(host, SLOW, span="nic_to_user", source="sock")
    told(host, span="nic_to_user", source="sock")


def _one_feed_of_two(host: Host) -> None:
    lives(host, SLOW, hop="cpu", feed="ethusdt")
    calm(host, "cpu")
    told(host, hop="cpu", feed="ethusdt")


def _the_tail_alone(host: Host) -> None:
    lives(host, {20e-6: 200, 30e-6: 90, 2e-3: 10}, hop="nic_to_kernel", source="sw")
    told(host, hop="nic_to_kernel", source="sw")


def _less_than_the_tail(host: Host) -> None:
    lives(host, {20e-6: 200, 30e-6: 92, 50e-6: 7, 2e-3: 1}, hop="cpu")
    untold(host)


def _exchange_with_a_good_clock(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", CERTAIN, clock="realtime")
    lives(host, later(MILLISECONDS, 5e-3), MILLISECONDS, hop="bn_to_nic", source="sw")
    told(host, hop="bn_to_nic", source="sw")


def _clock_less_certain_than_the_change(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", "0.02x2000", clock="realtime")
    lives(host, later(MILLISECONDS, 5e-3), MILLISECONDS, hop="bn_to_nic", source="sw")
    untold(host)


def _device_clock_less_certain(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", CERTAIN, clock="realtime")
    host.add("tickpath_clock_uncertainty_seconds", "0.02x2000", clock="phc0")
    lives(host, later(MILLISECONDS, 5e-3), MILLISECONDS, hop="bn_to_nic", source="hw")
    untold(host)


def _clock_of_which_nothing_is_known(host: Host) -> None:
    lives(host, later(MILLISECONDS, 5e-3), MILLISECONDS, hop="bn_to_nic", source="sw")
    untold(host)


def _clock_not_synchronised(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", " ".join(["Inf"] * LAST), clock="realtime")
    lives(host, later(MILLISECONDS, 5e-3), MILLISECONDS, hop="bn_to_nic", source="sw")
    lives(host, SLOW, hop="cpu")
    host.firing(BEGIN - 1, "TickpathClockUnsynchronised")
    host.firing(TOLD, "TickpathClockUnsynchronised", "TickpathLatencyRegression")
    host.expect(TOLD, 'group by (hop) (ALERTS{alertname="TickpathLatencyRegression", HOST})', {"hop": "cpu"})


def _clock_set(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", CERTAIN, clock="realtime")
    host.add("tickpath_clock_steps_total", f"0x{BEGIN} 1x2000", clock="realtime")
    lives(host, later(MILLISECONDS, 50e-3), MILLISECONDS, hop="bn_to_nic", source="sw")
    host.firing(TOLD, "TickpathClockStepped")
    host.quiet(BEGIN + 25, END)


def _clock_behind(host: Host) -> None:
    behind = {-1.27: 200, -1.26: 92, -1.25: 8}
    host.add("tickpath_clock_uncertainty_seconds", CERTAIN, clock="realtime")
    host.latency(Minutes(LAST, behind), hop="bn_to_nic", source="sw")
    host.expect(60, "group(instance:tickpath_hop_latency_seconds:p50_rate5m{HOST} < -1.2)", {})
    host.expect(60, "group(instance:tickpath_hop_latency_seconds:p50_rate5m{HOST} > -1.35)", {})
    host.firing(END, "TickpathNegativeLatency")


def _clock_behind_and_slower(host: Host) -> None:
    """From 20 ms below zero to 10 ms below: a rise all the same."""
    host.add("tickpath_clock_uncertainty_seconds", CERTAIN, clock="realtime")
    lives(host, {-10e-3: 300}, {-20e-3: 300}, hop="bn_to_nic", source="sw")
    host.firing(END, "TickpathLatencyRegression", "TickpathNegativeLatency")


def _few_messages(host: Host) -> None:
    lives(host, {s: max(1, n // 4) for s, n in SLOW.items()}, {s: max(1, n // 4) for s, n in CALM.items()}, hop="cpu")
    untold(host)


def _messages_become_few(host: Host) -> None:
    lives(host, {520e-6: 10}, hop="cpu")
    untold(host)


def _faster(host: Host) -> None:
    lives(host, CALM, SLOW, hop="cpu")
    untold(host)


def _another_source(host: Host) -> None:
    host.latency(Minutes(BEGIN, CALM), Minutes(100, {}), hop="nic_to_kernel", source="hw")
    host.add("tickpath_messages_total", f"0+300x{LAST}", **FEED, tier="A", method="offset")
    host.latency(Minutes(BEGIN, {}, silent=True), Minutes(LAST - BEGIN - 50, SLOW), hop="nic_to_kernel", source="sw")
    untold(host)


def _cold(host: Host) -> None:
    known = 70  # a few minutes less than enough
    host.latency(Minutes(BEGIN - known, {}, silent=True), Minutes(known, CALM), Minutes(LAST - BEGIN, SLOW), hop="cpu")
    untold(host)


def _small_change(host: Host) -> None:
    lives(host, later(CALM, 40e-6), hop="nic_to_kernel", source="sw")
    untold(host)


def _small_share(host: Host) -> None:
    """A millisecond more is nothing to a hop of twenty."""
    before = {20e-3: 300}
    host.add("tickpath_clock_uncertainty_seconds", "0.0001x2000", clock="realtime")
    lives(host, {21e-3: 300}, before, span="nic_to_user", source="sw")
    host.expect(END, 'group(ALERTS{alertname="TickpathLatencyRegression", HOST})')


def _restart(host: Host) -> None:
    host.latency(Minutes(BEGIN, CALM), Minutes(LAST - BEGIN, CALM, restart=True), hop="cpu")
    untold(host)


def _restart_after_an_outage(host: Host) -> None:
    host.latency(
        Minutes(BEGIN, CALM), Minutes(20, {}, silent=True), Minutes(LAST - BEGIN - 20, CALM, restart=True), hop="cpu"
    )
    untold(host)


def _restart_into_a_regression(host: Host) -> None:
    host.latency(Minutes(BEGIN, CALM), Minutes(END - BEGIN, SLOW, restart=True), Minutes(LAST - END, CALM), hop="cpu")
    told(host, hop="cpu")


def _short_burst(host: Host) -> None:
    host.latency(Minutes(BEGIN, CALM), Minutes(1, SLOW), Minutes(LAST - BEGIN - 1, CALM), hop="cpu")
    untold(host)


def _noise(host: Host) -> None:
    """Every minute its own load and tail; one in twenty has a burst ten times as slow."""
    chance = random.Random(5)
    load = []
    for _ in range(LAST):
        scale = chance.lognormvariate(0, 0.4) * (10 if chance.random() < 0.05 else 1)
        load.append(
            Minutes(
                1, {s * scale: round(n * chance.uniform(0.5, 2)) for s, n in {20e-6: 200, 40e-6: 80, 90e-6: 20}.items()}
            )
        )
    host.latency(*load, hop="cpu")
    host.quiet(*range(5, LAST, 5))


CASES = {
    function.__name__.strip("_"): function
    for function in (
        _cpu,
        _network,
        _publish,
        _wake,
        _hop_without_parts,
        _span_without_kernel_probe,
        _one_feed_of_two,
        _the_tail_alone,
        _less_than_the_tail,
        _exchange_with_a_good_clock,
        _clock_less_certain_than_the_change,
        _device_clock_less_certain,
        _clock_of_which_nothing_is_known,
        _clock_not_synchronised,
        _clock_set,
        _clock_behind,
        _clock_behind_and_slower,
        _few_messages,
        _messages_become_few,
        _faster,
        _another_source,
        _cold,
        _small_change,
        _small_share,
        _restart,
        _restart_after_an_outage,
        _restart_into_a_regression,
        _short_burst,
        _noise,
    )
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    fleet = Fleet(minimum_history=str(HISTORY))
    for name, case in CASES.items():
        case(fleet.host(name))
    return Verdict(fleet.run(tmp_path_factory.mktemp("regressions")))


@pytest.mark.parametrize("case", CASES)
def test_regression_alert(case: str, verdict: Verdict) -> None:
    assert not verdict.unattributed
    assert not verdict.of(case)


def test_an_expectation_can_fail(tmp_path: Path) -> None:
    fleet = Fleet()
    host = fleet.host("lonely")
    host.firing(5, regression(hop="cpu"))
    fleet.host("content").quiet(5)
    verdict = Verdict(fleet.run(tmp_path))
    assert verdict.of("lonely")
    assert not verdict.of("content")
