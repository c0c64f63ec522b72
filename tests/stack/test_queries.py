# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard, run against a real Prometheus that scrapes a running pipeline as two regions."""

from __future__ import annotations

import re
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards_queries import DIALECTS, PanelQuery, queries, series
from stack.prometheus import FEATURES, Prometheus, needs_prometheus
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.simulator.config import EventTimes

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(300)]

REGIONS = ("tokyo", "frankfurt")
BUILD = Path(__file__).parent.parent.parent / "build"
_WITHIN_S = 90
# Why a query may return nothing here. All others must return something.
MAY_BE_EMPTY = {
    "tickpath_feed_gaps_total": "the simulator leaves out no sequence number",
    "tickpath_wire_frames_discarded_total": "the capture loses nothing at this pace",
    "tickpath_wire_interface_lost_total": "loopback stays up",
    "tickpath_ring_unreadable": "every ring is usable",
    "tickpath_rows_exhausted_total": "two connections fill no table",
    "tickpath_kernel_events_lost_total": "the kernel probe loses nothing at this pace",
    "tickpath_kernel_unsupported_connections_total": "loopback is plain TCP",
    "tickpath_parse_failures_total": "the simulator sends JSON",
    "tickpath_protocol_errors_total": "the simulator keeps to the protocol",
    "tickpath_publish_dropped_messages_total": "nobody subscribes slowly",
    'result="failed"': "the simulator accepts every connection",
    "tickpath_clock_uncertainty_seconds{.*} < Inf": "the host's clock may be synchronised by nobody",
    "ALERTS": "this Prometheus has no rules",
    "tickpath_connect_latency_seconds": "a kernel probe may not see connects",
    "tickpath_probe_mode": "a probe may not say how it works",
    "tickpath_probe_cost_seconds_total": "the host may keep no BPF statistics",
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = DemoSettings(
        replay=None, speed="1", tls=None, event_times=EventTimes.NOW, exporter_port=0, publish_port=0
    )
    with Pipeline(settings, tmp_path_factory.mktemp("pipeline")) as running:
        if refused := running.wire_refused or running.kernel_refused:
            pytest.skip(f"needs every probe: {refused}")
        # Messages without a stamp, for the panels that say why.
        running.wire.stop(20)
        time.sleep(2)
        running.restart_wire()
        yield running


def _variables(query: PanelQuery) -> dict[str, str]:
    one = query.board in {"region", "feed"}
    chosen = {"region": REGIONS[0] if one else ".*", "instance": ".*", "venue": ".*", "feed": ".*"}
    return {**chosen, "__rate_interval": "10s", "__range": "60s"}


def _excused(query: PanelQuery) -> str | None:
    return next((why for pattern, why in MAY_BE_EMPTY.items() if re.search(pattern, query.expr)), None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_query_returns_data(pipeline: Pipeline, dialect: str, tmp_path: Path) -> None:
    exporter = urllib.parse.urlparse(pipeline.exporter_url).netloc
    targets = {region: [exporter] for region in REGIONS}
    features = FEATURES if dialect == "native" else "exemplar-storage"
    with Prometheus(tmp_path / "prometheus", targets, features=features) as prometheus:
        found = _ask_until_all_answer(prometheus, dialect)
    lines = [f"{count or _excused(query)}\t{query.where}\t{query.expr}" for query, count in found.items()]
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"dashboard-queries-{dialect}.tsv").write_text("\n".join(lines) + "\n")
    empty = [query.where for query, count in found.items() if not count and not _excused(query)]
    assert not empty


def _ask_until_all_answer(prometheus: Prometheus, dialect: str) -> dict[PanelQuery, int]:
    found = dict.fromkeys(queries(dialect), 0)
    deadline = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline:
        for query in found:
            found[query] = found[query] or series(prometheus, query, _variables(query))
        if all(count or _excused(query) for query, count in found.items()):
            break
        time.sleep(1)
    return found
