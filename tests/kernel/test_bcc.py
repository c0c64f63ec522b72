# SPDX-License-Identifier: Apache-2.0
"""Attempts to connect as bcc tells of them: TICKPATH_KERNEL_RUNG=bcc, in guests."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.connecting import connect, took_at_once
from kernel.tracing import PATIENCE_S, RUNG, Tracing, traced
from netns import Namespace, Shuttle
from tickpath.event import ConnectResult, Counter, Kind, RowFlag, RowState
from tickpath.selector import Selector, packed
from wire.capturing import wait_until

pytestmark = pytest.mark.skipif(RUNG != "bcc", reason="asks bcc, with TICKPATH_KERNEL_RUNG=bcc")

NEAR, FAR = {4: "10.9.0.1", 6: "fd09::1"}, {4: "10.9.0.2", 6: "fd09::2"}
SILENT, NOWHERE = "10.97.0.1", "10.99.0.1"
OPEN_PORT, CLOSED_PORT, OTHER_PORT = 8001, 8002, 8003
USER_TIMEOUT = 18
DELAY_SECONDS = 0.03


class _Network:
    """Two namespaces joined by a shuttle that holds every frame to the near one for a while."""

    def __init__(self) -> None:
        self.near, self.far = Namespace(), Namespace()
        self.held_ns = 0
        self._ports: set[int] = set()
        self._taps = self.near.tap("t0"), self.far.tap("t0")
        self._shuttle = Shuttle(*self._taps, self._carry)
        for namespace, addresses in ((self.near, NEAR), (self.far, FAR)):
            namespace.address("t0", f"{addresses[4]}/24", f"{addresses[6]}/64")
        self.near.ip("route", "add", "default", "via", FAR[4])
        self.far.ip("route", "add", "unreachable", NOWHERE)
        self.far.ip("route", "add", "blackhole", SILENT)
        self.far.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
        with self.far.entered():
            self.listening = socket.create_server(("::", OPEN_PORT), family=socket.AF_INET6, dualstack_ipv6=True)

    def _carry(self, side: int, frame: bytes) -> list[bytes]:
        if side == 1 and self.held_ns == 0:
            before_ns = time.monotonic_ns()
            time.sleep(DELAY_SECONDS)
            self.held_ns = time.monotonic_ns() - before_ns
        return [frame]

    def socket(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        with self.near.entered():
            made = socket.socket(family)
        # Bound first, so that an attempt can be found by what it came from: a port that none before it had.
        made.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        port = made.getsockname()[1]
        if port in self._ports:
            made.close()
            return self.socket(family)
        self._ports.add(port)
        return made

    def close(self) -> None:
        self._shuttle.close()
        self.listening.close()
        for tap in self._taps:
            os.close(tap)
        self.near.close()
        self.far.close()


@pytest.fixture(scope="module")
def network() -> Iterator[_Network]:
    made = _Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def tracing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracing]:
    """One for all: bcc takes long to compile."""
    selectors = [Selector(OPEN_PORT), Selector(CLOSED_PORT, packed(FAR[4])), Selector(CLOSED_PORT, packed(SILENT))]
    selectors += [Selector(CLOSED_PORT, packed(NOWHERE))]
    with Tracing(tmp_path_factory.mktemp("bcc"), selectors, connects_only=True) as made:
        yield made


def _told(tracing: Tracing, local_port: int) -> tuple[Any, Any]:
    """The only record of the attempt from that port, and its row."""

    def found() -> list[tuple[Any, Any]]:
        records = tracing.reader.of(Kind.CONNECT)
        rows = [tracing.reader.ring.row(int(record["row"])) for record in records]
        pairs = zip(records, rows, strict=True)
        return [(record, row) for record, row in pairs if row is not None and row["local_port"] == local_port]

    wait_until(lambda: len(found()) > 0, what="CONNECT")
    (one,) = found()
    assert tracing.count(Counter.EVENTS_LOST) == 0
    return one


def _result(record: Any) -> tuple[ConnectResult, str | None]:
    connect = record["connect"]
    return ConnectResult(int(connect["result"])), errno.errorcode.get(int(connect["error"]))


@traced
def test_bcc_serves_the_attempts_alone_and_says_why_no_more(tracing: Tracing) -> None:
    assert tracing.modes == {"readable": "none", "copied": "none", "state": "bcc", "asked": "none"}


@traced
@pytest.mark.parametrize("family", ["IPv4", "IPv6", "v4-mapped"])
def test_a_connect_lasts_as_long_as_the_peer_and_the_wire_took(
    tracing: Tracing, network: _Network, family: str
) -> None:
    version = 6 if family == "IPv6" else 4
    address = f"::ffff:{FAR[4]}" if family == "v4-mapped" else FAR[version]
    with network.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6) as near:
        network.held_ns = 0
        before_ns = time.monotonic_ns()
        assert connect(near, address, OPEN_PORT, blocking=True) is None
        took_ns = time.monotonic_ns() - before_ns
        far, _ = network.listening.accept()
        far.close()
        record, row = _told(tracing, near.getsockname()[1])
        assert _result(record) == (ConnectResult.OPENED, None)
        assert network.held_ns <= record["connect"]["latency_ns"] <= took_ns
        assert before_ns + record["connect"]["latency_ns"] <= record["time_ns"] <= before_ns + took_ns
        assert record["connect"]["pid"] == os.getpid()
        assert bytes(row["comm"]).decode() == Path("/proc/thread-self/comm").read_text().strip()
        assert record["connect"]["family"] == version
        assert (row["local"].tobytes(), row["remote"].tobytes()) == (packed(NEAR[version]), packed(FAR[version]))
        assert row["remote_port"] == OPEN_PORT
        # What bcc cannot know is said to be unknown.
        assert (record["connect"]["cookie"], row["cookie"], row["netns"]) == (0, 0, 0)
        assert not row["flags"] & RowFlag.HAS_IRS
        assert row["state"] == RowState.CLOSED


@traced
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        (FAR[4], (ConnectResult.REFUSED, "ECONNREFUSED")),
        (NOWHERE, (ConnectResult.UNREACHABLE, "EHOSTUNREACH")),
    ],
    ids=["refused", "unreachable"],
)
def test_a_failure_has_the_error_that_the_application_saw(
    tracing: Tracing, network: _Network, address: str, wanted: tuple[ConnectResult, str], blocking: bool
) -> None:
    with network.socket() as near:
        port = near.getsockname()[1]
        assert connect(near, address, CLOSED_PORT, blocking=blocking) == wanted[1]
        assert _result(_told(tracing, port)[0]) == wanted


@traced
@pytest.mark.parametrize(
    ("address", "failed", "error"),
    [(FAR[4], ConnectResult.REFUSED, "ECONNREFUSED"), (NOWHERE, ConnectResult.UNREACHABLE, "EHOSTUNREACH")],
    ids=["refused", "unreachable"],
)
def test_whose_error_is_taken_at_once_has_not_aborted(
    tracing: Tracing, network: _Network, address: str, failed: ConnectResult, error: str
) -> None:
    for _ in range(20):
        with network.socket() as near:
            near.setblocking(False)
            assert near.connect_ex((address, CLOSED_PORT)) == errno.EINPROGRESS
            taking = took_at_once(near)
            record, _row = _told(tracing, near.getsockname()[1])
            taking.join()
            assert taking.exitcode == getattr(errno, error)
            assert _result(record) in {(failed, error), (ConnectResult.OTHER, None)}


@traced
def test_without_an_answer_it_timed_out(tracing: Tracing, network: _Network) -> None:
    with network.socket() as near:
        port = near.getsockname()[1]
        near.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, 300)
        assert connect(near, SILENT, CLOSED_PORT, blocking=True) == "ETIMEDOUT"
        record, _ = _told(tracing, port)
        assert _result(record) == (ConnectResult.TIMED_OUT, "ETIMEDOUT")
        assert record["connect"]["latency_ns"] >= 300_000_000


def _disconnected(near: socket.socket) -> None:
    assert ctypes.CDLL(None).connect(near.fileno(), bytes(16), 16) == 0  # AF_UNSPEC


@traced
@pytest.mark.parametrize(
    "given_up",
    [socket.socket.close, lambda near: near.shutdown(socket.SHUT_RDWR), _disconnected],
    ids=["closed", "shut down", "disconnected"],
)
def test_what_its_owner_gives_up_is_aborted(
    tracing: Tracing, network: _Network, given_up: Callable[[socket.socket], None]
) -> None:
    with network.socket() as near:
        port = near.getsockname()[1]
        near.setblocking(False)
        assert near.connect_ex((SILENT, CLOSED_PORT)) == errno.EINPROGRESS
        given_up(near)
        assert _result(_told(tracing, port)[0]) == (ConnectResult.ABORTED, None)


@traced
def test_a_burst_is_told_whole_and_what_was_not_asked_for_is_not(tracing: Tracing, network: _Network) -> None:
    before = len(tracing.reader.of(Kind.CONNECT))

    def knock() -> None:
        for port in (OTHER_PORT, CLOSED_PORT):
            for _ in range(50):
                with network.socket() as near:
                    assert connect(near, FAR[4], port, blocking=True) == "ECONNREFUSED"

    threads = [threading.Thread(target=knock) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(tracing.reader.of(Kind.CONNECT)) >= before + 100, what="all attempts")
    tracing.stop()
    records = tracing.reader.of(Kind.CONNECT)[before:]
    assert len(records) == 100
    assert {_result(record) for record in records} == {(ConnectResult.REFUSED, "ECONNREFUSED")}
    assert tracing.count(Counter.EVENTS_LOST) == 0


@traced
def test_where_the_kernel_has_no_types_connlat_tells_by_bcc() -> None:
    # To this one process alone the kernel's types are hidden.
    hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", hidden, "sh", sys.executable, "-P", "-m", "tickpath", "connlat", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            said = []
            for line in child.stderr:
                said.append(line)
                if "event=ready" in line:
                    break
            assert "event=no_types" in "".join(said)
            assert "mode=bcc" in said[-1]
            with socket.socket() as near:
                near.bind(("127.0.0.1", 0))
                assert connect(near, "127.0.0.1", CLOSED_PORT, blocking=True) == "ECONNREFUSED"
                port = near.getsockname()[1]
            child.send_signal(signal.SIGINT)
            shown = [json.loads(line) for line in child.communicate(timeout=PATIENCE_S)[0].splitlines()]
            mine = [one for one in shown if one["local_port"] == port]
            assert [(one["result"], one["error"], one["pid"]) for one in mine] == [
                ("refused", "ECONNREFUSED", os.getpid())
            ]
            assert child.returncode == 0
        finally:
            child.kill()


@traced
def test_types_from_a_file_serve_better_than_bcc(tmp_path: Path) -> None:
    types = tmp_path / "types"
    shutil.copyfile("/sys/kernel/btf/vmlinux", types)
    hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", hidden, "sh", sys.executable, "-P", "-m", "tickpath", "probe", "kernel"]
    command += ["--rung", "auto", "--btf", str(types), "--directory", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            assert "readable=kprobe" in next(line for line in child.stderr if "event=ready" in line)
        finally:
            child.kill()
