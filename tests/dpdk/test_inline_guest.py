# SPDX-License-Identifier: Apache-2.0
"""In a guest whose second NIC has the other end of the cable: a NIC bound to vfio-pci, inline, all probes above it."""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator
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
from tickpath.ring import RingReader
from traffic import noise

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        "tickpath.cable" not in Path("/proc/cmdline").read_text().split(),
        reason="only in a guest of make test-vm that has a NIC to give away",
    ),
    pytest.mark.timeout(960),
]

_OURS, _FAR = "10.78.0.2", "10.78.0.1"
_MESSAGES = 300
_BULK_BYTES = 2_000_000
_PATIENCE_S = 240.0
# In all, for a test. How long TCP is silent says nothing: it tries again after as long as it has waited already, so
# that a slow start of who forwards is followed by as much silence.
_LONG_S = 900.0
_RESULTS = Path("/results")


def _wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {_PATIENCE_S:g} s"
        time.sleep(0.2)


def _run(command: str) -> str:
    return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout


# What compose.dpdk.yaml gives the capture, and no more: capabilities, a read-only /sys, the usual limit `memlock`.
_CAPABILITIES = "-all,+ipc_lock,+net_admin,+net_raw,+sys_ptrace"
_CONTAINED = [
    *("unshare", "--mount", "--propagation", "private", "sh", "-euc"),
    *('mount --bind /sys /sys; mount -o remount,bind,ro /sys; exec "$@"', "sh", "prlimit", "--memlock=8388608"),
    *("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={_CAPABILITIES}", "--pdeathsig", "KILL"),
]


class _Process:
    """A tickpath of ours, ended with the test."""

    def __init__(self, folder: Path, name: str, *arguments: str, contained: bool = False) -> None:
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        before = _CONTAINED if contained else ["setpriv", "--pdeathsig", "KILL"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*before, *tickpath(*arguments, "--directory", str(folder / "rings"))],
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
        return _Process(folder, "capture", "capture", "dpdk", *flags, *more, contained=True)

    def told(self, folder: Path, *captures: _Process) -> str:
        """Who lost what, as each on the way counts it: for a test that fails."""
        lines = [capture.said for capture in captures]
        for ring in sorted((folder / "rings").glob("dpdk-*.ring")):
            with RingReader(ring) as reader:
                lines += [f"{counter.name} {value}" for counter, value in reader.counters().items() if value]
        lines += [self.far.run(*shlex.split(command)) for command in ("ip -s link show far", "ss -tino", "nstat -as")]
        lines += [_run(command) for command in (f"ip -s link show {TAP}", "ss -tino", "nstat -as")]
        # A processor whose timer is dead, or an interrupt that nobody got, is the emulator's fault.
        lines += [Path("/proc/interrupts").read_text(), _run("dmesg")[-4000:]]
        return "\n".join(lines)


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
    capture = host.capture(tmp_path, "--memory", "none")
    kernel = _Process(tmp_path, "kernel", "probe", "kernel", "--port", str(PORT))
    # A probe's processor may stand still for longer than a message waits by itself.
    patient = ("--window-ms", "60000")
    exporter = _Process(tmp_path, "exporter", "exporter", "--listen", "127.0.0.1:18064", *patient)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def summary() -> dict[str, Any]:
        """Empty: there was no answer in time."""
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
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(summary())
        return found.get("messages") == _MESSAGES and found["pending"] == 0

    _wait(over, f"all messages ({feed.said})")
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


def test_the_owner_of_a_port_is_named_in_a_container_too(host: Host, tmp_path: Path) -> None:
    """Its list of processes is its own; VFIO tells that there is an owner, the host's list who it is."""
    hosts = tmp_path / "proc"
    hosts.mkdir()
    group = Path("/dev/vfio") / Path(f"/sys/bus/pci/devices/{host.nic}/iommu_group").resolve().name
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-euc"]
    apart += [f'mount --bind /proc {hosts}; exec unshare --pid --fork --mount-proc "$@"', "sh", *_CONTAINED]
    ask = [*apart, *tickpath("capture", "dpdk", "--device", host.nic, "--directory", str(tmp_path / "rings"))]
    hold = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", f"exec 3<>{group}; echo held; exec sleep infinity"]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout
            assert owner.stdout.readline() == "held\n"
            asked = [
                subprocess.Popen([*ask, *more], stderr=subprocess.PIPE, text=True)
                for more in (["--proc", str(hosts)], [])
            ]
            seen, unseen = (one.communicate(timeout=_PATIENCE_S)[1] for one in asked)
        finally:
            owner.kill()
    assert f"{host.nic} is in use by process {owner.pid} (sleep)" in seen, seen
    assert (
        f"in use by a process that cannot be seen from here: a port has one owner; on the host, `fuser -v {group}`"
        in unseen
    )


def _table(summary: dict[str, Any]) -> str:
    lines = [f"{'hop':<16}{'messages':>10}{'P50':>12}{'P99':>12}  stamped by"]
    for hop in HOPS:
        figures = summary["hops"].get(hop, {"count": 0, "p50_ns": None, "p99_ns": None})
        times = [f"{figures[q] / 1000:.0f} us" if figures[q] is not None else "-" for q in ("p50_ns", "p99_ns")]
        lines.append(f"{hop:<16}{figures['count']:>10}{times[0]:>12}{times[1]:>12}  {figures.get('source', '')}")
    return "\n".join(lines) + "\n"


class _Transfer:
    """Bytes on their way from one socket to another, which take as long as they take."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
        self._data = data
        self._sender, self._receiver = sender, receiver
        self._got = bytearray()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the other side says what did not come
            self._sender.sendall(self._data)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._got) < len(self._data) and (more := self._receiver.recv(1 << 20)):
                self._got += more

    def whole(self, deadline: float, told: Callable[[], str]) -> None:
        """Assert that all of it comes until then, as it was; `told` says what else is to be known when it does not."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        assert ended, f"{len(self._got)} of {len(self._data)} bytes\n{told()}"
        assert hashlib.sha256(self._got).digest() == hashlib.sha256(self._data).digest(), told()


def test_bulk_in_large_frames_is_whole_and_a_connection_lives_through_the_death_of_who_forwards(
    host: Host, tmp_path: Path
) -> None:
    deadline = time.monotonic() + _LONG_S
    data = noise(_BULK_BYTES)
    # QEMU's e1000e sends no frame whose buffer lies in pages apart, and says nothing of it.
    large = ("--mtu", "9000", "--buffers", "4096", "--memory", "huge")
    captures = [host.capture(tmp_path, *large)]
    captures[0].ready()
    _addressed()

    def told() -> str:
        return host.told(tmp_path, *captures)

    with host.far.entered():
        listening = socket.create_server((_FAR, PORT))
    listening.settimeout(_PATIENCE_S)
    with (
        listening,
        socket.create_connection((_FAR, PORT), timeout=_PATIENCE_S) as client,
        listening.accept()[0] as server,
    ):
        client.settimeout(None)
        server.settimeout(None)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 8000
        _Transfer(client, server, data).whole(deadline, told)
        captures[0].kill()
        back = _Transfer(server, client, data)
        captures.append(host.capture(tmp_path, *large))
        captures[1].ready()
        back.whole(deadline, told)
    assert captures[1].stop() == 0, told()
    assert not re.search(r"missed=[1-9]", captures[1].said), told()
    _run(f"ip link delete {TAP}")
