# SPDX-License-Identifier: Apache-2.0
"""compose.yaml with compose.dpdk.yaml beside it: DPDK in a container, with the rights that are documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from netns import Namespace, entered
from stack.composed import DPDK_FILES, compose, down, namespace, published, state
from stack.engine import Engine
from stack.images import ROOT
from stack.prometheus import needs_prometheus
from tickpath.dpdk_capture.eal import free_huge_bytes
from tickpath.event import RECORD, Kind
from tickpath.ring import RingReader

pytestmark = [
    needs_prometheus,
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("dpdk_image", "vfio"),
]

ADDRESS = "0000:01:00.0"
RING = "dpdk-net_af_packet0-0"
_FRAMES = "blocksz=131072,framesz=2048,framecnt=8192"
_SYS_PTRACE = 1 << 19
_WITHIN_S = 90


def _up(host: Engine, *services: str, more: tuple[str | Path, ...] = (), **env: str) -> None:
    # No processor of this machine is owned by a test: an idle loop sleeps.
    env = {"TICKPATH_DPDK_IDLE_SLEEP_US": "200", **env}
    files = [*DPDK_FILES, *more]
    profile = ["--profile", "demo"] if "simulator" in services else []
    compose(host, *profile, "up", "--no-build", "--wait", *services, files=files, **env)


def _said(host: Engine) -> str:
    return compose(host, "logs", "--no-color", "capture").stdout


def _all(host: Engine) -> str:
    """What every service said, and what the exporter tells of the capture."""
    page = published(host, "exporter").fetch("/metrics")[1].decode()
    told = [
        line for line in page.splitlines() if line.startswith(("tickpath_dpdk_", "tickpath_messages", "tickpath_unm"))
    ]
    return "\n".join([compose(host, "--profile", "demo", "logs", "--no-color").stdout, *told])


def _wait(holds: Callable[[], object], host: Engine, what: str) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {_WITHIN_S} s\n{_all(host)}"
        time.sleep(0.2)


def _value(host: Engine, series: str) -> float:
    """Of the series that begin so on the exporter's page, added up."""
    page = published(host, "exporter").fetch("/metrics")[1].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(series, line))


def _pid(host: Engine) -> int:
    """Of the capture itself, below what supervises it."""
    settings = json.loads(host.docker("inspect", state(host)["capture"]["ID"]).stdout)[0]
    supervisor = settings["State"]["Pid"]
    (child,) = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(child)


@pytest.fixture(scope="module")
def vfio(host: Engine) -> Iterator[Path]:
    """The folder /dev/vfio as the engine sees it; made-up files in it are as good as devices where none is opened."""
    folder = Path("/dev/vfio")
    was_there = folder.exists()
    subprocess.run(host.inside(["sh", "-euc", f"mkdir -p {folder} && mount -t tmpfs vfio {folder}"]), check=True)
    yield folder
    down(host)
    subprocess.run(host.inside(["umount", "--lazy", folder]), check=True)
    if not was_there:
        folder.rmdir()


@pytest.fixture(scope="class")
def captured(host: Engine, vfio: Path) -> Iterator[Engine]:
    """The simulated exchange on the loopback, which DPDK has as a virtual port."""
    down(host)
    device = f"net_af_packet0,iface=lo,{_FRAMES}"
    _up(host, "simulator", "feeds", "capture", "exporter", TICKPATH_DPDK_DEVICE=device)
    # Under the eyes of the capture: it is to see how connections begin, which nobody else tells here.
    compose(host, "--profile", "demo", "restart", "feeds", files=DPDK_FILES, TICKPATH_DPDK_DEVICE=device)
    yield host
    down(host)


