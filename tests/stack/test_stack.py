# SPDX-License-Identifier: Apache-2.0
"""`docker compose up` on hosts that lack something, and that nothing stays. These end the demo that others look at."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from netns import entered
from stack.composed import compose, down, namespace, published, state
from stack.engine import Engine
from stack.prometheus import needs_prometheus

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="class")
def live(host: Engine) -> Iterator[None]:
    """The stack as `docker compose up` starts it without a .env, after the demo's went down."""
    down(host)
    compose(host, "up", "--wait")
    yield
    down(host)


@pytest.mark.usefixtures("live")
class TestWithoutNetwork:
    """A host with no NIC and no egress."""

    def test_it_comes_up_and_names_the_demo_in_one_line(self, host: Engine) -> None:
        assert {one["Health"] for name, one in state(host).items() if name != "setup"} == {"healthy"}
        said = [line for line in compose(host, "logs", "feeds").stdout.splitlines() if "--profile demo" in line]
        assert len(said) == 1
        assert "fstream.binance.com:443 cannot be reached" in said[0]

    def test_it_says_that_there_is_no_nic(self, host: Engine) -> None:
        said = compose(host, "logs", "capture").stdout
        assert "no route tells which interface to watch" in said
        assert "this host has no" in said

    def test_the_region_is_local(self, host: Engine) -> None:
        found = published(host, "prometheus").wait('up{job="tickpath"}')
        assert [sample.labels["region"] for sample in found] == ["local"]


class TestWithNic:
    """A host whose NIC the kernel owns, until another process takes it."""

    def test_the_capture_watches_it_and_says_so(self, host: Engine, nic: str) -> None:
        down(host)
        compose(host, "up", "--wait", "capture")
        said = compose(host, "logs", "capture").stdout
        assert re.search(rf"event=ready .*\binterface={nic}\b", said)

    def test_it_says_that_another_process_took_it(self, host: Engine, nic: str) -> None:
        """Binding a NIC to DPDK takes its interface from the kernel."""
        subprocess.run(host.inside(["ip", "link", "delete", nic]), check=True)
        deadline = time.monotonic() + 30
        while "interface_unavailable" not in compose(host, "logs", "capture").stdout:
            assert time.monotonic() < deadline, "the capture says nothing of its interface"
            time.sleep(0.5)
        assert state(host)["capture"]["Health"] == "healthy"


def test_a_port_that_is_taken_is_named_in_one_line(host: Engine) -> None:
    down(host)
    with entered(namespace(host)):
        other = socket.create_server(("127.0.0.1", 19090))
    with other:
        done = compose(host, "up", "--wait", check=False, TICKPATH_PROMETHEUS_PORT="19090", TICKPATH_FEEDS="none")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "127.0.0.1:19090" in line and "address already in use" in line]
    down(host)


def test_down_leaves_nothing(host: Engine) -> None:
    down(host)
    assert host.docker("ps", "--all", "--quiet").stdout == ""
    assert host.docker("volume", "ls", "--quiet").stdout == ""
    assert "tickpath" not in host.docker("network", "ls", "--format", "{{.Name}}").stdout
    links = subprocess.run(host.inside(["ip", "-o", "link"]), capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[1].strip() for line in links.splitlines()] == ["lo", "docker0"]
