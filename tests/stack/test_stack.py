# SPDX-License-Identifier: Apache-2.0
"""`docker compose up` as users get it, in an engine of its own: what is served and open, and that nothing stays."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netns import entered
from stack.engine import Engine, engine
from stack.images import ROOT, make_base, make_standins
from stack.prometheus import Api, needs_prometheus

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(1800)]

FILES = ["-f", ROOT / "compose.yaml", "-f", Path(__file__).with_name("override.yaml")]
PORTS = {"exporter": 18064, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
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


class Inside(Api):
    """An HTTP interface that listens on the loopback of the engine's namespace."""

    def __init__(self, host: Engine, port: int) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self._namespace = Path(f"/proc/{host.pid}/ns/net")
        self._port = port

    def fetch(self, target: str) -> tuple[int, bytes]:
        """Status and body of a page."""
        with entered(self._namespace):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _body(self, url: str) -> bytes:
        return self.fetch(url.removeprefix(self.url))[1]


def _compose(host: Engine, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    return host.docker("compose", *FILES, *arguments, check=check, cwd=ROOT, env=env)


def _state(host: Engine) -> dict[str, dict[str, Any]]:
    listed = _compose(host, "--profile", "demo", "ps", "--all", "--format", "json").stdout
    return {one["Service"]: one for one in map(json.loads, listed.splitlines())}


def _down(host: Engine) -> None:
    _compose(host, "--profile", "demo", "down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def images() -> None:
    """Every image that compose.yaml needs, in the engine's store."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an engine makes namespaces, mounts and cgroups")
    with engine(isolated=False) as builder:
        make_base(builder)
        make_standins(builder)
        for attempt in range(3):  # it fetches packages
            built = _compose(builder, "--profile", "demo", "build", check=attempt == 2)
            if built.returncode == 0:
                return


@pytest.fixture(scope="module")
def host(images: None) -> Iterator[Engine]:
    """A host with an engine, a loopback and no NIC."""
    before = _traces()
    with engine(isolated=True) as found:
        _down(found)  # of a run that was killed
        yield found
        _down(found)
    assert _traces() == before, "the engine has left something behind"


@pytest.fixture(scope="module")
def demo(host: Engine) -> Iterator[Engine]:
    """The stack with the simulated exchange, as the documentation says to start it."""
    began = time.monotonic()
    _compose(host, "--profile", "demo", "up", "--build", "--wait", TICKPATH_REGION="test-1")
    print(f"up in {time.monotonic() - began:.1f} s")
    yield host
    _down(host)


@pytest.fixture(scope="module")
def prometheus(demo: Engine) -> Inside:
    return Inside(demo, PORTS["prometheus"])


def test_every_service_is_healthy(demo: Engine) -> None:
    state = _state(demo)
    assert state.pop("setup")["ExitCode"] == 0
    assert {name: one["Health"] for name, one in state.items()} == dict.fromkeys(state, "healthy")
    assert {*state} == {*PORTS, "feeds", "capture", "kernel", "simulator"}


@pytest.mark.parametrize("hop", HOPS)
def test_prometheus_has_a_p99_of_each_hop(demo: Engine, prometheus: Inside, hop: str) -> None:
    if "this host has no" in _compose(demo, "logs", "kernel").stdout and hop in ("nic_to_kernel", "kernel_to_user"):
        pytest.skip("this kernel has no typed tracepoints: nic_to_user stands for the hop")
    name = f'tickpath_hop_latency_seconds{{hop="{hop}",region="test-1"}}'
    classic = f"histogram_quantile(0.99, sum by (le) (rate({name.replace('seconds{', 'seconds_bucket{')}[1m])))"
    found = prometheus.wait(f"histogram_quantile(0.99, sum(rate({name}[1m]))) or {classic}")
    assert 0 < found[0].value < 60


def test_the_region_is_a_label_of_the_target(demo: Engine, prometheus: Inside) -> None:
    prometheus.wait("count(up == 1) == 3")
    targets = {one["labels"]["job"]: one for one in prometheus.targets()}
    assert [(job, one["lastError"]) for job, one in targets.items() if one["health"] != "up"] == []
    assert targets["tickpath"]["labels"] == {"job": "tickpath", "region": "test-1", "instance": socket.gethostname()}


def test_rules_are_loaded_and_well(prometheus: Inside) -> None:
    # Groups of a minute's interval are evaluated within that minute: one that was not yet is `unknown`.
    rules = prometheus.rules()
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []
    assert any(rule["type"] == "alerting" for rule in rules)


def test_alerts_reach_the_alertmanager(demo: Engine, prometheus: Inside) -> None:
    found = prometheus.get("/api/v1/alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://alertmanager:9093/api/v2/alerts"]
    status, body = Inside(demo, PORTS["alertmanager"]).fetch("/api/v2/status")
    assert status == 200
    assert json.loads(body)["versionInfo"]["version"] in (ROOT / "compose.yaml").read_text()


def test_all_that_listens_is_on_loopback_and_documented(demo: Engine) -> None:
    table = (ROOT / "docs/compose.md").read_text()
    listening = subprocess.run(demo.inside(["ss", "-Hltn"]), capture_output=True, text=True, check=True).stdout
    addresses = [line.split()[3] for line in listening.splitlines()]
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    assert ports == {*PORTS.values(), 5555, 5556, 18065}
    assert [port for port in ports if not re.search(rf"\b{port}\b", table)] == []


def test_nothing_has_more_rights_than_the_documentation_says(demo: Engine) -> None:
    table = (ROOT / "docs/compose.md").read_text()
    for name, one in _state(demo).items():
        settings = json.loads(demo.docker("inspect", one["ID"]).stdout)[0]
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


def test_grafana_is_given_a_password_of_its_own(demo: Engine) -> None:
    documented = ["exec", "-T", "grafana", "cat", "/password/grafana"]
    password = _compose(demo, *documented).stdout.strip()
    assert len(password) >= 20
    assert " ".join(word for word in documented if word != "-T") in (ROOT / "docs/compose.md").read_text()
    said = _compose(demo, "logs", "--no-color").stdout
    assert password not in said
    assert "stand-in for Grafana" in said  # Grafana itself does not run here


def test_a_client_of_the_teams_own_takes_part(demo: Engine) -> None:
    identity = ["setpriv", "--reuid", "12345", "--regid", "10001", "--clear-groups"]
    client = subprocess.Popen(
        demo.inside([*identity, sys.executable, "-P", "-c", CLIENT]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    assert client.stdin
    assert client.stdout
    with client:
        assert client.stdout.readline() == "recording\n"
        exporter = Inside(demo, PORTS["exporter"])
        deadline = time.monotonic() + 30
        wanted = re.compile(rb'tickpath_producer_up\{[^}]*ring="feed-team-client"[^}]*\} 1')
        while not wanted.search(exporter.fetch("/metrics")[1]):
            assert time.monotonic() < deadline, "the exporter does not see the ring of a process outside"
            time.sleep(0.2)
        client.stdin.close()
        assert client.wait(30) == 0


@pytest.fixture(scope="class")
def live(host: Engine) -> Iterator[None]:
    """The stack as `docker compose up` starts it without a .env, after the demo's went down."""
    _down(host)
    _compose(host, "up", "--wait")
    yield
    _down(host)


@pytest.mark.usefixtures("live")
class TestWithoutNetwork:
    """A host with no NIC and no egress."""

    def test_it_comes_up_and_names_the_demo_in_one_line(self, host: Engine) -> None:
        assert {one["Health"] for name, one in _state(host).items() if name != "setup"} == {"healthy"}
        said = [line for line in _compose(host, "logs", "feeds").stdout.splitlines() if "--profile demo" in line]
        assert len(said) == 1
        assert "fstream.binance.com:443 cannot be reached" in said[0]

    def test_it_says_that_there_is_no_nic(self, host: Engine) -> None:
        said = _compose(host, "logs", "capture").stdout
        assert "no route tells which interface to watch" in said
        assert "this host has no" in said

    def test_the_region_is_local(self, host: Engine) -> None:
        found = Inside(host, PORTS["prometheus"]).wait('up{job="tickpath"}')
        assert [sample.labels["region"] for sample in found] == ["local"]


def test_a_port_that_is_taken_is_named_in_one_line(host: Engine) -> None:
    _down(host)
    with entered(Path(f"/proc/{host.pid}/ns/net")):
        other = socket.create_server(("127.0.0.1", 19090))
    with other:
        done = _compose(host, "up", "--wait", check=False, TICKPATH_PROMETHEUS_PORT="19090", TICKPATH_FEEDS="none")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "127.0.0.1:19090" in line and "address already in use" in line]
    _down(host)


def test_down_leaves_nothing(host: Engine) -> None:
    _down(host)
    assert host.docker("ps", "--all", "--quiet").stdout == ""
    assert host.docker("volume", "ls", "--quiet").stdout == ""
    assert "tickpath" not in host.docker("network", "ls", "--format", "{{.Name}}").stdout
    links = subprocess.run(host.inside(["ip", "-o", "link"]), capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[1].strip() for line in links.splitlines()] == ["lo", "docker0"]


def _traces() -> tuple[set[str], set[str], str, list[str]]:
    """Mounts, interfaces, netfilter tables and cgroups of this host, as far as an engine could have made them."""
    mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    links = set(os.listdir("/sys/class/net"))  # noqa: PTH208 - names are all there is
    chains = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    cgroups = [str(folder) for folder in Path("/sys/fs/cgroup").glob(f"**/tickpath-stack-{os.getpid()}")]
    return mounts, links, chains, cgroups
