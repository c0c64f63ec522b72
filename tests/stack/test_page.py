# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes the page and answers with what was observed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from exporter_samples import FEED, STARTED_NS, FakeService, empty_snapshot, observation, series, served
from stack.prometheus import Prometheus, needs_prometheus
from tickpath.exporter.snapshot import Exemplar, SeriesKind

pytestmark = needs_prometheus

_RANDOM = random.Random(5)
VALUES = {
    "kernel_to_user": [int(_RANDOM.lognormvariate(math.log(20_000), 1.5)) for _ in range(5000)],
    "cpu": [400] * 900 + [1_000_003] * 95 + [50_000_000] * 5,  # all of a bucket's mass on one of its edges
    "bn_to_nic": [-1_270_000_000 + int(_RANDOM.gauss(0, 5e6)) for _ in range(3000)],
    "msk": [int(_RANDOM.gauss(0, 1e6)) for _ in range(3000)] + [0] * 100,
}
EXEMPLAR = Exemplar(max(VALUES["kernel_to_user"]), STARTED_NS, FEED, 0xBEEF, 41)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    made = [series(SeriesKind.HOP, hop, values) for hop, values in VALUES.items()]
    made[0] = replace(made[0], exemplars=(EXEMPLAR,))
    made.append(series(SeriesKind.HOP, "nic_to_kernel", []))
    service = FakeService(observation(replace(empty_snapshot(), series=tuple(made))))
    with (
        served(service) as target,
        Prometheus(tmp_path_factory.mktemp("prometheus"), {"local": [target]}) as running,
    ):
        running.wait("tickpath_hop_latency_seconds")
        yield running


def test_the_target_is_healthy(prometheus: Prometheus) -> None:
    (target,) = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize("hop", VALUES)
def test_count_and_sum_are_exact(prometheus: Prometheus, hop: str) -> None:
    selected = f'tickpath_hop_latency_seconds{{hop="{hop}"}}'
    assert prometheus.value(f"histogram_count({selected})") == len(VALUES[hop])
    assert prometheus.value(f"histogram_sum({selected})") == pytest.approx(sum(VALUES[hop]) / 1e9, rel=1e-12)


def test_the_share_below_zero_can_be_asked_for(prometheus: Prometheus) -> None:
    share = prometheus.value('histogram_fraction(-Inf, 0, tickpath_hop_latency_seconds{hop="bn_to_nic"})')
    assert share == 1


def test_counters_are_there_under_the_names_of_the_text_page(prometheus: Prometheus) -> None:
    assert prometheus.value("tickpath_ring_unreadable_files_total") == 1
    assert prometheus.query("tickpath_build_info")
    assert prometheus.query("process_cpu_seconds_total")


def test_exemplars_are_stored(prometheus: Prometheus) -> None:
    (found,) = prometheus.get(
        "/api/v1/query_exemplars",
        query="tickpath_hop_latency_seconds",
        start=str(STARTED_NS / 1e9 - 10),
        end=str(STARTED_NS / 1e9 + 10),
    )
    (one,) = found["exemplars"]
    assert one["labels"] == {"feed": FEED, "connection": "beef", "ordinal": "41"}
    assert float(one["value"]) == EXEMPLAR.value_ns / 1e9
