# SPDX-License-Identifier: Apache-2.0
"""What a real Alertmanager, configured as ours is, keeps silent because another alert explains it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ports import held_port
from rules.scenario import RULES, tool

ALERTMANAGER = tool("prometheus-alertmanager")
pytestmark = [
    pytest.mark.skipif(ALERTMANAGER is None, reason="needs an Alertmanager: `make test-stack` fetches it"),
    pytest.mark.skipif(os.geteuid() != 0, reason="shows the Alertmanager its own /usr/share, which needs root"),
    pytest.mark.root,
]
# Debian's reads its templates from /usr/share, also where it is only unpacked: a mount that this process alone sees.
AT_HOME = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" /usr/share && shift && exec "$@"', "sh"]

SERVER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CPU = {"hop": "cpu", "venue": "binance", "feed": "btcusdt"}
EXCHANGE = {"hop": "bn_to_nic", "venue": "binance", "feed": "btcusdt", "source": "sw"}


def alert(name: str, instance: str, **labels: str) -> dict[str, str]:
    return {"alertname": name, "instance": instance, "region": "tokyo", **labels}


FIRING = [
    alert("TickpathClockUnsynchronised", "clock", clock="realtime"),
    alert("TickpathLatencyRegression", "clock", **EXCHANGE),
    alert("TickpathLatencyRegression", "clock", **CPU),
    alert("TickpathExporterDown", "down"),
    alert("TickpathProbeDown", "down", ring="kernel"),
    alert("TickpathBudgetBurnsFast", "burning", **CPU),
    alert("TickpathLatencyRegression", "burning", **CPU),
    alert("TickpathLatencyRegression", "burning", **{**CPU, "hop": "msk"}),
    alert("TickpathConnectFailures", "cut-off", ring="feed", result="refused"),
    alert("TickpathFeedSilent", "cut-off", venue="binance", feed="btcusdt"),
    alert("TickpathLatencyRegression", "well", **EXCHANGE),
]
SILENCED = [FIRING[i] for i in (1, 4, 6, 9)]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    assert ALERTMANAGER is not None
    with held_port() as port:
        address = f"127.0.0.1:{port}"
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *AT_HOME,
                    str(ALERTMANAGER.parents[1] / "share"),
                    str(ALERTMANAGER),
                    f"--config.file={RULES.parent / 'alertmanager.yml'}",
                    f"--storage.path={tmp_path / 'data'}",
                    f"--web.listen-address={address}",
                    "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield f"http://{address}/api/v2/alerts"
        finally:
            process.terminate()
            process.wait(30)


def post(url: str) -> None:
    body = json.dumps([{"labels": labels} for labels in FIRING]).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 60
    while True:
        try:
            SERVER.open(request, timeout=10).close()
        except OSError:
            assert time.monotonic() < deadline, "the Alertmanager does not answer"
            time.sleep(0.1)
        else:
            return


def alerts(url: str) -> list[dict[str, Any]]:
    with SERVER.open(url, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def test_one_cause_is_told_once(url: str) -> None:
    def silenced() -> list[dict[str, str]]:
        return [one["labels"] for one in alerts(url) if one["status"]["inhibitedBy"]]

    post(url)
    deadline = time.monotonic() + 60
    while len(alerts(url)) < len(FIRING) or len(silenced()) < len(SILENCED):
        assert time.monotonic() < deadline, silenced()
        time.sleep(0.1)
    assert len(silenced()) == len(SILENCED)
    assert all(labels in silenced() for labels in SILENCED)
