# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe wire` over real TCP: every byte captured once, kills and vanishing interfaces survived, nothing silent."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from netns import Namespace, Shuttle, veth
from wire.capturing import Capturing, Reader, wait_until

from tickpath.event import Counter, Kind, RowFlag, SegmentFlag, Source
from tickpath.probes.wire.selector import Selector

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and captures frames: root only"),
]
COMMAND = [sys.executable, "-m", "tickpath", "probe", "wire"]
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_RECV_QUEUE, REPAIR_OFF_NO_PROBE = 19, 20, 21, 1, -1


@dataclass
class Probe:
    """A probe process inside a namespace."""

    process: subprocess.Popen[bytes]
    log: Path

    def ready(self, times: int = 1) -> None:
        wait_until(lambda: self.log.read_text().count("event=ready") >= times, what=f"ready in {self.log.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture
def probes(tmp_path: Path) -> Iterator[Probes]:
    started = Probes(tmp_path)
    yield started
    started.close()


class Probes:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Probe] = []

    def start(self, namespace: Namespace, *flags: str) -> Probe:
        log = self.directory / f"log{len(self._started)}"
        argv = [*COMMAND, "--directory", str(self.directory), "--log-format", "logfmt", *flags]
        with log.open("wb") as out:
            probe = Probe(namespace.popen(argv, stderr=out), log)
        self._started.append(probe)
        return probe

    def reader(self, interface: str) -> Reader:
        return Reader(self.directory / f"wire-{interface}.ring")

    def close(self) -> None:
        for probe in self._started:
            probe.process.kill()
            probe.process.wait()


def connect(server_side: Namespace, client_side: Namespace, address: str) -> tuple[socket.socket, socket.socket]:
    """A connection: the end that sends (the peer), and the end on the captured host."""
    with server_side.entered(), socket.create_server((address, 0), family=_family(address)) as listener:
        port = listener.getsockname()[1]
        with client_side.entered():
            client = socket.create_connection((address, port), timeout=10)
        server, _ = listener.accept()
    return server, client


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def transfer(server: socket.socket, client: socket.socket, total: int) -> None:
    sender = threading.Thread(target=server.sendall, args=(bytes(total),))
    sender.start()
    left = total
    while left:
        got = len(client.recv(1 << 16))
        assert got
        left -= got
    sender.join()


def coverage(segments: np.ndarray, irs: int) -> np.ndarray:
    """How often each byte of the stream was captured."""
    offsets = (segments["segment"]["seq"].astype(np.int64) - irs - 1) % (1 << 32)
    lengths = segments["segment"]["length"].astype(np.int64)
    data = lengths > 0
    seen = np.zeros(int((offsets + lengths)[data].max()), np.int32)
    for offset, length in zip(offsets[data], lengths[data], strict=True):
        seen[offset : offset + length] += 1
    return seen


def irs_of(client: socket.socket, received: int) -> int:
    """The peer's initial sequence number as the kernel's own repair mode tells it."""
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)
    (next_seq,) = struct.unpack("=I", client.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, 4))
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE)
    return (next_seq - received - 1) % (1 << 32)


