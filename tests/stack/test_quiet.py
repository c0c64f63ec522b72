# SPDX-License-Identifier: Apache-2.0
"""Nothing is told of a stack on which nothing is wrong: ten minutes of the profile `demo`, an hour by `make soak`."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest

from stack.composed import BUILD, REGION, Started
from stack.prometheus import Api, needs_prometheus

SECONDS = int(os.environ.get("TICKPATH_QUIET_SECONDS") or 600)
pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(SECONDS + 1800)]

# The host's clock is as its administrator left it, and may be set by anybody. An alarm that says so is true.
UNSYNCHRONISED = 'tickpath_clock_uncertainty_seconds{clock="realtime"} > 0.1'
# What is lost or late on a host that has twice the work for its processors is truly so: told apart, no fault of ours.
OVERLOAD = {
    *("TickpathWireDrops", "TickpathKernelEventsLost", "TickpathRingLosses", "TickpathPublishDropped"),
    *("TickpathBudgetBurnsFast", "TickpathBudgetBurnsSlowly", "TickpathApplicationQueues", "TickpathUnmatchedMessages"),
}
_STOLEN = 0.05
# What says, beside an alarm that is false, what was seen.
_LOST = "lost|left_out|dropped|discarded|missed|unmatched|gaps|skipped"
LOSSES = f'label_replace({{__name__=~"tickpath_.*({_LOST}).*_total"}}, "counter", "$1", "__name__", "(.+)") > 0'
_EVALUATIONS_S = 120
_STATISTICS = 6


@pytest.fixture(autouse=True)
def _host_clock() -> None:
    """Others may set the clock meanwhile: an hour is long to keep them waiting, and what they did is known here."""


def test_what_each_container_takes(demo: Started) -> None:
    """A minute of `docker stats`, for the table in docs/compose.md."""
    processor: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[str]] = defaultdict(list)
    for _ in range(_STATISTICS):
        listed = demo.host.docker("stats", "--no-stream", "--format", "json").stdout
        for one in map(json.loads, listed.splitlines()):
            name = one["Name"].removeprefix("tickpath-").removesuffix("-1")
            processor[name].append(float(one["CPUPerc"].rstrip("%")))
            memory[name].append(one["MemUsage"].split(" / ")[0])
        time.sleep(8)  # it takes two of its own
    up_s = time.monotonic() - demo.began_s
    lines = [f"after {up_s:.0f} s: service\t% of a core, mean of {_STATISTICS}\tmemory"]
    lines += [f"{name}\t{sum(shares) / len(shares):.1f}\t{memory[name][-1]}" for name, shares in processor.items()]
    BUILD.mkdir(exist_ok=True)
    (BUILD / "stack-containers.tsv").write_text("\n".join(lines) + "\n")
    assert {"feeds", "capture", "kernel", "exporter", "prometheus"} <= set(processor)


def _processor_time() -> tuple[int, int]:
    """Of all processors since the host began: what its hypervisor gave to others, and all (proc(5), /proc/stat)."""
    with Path("/proc/stat").open() as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def _told(prometheus: Api, seconds: float) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for sample in prometheus.query(f'last_over_time(ALERTS{{alertstate="firing"}}[{seconds:.0f}s])'):
        found[sample.labels["alertname"]].append(sample.labels)
    return dict(found)


def test_no_alarm_is_false(demo: Started) -> None:
    prometheus = demo.prometheus
    load = max(os.getloadavg())
    before = _processor_time()
    while (left_s := SECONDS - (time.monotonic() - demo.began_s - demo.up_s)) > 0:
        time.sleep(min(left_s, 10))
        load = max(load, *os.getloadavg())
    true = {}
    if prometheus.query(UNSYNCHRONISED):
        firing = 'ALERTS{alertname="TickpathClockUnsynchronised", alertstate="firing"}'
        prometheus.wait(firing, _EVALUATIONS_S + max(0, 600 - SECONDS))
        true = {"TickpathClockUnsynchronised": "nobody synchronises this host's clock"}
    if demo.clock.was_set():
        true["TickpathClockStepped"] = "somebody set this host's clock"
    up_s = time.monotonic() - demo.began_s
    told = _told(prometheus, up_s)
    stolen, given = (after - at_first for after, at_first in zip(_processor_time(), before, strict=True))
    share = stolen / max(given, 1)
    if load > 2 * len(os.sched_getaffinity(0)) or share > _STOLEN:
        why = f"a load of {load:.0f} on {len(os.sched_getaffinity(0))} processors, {share:.0%} of which were others'"
        true |= dict.fromkeys(OVERLOAD & told.keys(), why)
    verdict = {
        "watched_s": round(up_s),
        "false_alarms": {name: told[name] for name in told.keys() - true.keys()},
        "true_alarms": {name: why for name, why in true.items() if name in told},
        "losses": [{**sample.labels, "value": sample.value} for sample in prometheus.query(LOSSES)],
    }
    BUILD.mkdir(exist_ok=True)
    (BUILD / "stack-alarms.json").write_text(json.dumps(verdict, indent=1) + "\n")
    # Silence counts only where all was watched: the exporter scraped, every rule evaluated.
    (scraped,) = prometheus.query(f'avg_over_time(up{{job="tickpath", region="{REGION}"}}[{SECONDS}s])')
    assert scraped.value > 0.9
    assert not prometheus.query("prometheus_rule_evaluation_failures_total > 0")
    assert [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok"] == []
    assert not verdict["false_alarms"], json.dumps(verdict)
    # A step is told for fifteen minutes, and nobody looks for it before the exporter does.
    assert set(told) | {"TickpathClockStepped"} >= set(true)