class TestCaptured:
    """A virtual port that is named."""

    def test_the_capture_says_what_it_has(self, captured: Engine) -> None:
        said = _said(captured)
        assert re.search(r"event=wire_source source=dpdk device=net_af_packet0", said)
        huge = free_huge_bytes() >= 64 << 20
        assert f"64 MiB {'of huge pages' if huge else 'without huge pages'}" in said
        assert re.search(r"event=ready .*\bdriver=net_af_packet\b", said)
        assert state(captured)["capture"]["Health"] == "healthy"

    def test_its_records_are_in_the_shared_ring_and_joined_with_messages(self, captured: Engine) -> None:
        counted = rf'tickpath_dpdk_published_frames_total\{{.*ring="{RING}"'
        _wait(lambda: _value(captured, counted) > 100, captured, "frames that the exporter counts")
        joined = r'tickpath_hop_latency_seconds_count\{.*hop="bn_to_nic".*source="poll"'
        _wait(lambda: _value(captured, joined) > 0, captured, "messages with a stamp of the poll loop")
        ring = Path(f"/proc/{captured.pid}/root/run/tickpath/{RING}.ring")
        with RingReader(ring, from_start=True) as reader:
            slots = bytearray(4096 * RECORD.itemsize)
            taken = reader.read(memoryview(slots))
        records = memoryview(slots)[: taken * RECORD.itemsize]
        assert Kind.SEGMENT in {record["kind"] for record in np.frombuffer(records, RECORD)}

    def test_it_has_the_rights_that_the_documentation_says(self, captured: Engine) -> None:
        settings = json.loads(captured.docker("inspect", state(captured)["capture"]["ID"]).stdout)[0]
        given = settings["HostConfig"]
        assert not given["Privileged"]
        assert given["CapDrop"] == ["ALL"]
        assert given["ReadonlyRootfs"]
        assert given["SecurityOpt"] == ["no-new-privileges:true"]
        assert not given["PidMode"]
        assert not given["Devices"]
        capabilities = {capability.removeprefix("CAP_") for capability in given["CapAdd"]}
        assert capabilities == {"NET_RAW", "NET_ADMIN", "IPC_LOCK", "SYS_PTRACE"}
        documented = (ROOT / "docs" / "compose.md").read_text()
        table = documented[documented.index("compose.dpdk.yaml") :]
        for right in (*capabilities, "/dev/vfio", "/dev/net", "/host/proc", "c *:* rw"):
            assert re.search(rf"^\| `{re.escape(right)}`", table, re.MULTILINE), f"{right} is not in docs/compose.md"

    def test_no_thread_of_it_can_look_into_other_processes(self, captured: Engine) -> None:
        for thread in Path(f"/proc/{_pid(captured)}/task").iterdir():
            words = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines() if ":\t" in line)
            assert not int(words["CapPrm"], 16) & _SYS_PTRACE, words["Name"]
            assert words["NoNewPrivs"] == "1"


def test_inline_gives_the_kernel_the_ports_traffic(host: Engine) -> None:
    """A peer behind the port, asked through the TAP: ARP and echoes pass both ways."""
    down(host)
    with Namespace() as far:
        try:
            peer = ["peer", "name", "far0", "netns", str(far._holder.pid)]
            subprocess.run(host.inside(["ip", "link", "add", "nic0", "type", "veth", *peer]), check=True)
            far.address("far0", "192.0.2.1/24")
            with entered(namespace(host)):
                # What the port has is not for the kernel twice, as it would not be on a NIC that the kernel has not.
                Path("/proc/sys/net/ipv6/conf/nic0/disable_ipv6").write_text("1")
                Path("/proc/sys/net/ipv4/conf/nic0/rp_filter").write_text("1")
                Path("/proc/sys/net/ipv4/conf/nic0/arp_ignore").write_text("8")
            subprocess.run(host.inside(["ip", "link", "set", "nic0", "up"]), check=True)
            device = f"net_af_packet0,iface=nic0,{_FRAMES}"
            _up(host, "capture", "exporter", TICKPATH_DPDK_DEVICE=device, TICKPATH_DPDK_MODE="inline")
            subprocess.run(host.inside(["ip", "address", "add", "192.0.2.2/24", "dev", "tickpath0"]), check=True)
            tickpath = [sys.executable, "-P", "-m", "tickpath"]
            ping = [*tickpath, "ping", "--count", "3", "--interval", "0.2", "--timeout", "30"]
            done = subprocess.run(host.inside([*ping, "192.0.2.1"]), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}{_said(host)}"
            for direction in ("to_kernel", "from_kernel"):
                passed = rf'tickpath_dpdk_forwarded_frames_total\{{.*direction="{direction}"'
                _wait(lambda passed=passed: _value(host, passed) >= 3, host, f"three frames {direction}")
        finally:
            down(host)
            for name in ("nic0", "tickpath0"):
                subprocess.run(host.inside(["ip", "link", "delete", name]), check=False, capture_output=True)


