# SPDX-License-Identifier: Apache-2.0
"""`docker compose --profile demo up` as users get it, in an engine of its own: what is served and open, how soon."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time

import pytest

from dashboards_queries import excused, queries, series
from stack.composed import BUILD, PORTS, REGION, Started, compose, published, state
from stack.images import ROOT, Made
from stack.prometheus import Api, needs_prometheus

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(1800)]

CAPABILITIES = {
    "setup": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"},
    "capture": {"NET_RAW"},
    "kernel": {"BPF", "PERFMON"},
}
HOPS = ("bn_to_nic", "nic_to_kernel", "kernel_to_user", "cpu", "msk")
CLIENT = """
import sys, time
from pathlib import Path
from tickpath.recorder import Recorder
with Recorder(Path("/run/tickpath"), "team-client"):
    print("recording", flush=True)
    sys.stdin.read()
"""
_WITHIN_S = 180
# Their panels say so while they are empty.
NOTHING_NEED_BE_MISSING = re.compile("tickpath_(missing_hop|unmatched_messages)_total|tickpath_connect_latency_seconds")


@pytest.fixture
def prometheus(demo: Started) -> Api:
    return demo.prometheus


def test_every_query_of_the_region_dashboard_has_data_soon(images: Made, demo: Started, prometheus: Api) -> None:
    """The first test of all: what it measures begins with `docker compose up`."""
    # What Grafana makes of a scrape every five seconds.
    variables = {"region": REGION, "instance": ".*", "venue": ".*", "feed": ".*"}
    variables |= {"__rate_interval": "20s", "__range": "60s"}
    region = [query for query in queries("native") if query.board == "region" and not excused(query)]
    empty = [query for query in region if not NOTHING_NEED_BE_MISSING.search(query.expr)]
    asked = len(empty)
    while empty:
        empty = [query for query in empty if not series(prometheus, query, variables)]
        waited_s = time.monotonic() - demo.began_s
        assert waited_s < _WITHIN_S + demo.up_s, [query.where for query in empty]
        time.sleep(0.2)
    measured = {
        "start": images.start,
        "images_of_others_s": round(images.prepared_s, 1),
        "build_s": round(images.built_s, 1),
        "up_s": round(demo.up_s, 1),
        "up_to_every_region_query_s": round(waited_s, 1),
        "build_and_up_to_every_region_query_s": round(images.built_s + waited_s, 1),
        "region_queries": asked,
    }
    BUILD.mkdir(exist_ok=True)
    times = BUILD / "stack-times.json"
    kept = json.loads(times.read_text()) if times.exists() else {}
    times.write_text(json.dumps({**kept, images.start: measured}, indent=1) + "\n")


def test_every_service_is_healthy(demo: Started) -> None:
    services = state(demo.host)
    assert services.pop("setup")["ExitCode"] == 0
    assert {name: one["Health"] for name, one in services.items()} == dict.fromkeys(services, "healthy")
    assert {*services} == {*PORTS, "feeds", "capture", "kernel", "simulator"}


@pytest.mark.parametrize("hop", HOPS)
def test_prometheus_has_a_p99_of_each_hop(demo: Started, prometheus: Api, hop: str) -> None:
    if hop in ("nic_to_kernel", "kernel_to_user") and not demo.sees_the_kernel():
        pytest.skip("this kernel has no typed tracepoints: nic_to_user stands for the hop")
    name = f'tickpath_hop_latency_seconds{{hop="{hop}",region="{REGION}"}}'
    classic = f"histogram_quantile(0.99, sum by (le) (rate({name.replace('seconds{', 'seconds_bucket{')}[1m])))"
    found = prometheus.wait(f"histogram_quantile(0.99, sum(rate({name}[1m]))) or {classic}")
    assert 0 < found[0].value < 60


def test_the_region_is_a_label_of_the_target(demo: Started, prometheus: Api) -> None:
    prometheus.wait("count(up == 1) == 3")
    targets = {one["labels"]["job"]: one for one in prometheus.targets()}
    assert [(job, one["lastError"]) for job, one in targets.items() if one["health"] != "up"] == []
    assert targets["tickpath"]["labels"] == {"job": "tickpath", "region": REGION, "instance": socket.gethostname()}


def test_rules_are_loaded_and_well(prometheus: Api) -> None:
    # Groups of a minute's interval are evaluated within that minute: one that was not yet is `unknown`.
    rules = prometheus.rules()
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []
    assert any(rule["type"] == "alerting" for rule in rules)


def test_alerts_reach_the_alertmanager(demo: Started, prometheus: Api) -> None:
    found = prometheus.get("/api/v1/alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://alertmanager:9093/api/v2/alerts"]
    status, body = published(demo.host, "alertmanager").fetch("/api/v2/status")
    assert status == 200
    assert json.loads(body)["versionInfo"]["version"] in (ROOT / "compose.yaml").read_text()


def test_all_that_listens_is_on_loopback_and_documented(demo: Started) -> None:
    table = (ROOT / "docs/compose.md").read_text()
    listening = subprocess.run(demo.host.inside(["ss", "-Hltn"]), capture_output=True, text=True, check=True).stdout
    addresses = [line.split()[3] for line in listening.splitlines()]
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    assert ports == {*PORTS.values(), 5555, 5556, 18065}
    assert [port for port in ports if not re.search(rf"\b{port}\b", table)] == []


def test_nothing_has_more_rights_than_the_documentation_says(demo: Started) -> None:
    table = (ROOT / "docs/compose.md").read_text()
    for name, one in state(demo.host).items():
        settings = json.loads(demo.host.docker("inspect", one["ID"]).stdout)[0]
        given = settings["HostConfig"]
        assert not given["Privileged"], name
        assert given["CapDrop"] == ["ALL"], name
        capabilities = {capability.removeprefix("CAP_") for capability in given["CapAdd"] or ()}
        assert capabilities == CAPABILITIES.get(name, set()), name
        assert given["ReadonlyRootfs"], name
        assert given["SecurityOpt"] == ["no-new-privileges:true"], name
        root = settings["Config"]["User"] in ("", "0:0", "root")
        assert root == (name in CAPABILITIES), name
        assert re.search(rf"^\| `{name}` \|", table, re.MULTILINE), f"{name} is not in docs/compose.md"


def test_grafana_is_given_a_password_of_its_own(demo: Started) -> None:
    documented = ["exec", "-T", "grafana", "cat", "/password/grafana"]
    password = compose(demo.host, *documented).stdout.strip()
    assert len(password) >= 20
    assert " ".join(word for word in documented if word != "-T") in (ROOT / "docs/compose.md").read_text()
    said = compose(demo.host, "logs", "--no-color").stdout
    assert password not in said
    assert "stand-in for Grafana" in said  # Grafana itself does not run here


def test_a_client_of_the_teams_own_takes_part(demo: Started) -> None:
    identity = ["setpriv", "--reuid", "12345", "--regid", "10001", "--clear-groups"]
    client = subprocess.Popen(
        demo.host.inside([*identity, sys.executable, "-P", "-c", CLIENT]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    assert client.stdin
    assert client.stdout
    with client:
        assert client.stdout.readline() == "recording\n"
        exporter = published(demo.host, "exporter")
        deadline = time.monotonic() + _WITHIN_S
        wanted = re.compile(rb'tickpath_producer_up\{[^}]*ring="feed-team-client"[^}]*\} 1')
        while not wanted.search(exporter.fetch("/metrics")[1]):
            assert time.monotonic() < deadline, "the exporter does not see the ring of a process outside"
            time.sleep(0.2)
        client.stdin.close()
        assert client.wait(60) == 0