class TestOverAWire:
    pytestmark = needs_root

    @pytest.mark.parametrize("address", ["10.78.0.1", "fd78::1"])
    def test_every_byte_is_captured_once_and_offsets_are_exact(self, address: str, tmp_path: Path) -> None:
        total = 400_000
        with Namespace() as peer, Namespace() as host:
            veth(peer, host)
            peer.address("veth0", "10.78.0.1/24", "fd78::1/64")
            host.address("veth0", "10.78.0.2/24", "fd78::2/64")
            with peer.entered(), socket.create_server((address, 0), family=_family(address)) as listener:
                port = listener.getsockname()[1]
                with Capturing(tmp_path, "veth0", [Selector(port)], host).start() as capture:
                    with host.entered():
                        client = socket.create_connection((address, port), timeout=10)
                    server, _ = listener.accept()
                    with server, client:
                        transfer(server, client, total)
                        irs = irs_of(client, total)
                        capture.stop()
            segments = capture.reader.of(Kind.SEGMENT)
            assert (coverage(segments, irs) == 1).all()
            assert len(coverage(segments, irs)) == total
            row = capture.reader.ring.rows()[int(segments["row"][0])]
            assert row["flags"] & RowFlag.HAS_IRS
            assert row["irs"] == irs
            assert capture.reader.count(Counter.FRAMES_DROPPED) == 0
            assert not (segments["flags"] & SegmentFlag.MERGED).any()

    def test_loopback_frames_are_seen_once_on_their_way_in(self, tmp_path: Path, probes: Probes) -> None:
        total = 300_000
        with Namespace() as host:
            with host.entered():
                listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            probe = probes.start(host, "--interface", "lo", "--port", str(port))
            probe.ready()
            reader = probes.reader("lo")
            with host.entered():
                client = socket.create_connection(("127.0.0.1", port), timeout=10)
            server, _ = listener.accept()
            with listener, server, client:
                transfer(server, client, total)
                irs = irs_of(client, total)
            assert probe.stop() == 0
        segments = reader.of(Kind.SEGMENT)
        seen = coverage(segments, irs)
        assert len(seen) == total
        assert (seen == 1).all()
        assert (segments["segment"]["length"] > 1500).any()  # the sender's own large frames: nobody merged them
        assert not (segments["flags"] & SegmentFlag.MERGED).any()
        assert (segments["source"] == Source.SW).all()
        assert len(reader.of(Kind.BYE)) == 1
        assert "event=stopped" in probe.log.read_text()

    def test_frames_merged_by_gro_are_flagged_and_set_apart(self, tmp_path: Path) -> None:
        with Namespace() as peer, Namespace() as host:
            near, far = peer.tap("tap0"), host.tap("tap0", napi=True)
            try:
                peer.address("tap0", "10.78.1.1/24")
                host.address("tap0", "10.78.1.2/24")
                # A sysfs of the namespace: the flush is put off, so that what comes within it merges.
                host.run(
                    "unshare", "--mount", "sh", "-c",
                    "mount -t sysfs sysfs /sys && echo 20000000 > /sys/class/net/tap0/gro_flush_timeout"
                    " && echo 1000 > /sys/class/net/tap0/napi_defer_hard_irqs",
                )  # fmt: skip
                shuttle = Shuttle(near, far)
                server, client = self._merging(peer, host, tmp_path)
                shuttle.close()
            finally:
                os.close(near)
                os.close(far)
        assert server
        assert client

    def _merging(self, peer: Namespace, host: Namespace, tmp_path: Path) -> tuple[bool, bool]:
        with peer.entered(), socket.create_server(("10.78.1.1", 0)) as listener:
            port = listener.getsockname()[1]
            with Capturing(tmp_path, "tap0", [Selector(port)], host).start() as capture:
                with host.entered():
                    client = socket.create_connection(("10.78.1.1", port), timeout=10)
                server, _ = listener.accept()
                with server, client:
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    transfer(server, client, 200_000)
                    irs = irs_of(client, 200_000)
                capture.stop()
        segments = capture.reader.of(Kind.SEGMENT)
        merged = segments[(segments["flags"] & SegmentFlag.MERGED) != 0]
        plain = segments[(segments["flags"] & SegmentFlag.MERGED) == 0]
        assert len(merged)
        assert (merged["source"] == Source.SW_GRO).all()
        assert (merged["segment"]["segments"] >= 2).all()
        assert (merged["segment"]["length"] <= 1460 * merged["segment"]["segments"].astype(int)).all()
        assert (merged["segment"]["length"] > 1448 * (merged["segment"]["segments"].astype(int) - 1)).all()
        assert (plain["segment"]["length"] <= 1460).all()
        assert (plain["source"] == Source.SW).all()
        assert (coverage(segments, irs) >= 1).all()
        return True, True
