# SPDX-License-Identifier: Apache-2.0
"""The rules in a real Prometheus with a back-filled past, over a real exporter: a slower hop is told, and it alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rules.quicker import quicker
from stack.prometheus import Prometheus, needs_prometheus, promtool
from tickpath.event import RECORD, ROW, Clock, Kind, MessageFlag, Tier
from tickpath.ring import RingWriter

pytestmark = [needs_prometheus, pytest.mark.timeout(400)]

CALM_NS = 100_000
"""Time of cpu and of msk in the back-filled past and at first."""
SLOWER_NS = 900_000
PAST_MINUTES = 170
# Minutes become seconds: the rules' own expressions, with nothing else changed.
QUICKER = {
    r"\[5m\]": "[20s]",
    r"interval: 1m": "interval: 1s",
    r"for: 7m": "for: 15s",
    r"keep_firing_for: 5m": "keep_firing_for: 5s",
    r"(tickpath:minimum_history:minutes\", expr: vector)\(360\)": r"\1(100)",
}


class PacedFeed(threading.Thread):
    """A producer of fifty messages a second; `parse_ns` is the time of `cpu` from now on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.parse_ns = CALM_NS
        self._end = threading.Event()
        self._writer = RingWriter(directory, "feed-paced", "feed", capacity=4096, rows=4)
        row = np.zeros(1, dtype=ROW)
        row["cookie"], row["venue"], row["feed"] = 4711, b"binance-usdm", b"btcusdt"
        self._row = self._writer.open_row(row[0])

    def run(self) -> None:
        sent = 0
        while not self._end.wait(0.02):
            one = np.zeros(1, dtype=RECORD)
            one["kind"], one["row"], one["clock"], one["source"] = Kind.MESSAGE, self._row, Clock.MONOTONIC, Tier.A
            one["time_ns"] = time.monotonic_ns()
            one["flags"] = MessageFlag.HAS_PARSED | MessageFlag.HAS_PUBLISHED
            body = one["message"]
            body["end"], body["ordinal"], body["length"] = 200 * (sent + 1), sent, 180
            body["parsed_ns"], body["published_ns"] = self.parse_ns, CALM_NS
            self._writer.write(one.view("u1"))
            sent += 1

    def close(self) -> None:
        self._end.set()
        self.join()
        self._writer.close()


@contextmanager
def exporting(folder: Path) -> Iterator[str]:
    """The exporter on that ring directory; HOST:PORT."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKPATH_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tickpath", "exporter", "--listen", "127.0.0.1:0"],
        env={**clean, "TICKPATH_DIRECTORY": str(folder)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = next((m for line in process.stderr if (m := re.search(r"url=http://([^/]+)/", line))), None)
        assert found, f"ended with {process.wait()} without serving"
        yield found[1]
    finally:
        process.kill()
        process.communicate()


def past(target: str) -> str:
    """Calm minutes of both hops until five minutes ago, as OpenMetrics."""
    name = "instance:tickpath_watched_latency_seconds:p99_calm"
    now = int(time.time()) - 300
    lines = [f"# TYPE {name} gauge"]
    for hop in ("cpu", "msk"):
        labels = f'feed="btcusdt",hop="{hop}",instance="{target}",job="tickpath",region="tokyo",venue="binance-usdm"'
        lines += [
            f"{name}{{{labels}}} {CALM_NS / 1e9 * (1 + 0.01 * (minute % 5))} {now - 60 * minute}"
            for minute in reversed(range(PAST_MINUTES))
        ]
    return "\n".join([*lines, "# EOF", ""])


def test_a_slower_hop_is_told_and_it_alone(tmp_path: Path) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    feed = PacedFeed(rings)
    feed.start()
    try:
        with exporting(rings) as target:
            (tmp_path / "past").write_text(past(target))
            (tmp_path / "p" / "data").mkdir(parents=True)
            promtool("tsdb", "create-blocks-from", "openmetrics", tmp_path / "past", tmp_path / "p" / "data")
            with Prometheus(tmp_path / "p", {"tokyo": [target]}, quicker(tmp_path / "rules", QUICKER)) as prometheus:
                prometheus.wait('instance:tickpath_watched_latency_seconds:p99_change{hop="cpu"}', 120)
                regressions = 'ALERTS{alertname="TickpathLatencyRegression"}'
                assert prometheus.query(regressions) == []
                feed.parse_ns = CALM_NS + SLOWER_NS
                begun = time.monotonic()
                prometheus.wait('ALERTS{alertname="TickpathLatencyRegression", alertstate="firing"}', 120)
                print(f"told after {time.monotonic() - begun:.1f} s, of which 15 s pending")
                (one,) = prometheus.query(regressions)
                assert (one.labels["hop"], one.labels["region"], one.labels["feed"]) == ("cpu", "tokyo", "btcusdt")
                alerts = [a for a in prometheus.alerts() if a["labels"]["alertname"] == "TickpathLatencyRegression"]
                assert 0.5 * SLOWER_NS / 1e9 < float(alerts[0]["value"]) < 1.5 * SLOWER_NS / 1e9
                told = alerts[0]["annotations"]
                assert "cpu got slower for btcusdt" in told["summary"]
                assert told["runbook_url"].endswith("/consoles/latency.html#tickpathlatencyregression")
                assert told["dashboard_url"].endswith("&var-venue=binance-usdm&var-feed=btcusdt")
                assert "<error" not in str(told)
                feed.parse_ns = CALM_NS
                prometheus.wait(f"absent({regressions})", 120)
    finally:
        feed.close()
