# SPDX-License-Identifier: Apache-2.0
"""In a guest whose second NIC has the other end of the cable: a NIC bound to vfio-pci, inline, all probes above it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpdk.inlining import PORT, TAP, tickpath
from netns import Namespace
from tickpath.exporter.exposition.summary import HOPS
from tickpath.lab.simulator.config import SimulatorConfig
from tickpath.lab.simulator.server import Simulator
from traffic import noise, transfer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        "tickpath.cable" not in Path("/proc/cmdline").read_text().split(),
        reason="only in a guest of make test-vm that has a NIC to give away",
    ),
]

_OURS, _FAR = "10.78.0.2", "10.78.0.1"
_MESSAGES = 300
_BULK_BYTES = 2_000_000
_PATIENCE_S = 120.0
_RESULTS = Path("/results")


def _wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {_PATIENCE_S:g} s"
        time.sleep(0.2)


def _run(command: str) -> str:
    return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout


class _Process:
    """A tickpath of ours, ended with the test."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *tickpath(*arguments, "--directory", str(folder / "rings"))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TICKPATH_LOG_FORMAT": "logfmt"},
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self, words: str = "event=ready") -> None:
        _wait(lambda: words in self.said or self._process.poll() is not None, f"'{words}'")
        assert self._process.poll() is None, self.said

    def end(self) -> int:
        return self._process.wait(_PATIENCE_S)

    def stop(self) -> int:
        self._process.terminate()
        return self.end()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _nic() -> str:
    """The PCI address of the NIC that this kernel has no driver for."""
    (found,) = (
        path.name
        for path in Path("/sys/bus/pci/devices").iterdir()
        if (path / "class").read_text().startswith("0x0200") and not (path / "virtio0").exists()
        if (path / "device").read_text().strip() == "0x10d3"
    )
    return found


@dataclass
class Host:
    """The far end of the cable, and the NIC at this one."""

    far: Namespace
    nic: str

    def capture(self, folder: Path, *more: str) -> _Process:
        # One that never sleeps takes half of an emulated machine, and of the one below it.
        flags = ("--mode", "inline", "--device", self.nic, "--port", str(PORT), "--idle-sleep-us", "50")
        return _Process(folder, "capture", "capture", "dpdk", *flags, *more)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    for module in ("virtio_net", "tun"):
        _run(f"modprobe {module}")
    with Namespace() as far:
        (device,) = (name for _, name in socket.if_nameindex() if name != "lo")
        _run(f"ip link set {device} netns {far._holder.pid} name far")
        far.run("ethtool", "-K", "far", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        far.address("far", f"{_FAR}/24")
        yield Host(far, _nic())


def _addressed() -> None:
    _run(f"ip address replace {_OURS}/24 dev {TAP}")


def test_a_nic_that_nobody_gave_up_is_refused_with_the_command_that_does(host: Host, tmp_path: Path) -> None:
    refused = host.capture(tmp_path)
    assert refused.end() == 1
    last = refused.said.splitlines()[-1]
    assert f"{host.nic} is bound to no driver" in last
    # What it says is what an operator types, so it has to work.
    subprocess.run(last.partition("run: ")[2], shell=True, check=True, timeout=_PATIENCE_S)
    assert Path(f"/sys/bus/pci/devices/{host.nic}/driver").resolve().name == "vfio-pci"
    refused = host.capture(tmp_path)
    if not Path("/sys/module/vfio_iommu_type1").exists():
        assert refused.end() == 1
        subprocess.run(refused.said.partition("run: ")[2].strip(), shell=True, check=True, timeout=_PATIENCE_S)
    else:
        refused.kill()


def test_all_five_hops_of_a_feed_over_a_nic_that_dpdk_owns(host: Host, tmp_path: Path) -> None:
    capture = host.capture(tmp_path)
    kernel = _Process(tmp_path, "kernel", "probe", "kernel", "--port", str(PORT))
    exporter = _Process(tmp_path, "exporter", "exporter", "--listen", "127.0.0.1:18064")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def summary() -> dict[str, Any]:
        try:
            with opener.open("http://127.0.0.1:18064/api/summary", timeout=60) as answer:
                return dict(json.loads(answer.read()))
        except OSError:
            return {}

    capture.ready()
    _addressed()
    kernel.ready()
    _wait(lambda: len(summary().get("rings", ())) == 2, "two rings in the exporter")
    with host.far.entered():
        simulator = Simulator(
            SimulatorConfig(
                host=_FAR, port=PORT, tls="1.3", speed=Fraction(1), messages=_MESSAGES, connections=1, linger_ns=10**10
            )
        ).__enter__()
    url = f"{simulator.url}/market/ws/btcusdt@trade"
    feed = _Process(tmp_path, "feed", "feed", url, "--no-reconnect", "--cafile", str(simulator.ca_path))
    feed.end()
    simulator.__exit__(None, None, None)
    _wait(lambda: summary()["messages"] == _MESSAGES and summary()["pending"] == 0, f"all messages ({feed.said})")
    found = summary()
    for process in (kernel, exporter, capture):
        assert process.stop() == 0, process.said
    table = _table(found)
    print(table)
    if _RESULTS.is_dir():
        (_RESULTS / "hops.table").write_text(table)
    assert found["matched"]["offset"] == _MESSAGES, found
    for hop in HOPS:
        assert found["hops"][hop]["count"] == _MESSAGES, hop
    assert found["hops"]["bn_to_nic"]["source"] == found["hops"]["nic_to_kernel"]["source"] == "poll"
    assert sum(found["hops"][hop]["sum_ns"] for hop in HOPS) == found["spans"]["total"]["sum_ns"]


def _table(summary: dict[str, Any]) -> str:
    lines = [f"{'hop':<16}{'messages':>10}{'P50':>12}{'P99':>12}  stamped by"]
    for hop in HOPS:
        figures = summary["hops"].get(hop, {"count": 0, "p50_ns": None, "p99_ns": None})
        times = [f"{figures[q] / 1000:.0f} us" if figures[q] is not None else "-" for q in ("p50_ns", "p99_ns")]
        lines.append(f"{hop:<16}{figures['count']:>10}{times[0]:>12}{times[1]:>12}  {figures.get('source', '')}")
    return "\n".join(lines) + "\n"


def test_bulk_in_large_frames_is_whole_and_a_connection_lives_through_the_death_of_who_forwards(
    host: Host, tmp_path: Path
) -> None:
    data = noise(_BULK_BYTES)
    digest = hashlib.sha256(data).digest()
    large = ("--mtu", "9000", "--buffers", "4096")
    capture = host.capture(tmp_path, *large)
    capture.ready()
    _addressed()
    with host.far.entered():
        listening = socket.create_server((_FAR, PORT))
    with listening, socket.create_connection((_FAR, PORT), timeout=_PATIENCE_S) as client:
        server = listening.accept()[0]
        server.settimeout(_PATIENCE_S)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 8000
        assert hashlib.sha256(transfer(client, server, data)).digest() == digest
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(transfer(server, client, data)), daemon=True)
        capture.kill()
        reading.start()
        successor = host.capture(tmp_path, *large)
        successor.ready()
        reading.join(_PATIENCE_S)
        server.close()
    assert [hashlib.sha256(one).digest() for one in got] == [digest]
    assert successor.stop() == 0
    assert not re.search(r"missed=[1-9]", successor.said)
    _run(f"ip link delete {TAP}")
