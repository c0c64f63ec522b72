# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard, run against a real Prometheus that scrapes a running pipeline as two regions."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards_queries import DIALECTS, PanelQuery, excused, queries, series
from stack.prometheus import FEATURES, Prometheus, needs_prometheus
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.simulator.config import EventTimes

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(300)]

REGIONS = ("tokyo", "frankfurt")
BUILD = Path(__file__).parent.parent.parent / "build"
_WITHIN_S = 90
ALWAYS = {"alert": "Always", "expr": "tickpath_build_info", "labels": {"severity": "info"}}
"""What the panels of alerts are to show."""


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


@pytest.fixture(scope="module")
def other_peer(pipeline: Pipeline) -> Iterator[tuple[str, int]]:
    """Where connections are opened that the kernel probe watches: at the simulator's port of another address."""
    found = re.search(r"listening on \S+:(\d+)", pipeline.simulator.output.read_text())
    assert found
    with socket.create_server(("127.0.0.3", int(found[1]))) as listening:
        yield listening.getsockname()


def _variables(query: PanelQuery) -> dict[str, str]:
    one = query.board in {"region", "feed"}
    chosen = {"region": REGIONS[0] if one else ".*", "instance": ".*", "venue": ".*", "feed": ".*"}
    return {**chosen, "__rate_interval": "10s", "__range": "60s"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_query_returns_data(
    pipeline: Pipeline, other_peer: tuple[str, int], dialect: str, tmp_path: Path
) -> None:
    exporter = urllib.parse.urlparse(pipeline.exporter_url).netloc
    targets = {region: [exporter] for region in REGIONS}
    features = FEATURES if dialect == "native" else "exemplar-storage"
    rules = tmp_path / "rules.yml"  # JSON is YAML
    rules.write_text(json.dumps({"groups": [{"name": "always", "rules": [ALWAYS]}]}))
    with Prometheus(tmp_path / "prometheus", targets, [rules], features=features) as prometheus:
        found = _ask_until_all_answer(prometheus, dialect, other_peer)
    lines = [f"{count or excused(query)}\t{query.where}\t{query.expr}" for query, count in found.items()]
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"dashboard-queries-{dialect}.tsv").write_text("\n".join(lines) + "\n")
    empty = [query.where for query, count in found.items() if not count and not excused(query)]
    assert not empty


def _ask_until_all_answer(prometheus: Prometheus, dialect: str, other_peer: tuple[str, int]) -> dict[PanelQuery, int]:
    found = dict.fromkeys(queries(dialect), 0)
    deadline = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline:
        socket.create_connection(other_peer, timeout=10).close()
        for query in found:
            found[query] = found[query] or series(prometheus, query, _variables(query))
        if all(count or excused(query) for query, count in found.items()):
            break
        time.sleep(1)
    return found
