# SPDX-License-Identifier: Apache-2.0
"""One engine and one stack for all tests of the folder: the stack's time is that of its longest test."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stack.composed import DPDK_FILES, FILES, REGION, ClockWatch, Started, compose, down
from stack.engine import Engine, engine
from stack.images import Made, make_base, make_standins


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Made:
    """Every image that compose.yaml needs, in the engine's store."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an engine makes namespaces, mounts and cgroups")
    began_s = time.monotonic()
    with engine(isolated=False) as builder:
        make_base(builder)
        make_standins(builder)
        before = _image(builder)
        prepared_s = time.monotonic()
        _build(builder, FILES)
        built_s = time.monotonic()
        after = _image(builder)
        start = "cold" if not before else "warm" if before == after else "rebuilt"
        if any("dpdk_image" in getattr(item, "fixturenames", ()) for item in request.session.items):
            _build(builder, DPDK_FILES, "capture")
        return Made(start, prepared_s - began_s, built_s - prepared_s)


@pytest.fixture
def dpdk_image() -> None:
    """Asked for by tests of compose.dpdk.yaml: its image is made with the others, where there is a network."""


def _build(builder: Engine, files: Sequence[str | Path], *services: str) -> None:
    for attempt in range(3):  # it fetches packages
        built = compose(builder, "--profile", "demo", "build", *services, files=files, check=attempt == 2)
        if built.returncode == 0:
            return


def _image(builder: Engine) -> str:
    return builder.docker("image", "ls", "--quiet", "--no-trunc", "tickpath").stdout.strip()


@pytest.fixture(scope="session")
def host(images: Made) -> Iterator[Engine]:
    """A host with an engine, a loopback and no NIC."""
    before = _traces()
    with engine(isolated=True) as found:
        down(found)  # of a run that was killed
        yield found
        down(found)
    assert _traces() == before, "the engine has left something behind"


@pytest.fixture(scope="session")
def demo(host: Engine) -> Iterator[Started]:
    """The stack with the simulated exchange, as the documentation says to start it."""
    clock = ClockWatch()
    began_s = time.monotonic()
    compose(host, "--profile", "demo", "up", "--build", "--wait", TICKPATH_REGION=REGION)
    yield Started(host, began_s, time.monotonic() - began_s, clock)
    down(host)


@pytest.fixture(scope="class")
def nic(host: Engine) -> Iterator[str]:
    """An interface with the default route, as a host's NIC is; one of a pair, so that it can be taken away."""
    for words in (
        "link add nic0 type veth peer name nic1",
        "link set nic1 up",
        "addr add 192.0.2.2/24 dev nic0",
        "link set nic0 up",
        "route add default via 192.0.2.1",
    ):
        subprocess.run(host.inside(["ip", *words.split()]), check=True)
    yield "nic0"
    down(host)
    subprocess.run(host.inside(["ip", "link", "delete", "nic0"]), check=False, capture_output=True)


def _traces() -> tuple[set[str], set[str], str, list[str]]:
    """Mounts, interfaces, netfilter tables and cgroups of this host, as far as an engine could have made them."""
    mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    links = set(os.listdir("/sys/class/net"))  # noqa: PTH208 - names are all there is
    chains = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    cgroups = [str(folder) for folder in Path("/sys/fs/cgroup").glob(f"**/tickpath-stack-{os.getpid()}")]
    return mounts, links, chains, cgroups
