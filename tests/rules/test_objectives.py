# SPDX-License-Identifier: Apache-2.0
"""The fixed target: how fast its budget burns, in two speeds, and what leaves these alerts quiet."""

from __future__ import annotations

import pytest

from rules.scenario import FEED, Fleet, Host, Minutes, Verdict, needs_promtool

pytestmark = needs_promtool

BEGIN, LAST = 120, 420
GOOD = {20e-6: 300}


def share(slow: float, seconds: float = 5e-3) -> dict[float, int]:
    """One minute of a thousand messages of which this share is slower than any target."""
    return {20e-6: round(1000 * (1 - slow)), seconds: round(1000 * slow)}


def fast(**labels: str) -> dict[str, str]:
    return {"alertname": "TickpathBudgetBurnsFast", **FEED, **labels}


def slowly(**labels: str) -> dict[str, str]:
    return {"alertname": "TickpathBudgetBurnsSlowly", **FEED, **labels}


def _half_of_all(host: Host) -> None:
    host.latency(Minutes(BEGIN, GOOD), Minutes(60, share(0.5)), Minutes(LAST - BEGIN - 60, GOOD), hop="cpu")
    host.latency(Minutes(LAST, GOOD), hop="msk")
    host.quiet(BEGIN - 1)
    for minute in (BEGIN + 20, BEGIN + 60):
        host.firing(minute, fast(hop="cpu"))
    host.quiet(BEGIN + 60 + 45)


def _within_the_budget(host: Host) -> None:
    host.latency(Minutes(LAST, share(0.005)), hop="cpu")
    host.quiet(BEGIN, LAST - 1)


def _five_budgets(host: Host) -> None:
    host.latency(Minutes(LAST, share(0.05)), hop="msk")
    host.quiet(BEGIN, 350)
    host.firing(LAST - 10, slowly(hop="msk"))


def _each_target_is_its_own(host: Host) -> None:
    """Five milliseconds: too slow for nic_to_kernel, well for kernel_to_user and the span over both."""
    for labels in ({"hop": "nic_to_kernel", "source": "hw"}, {"hop": "kernel_to_user"}, {"span": "nic_to_user"}):
        host.latency(Minutes(60, GOOD), Minutes(60, share(0.5)), **labels)
    host.firing(110, fast(hop="nic_to_kernel", source="hw"))


def _few_messages(host: Host) -> None:
    host.latency(Minutes(60, {20e-6: 60}), Minutes(60, {5e-3: 60}), hop="cpu")
    host.quiet(80, 110)


def _cold(host: Host) -> None:
    host.latency(Minutes(60, {}, silent=True), Minutes(10, share(0.5)), hop="cpu")
    host.quiet(65, 72)


def _restart(host: Host) -> None:
    host.latency(Minutes(60, GOOD), Minutes(60, GOOD, restart=True), hop="cpu")
    host.quiet(61, 63, 70, 110)


def _exchange(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", "0.01x2000", clock="realtime")
    host.latency(Minutes(60, share(0, 1)), Minutes(60, share(0.5, 0.3)), hop="bn_to_nic", source="sw")
    host.firing(110, fast(hop="bn_to_nic", source="sw"))


def _exchange_by_a_poor_clock(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", "0.5x2000", clock="tai")
    host.latency(Minutes(60, share(0, 1)), Minutes(60, share(0.5, 0.3)), hop="bn_to_nic", source="sw")
    host.quiet(80, 110)


def _exchange_by_no_clock(host: Host) -> None:
    host.latency(Minutes(60, share(0, 1)), Minutes(60, share(0.5, 0.3)), hop="bn_to_nic", source="sw")
    host.quiet(80, 110)


def _before_it_was_sent(host: Host) -> None:
    host.add("tickpath_clock_uncertainty_seconds", "0.01x2000", clock="realtime")
    host.latency(Minutes(BEGIN, {-1.27: 300}), hop="bn_to_nic", source="sw")
    host.quiet(80, 110)


CASES = {
    function.__name__.strip("_"): function
    for function in (
        _half_of_all,
        _within_the_budget,
        _five_budgets,
        _each_target_is_its_own,
        _few_messages,
        _cold,
        _restart,
        _exchange,
        _exchange_by_a_poor_clock,
        _exchange_by_no_clock,
        _before_it_was_sent,
    )
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    fleet = Fleet("objectives")
    for name, case in CASES.items():
        case(fleet.host(name))
    return Verdict(fleet.run(tmp_path_factory.mktemp("objectives")))


@pytest.mark.parametrize("case", CASES)
def test_budget_alerts(case: str, verdict: Verdict) -> None:
    assert not verdict.unattributed
    assert not verdict.of(case)