@pytest.fixture
def bound(tmp_path: Path, host: Engine, vfio: Path) -> Iterator[tuple[str | Path, ...]]:
    """A made-up NIC, bound to vfio-pci: what `docker compose` is to be given so that the capture sees it."""
    device = tmp_path / "devices" / ADDRESS
    device.mkdir(parents=True)
    (device / "class").write_text("0x020000\n")
    (device / "driver").symlink_to("../../drivers/vfio-pci")
    (device / "iommu_group").symlink_to("../../../kernel/iommu_groups/7")
    (tmp_path / "groups" / "7").mkdir(parents=True)
    (tmp_path / "module" / "vfio_iommu_type1" / "parameters").mkdir(parents=True)
    places = {"devices": "/sys/bus/pci/devices", "groups": "/sys/kernel/iommu_groups", "module": "/sys/module"}
    mounts = [
        {"type": "bind", "source": str(tmp_path / here), "target": there, "read_only": True}
        for here, there in places.items()
    ]
    more = tmp_path / "bound.yaml"  # JSON is YAML
    more.write_text(json.dumps({"services": {"capture": {"volumes": mounts}}}))
    subprocess.run(host.inside(["touch", vfio / "7"]), check=True)
    yield ("-f", more)
    subprocess.run(host.inside(["rm", vfio / "7"]), check=True)


class TestAuto:
    """Hosts of which DPDK gets nothing: the capture comes up and says what it got."""

    def test_a_plain_nic_is_watched_as_without_dpdk(self, host: Engine, nic: str) -> None:
        down(host)
        _up(host, "capture")
        said = _said(host)
        assert re.search(r"event=wire_source source=af_packet not_dpdk=\"no NIC here is bound for DPDK", said)
        assert re.search(rf"event=ready .*\binterface={nic}\b", said)
        assert state(host)["capture"]["Health"] == "healthy"

    def test_a_nic_of_another_process_is_refused_with_its_pid(
        self, host: Engine, nic: str, bound: tuple[str | Path, ...], vfio: Path
    ) -> None:
        down(host)
        hold = f"exec 3<>{vfio}/7; echo held; exec sleep infinity"
        holding = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", hold]
        with subprocess.Popen(host.inside(holding), stdout=subprocess.PIPE, text=True) as owner:
            try:
                assert owner.stdout
                assert owner.stdout.readline() == "held\n"
                _up(host, "capture", more=bound)
                said = _said(host)
            finally:
                owner.kill()
        refused = rf"source=af_packet not_dpdk=\"{ADDRESS} is in use by process {owner.pid} \(sleep\)"
        assert re.search(refused, said)
        assert re.search(rf"event=ready .*\binterface={nic}\b", said)
        assert state(host)["capture"]["Health"] == "healthy"


def test_without_any_nic_the_capture_stays_up_and_says_so(host: Engine) -> None:
    down(host)
    _up(host, "capture")
    said = _said(host)
    assert re.search(r"source=af_packet not_dpdk=\"no NIC here is bound for DPDK", said)
    assert "no route tells which interface to watch" in said
    assert "this host has no" in said
    assert state(host)["capture"]["Health"] == "healthy"
    down(host)
