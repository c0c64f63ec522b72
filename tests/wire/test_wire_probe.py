# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe wire` over real TCP: every byte captured, kills and vanishing interfaces survived, nothing silent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from netns import Namespace, Policy, Shuttle, veth
from tickpath.event import Counter, Kind, RowFlag, SegmentFlag, Source
from tickpath.selector import Selector
from wire.capturing import Capturing, Reader, wait_until

COMMAND = [sys.executable, "-m", "tickpath", "probe", "wire"]
_TCPI_UNACKED, _TCPI_DATA_SEGS_OUT, _TCPI_BYTES_SENT = 24, 156, 200  # linux/tcp.h, struct tcp_info
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_RECV_QUEUE, REPAIR_OFF_NO_PROBE = 19, 20, 21, 1, -1


def root(test: Callable[..., None]) -> Callable[..., None]:
    reason = "makes network namespaces and captures frames: root only"
    return pytest.mark.root(pytest.mark.skipif(os.geteuid() != 0, reason=reason)(test))


@dataclass
class Probe:
    """A probe process inside a namespace."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def ready(self, times: int = 1) -> None:
        wait_until(lambda: self.said().count("event=ready") >= times, 60, f"event=ready (it said: {self.said()})")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Probes:
    """Probe processes with one ring directory, all ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Probe] = []

    def start(self, namespace: Namespace, *flags: str, prefix: Sequence[str] = ()) -> Probe:
        log = self.directory / f"log{len(self._started)}"
        argv = [*prefix, *COMMAND, "--directory", str(self.directory), "--log-format", "logfmt", *flags]
        with log.open("wb") as out:
            self._started.append(Probe(namespace.popen(argv, stderr=out), log))
        return self._started[-1]

    def reader(self, interface: str) -> Reader:
        return Reader(self.directory / f"wire-{interface}.ring")

    def close(self) -> None:
        for probe in self._started:
            probe.process.kill()
            probe.process.wait()


@pytest.fixture
def probes(tmp_path: Path) -> Iterator[Probes]:
    started = Probes(tmp_path)
    yield started
    started.close()


@contextlib.contextmanager
def listening(namespace: Namespace, address: str) -> Iterator[socket.socket]:
    with namespace.entered():
        listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    with listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@contextlib.contextmanager
def connected(
    listener: socket.socket, host: Namespace, local_port: int = 0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the end that sends, and the end on the captured host."""
    with host.entered():
        client = socket.socket(listener.family, socket.SOCK_STREAM)
        client.settimeout(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if local_port:
            client.bind(("", local_port))
        client.connect(listener.getsockname()[:2])
    server, _ = listener.accept()
    with server, client:
        yield server, client


@contextlib.contextmanager
def capturing(
    directory: Path, host: Namespace, interface: str, listener: socket.socket, name: str = "host"
) -> Iterator[Capturing]:
    """Capture what comes from the listener's port."""
    with Capturing(directory / name, interface, [Selector(port_of(listener))], host).start() as capture:
        yield capture


@contextlib.contextmanager
def tap_wire(
    *, napi: bool = False, policy: Policy = lambda _, frame: [frame]
) -> Iterator[tuple[Namespace, Namespace, Shuttle]]:
    """Two hosts, 10.78.1.1 the peer, joined by TAPs and a shuttle. `napi`: the captured host's side merges by GRO."""
    with Namespace() as peer, Namespace() as host:
        near, far = peer.tap("tap0"), host.tap("tap0", napi=napi)
        try:
            peer.address("tap0", "10.78.1.1/24")
            host.address("tap0", "10.78.1.2/24")
            shuttle = Shuttle(near, far, policy)
            try:
                yield peer, host, shuttle
            finally:
                shuttle.close()
        finally:
            os.close(near)
            os.close(far)


@dataclass(frozen=True)
class Sent:
    """What a sender's kernel says it put on the wire, which includes what it sent again: a busy host makes it do so."""

    segments: int
    data_bytes: int


def sent(server: socket.socket) -> Sent:
    """Once all is acknowledged: nothing is sent again then."""

    def told(at: int, form: str = "=I") -> int:
        info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
        return int(struct.unpack_from(form, info, at)[0])

    wait_until(lambda: told(_TCPI_UNACKED) == 0, what="acknowledgement")
    return Sent(told(_TCPI_DATA_SEGS_OUT), told(_TCPI_BYTES_SENT, "=Q"))


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


def reset(client: socket.socket) -> None:
    """Close with RST, so that its port is free at once."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()


@root
@pytest.mark.parametrize("address", ["10.78.0.1", "fd78::1"])
def test_every_byte_is_captured_once_and_offsets_are_exact(address: str, tmp_path: Path) -> None:
    total = 400_000
    with Namespace() as peer, Namespace() as host:
        veth(peer, host)
        peer.address("veth0", "10.78.0.1/24", "fd78::1/64")
        host.address("veth0", "10.78.0.2/24", "fd78::2/64")
        with listening(peer, address) as listener, capturing(tmp_path, host, "veth0", listener) as capture:
            with connected(listener, host) as (server, client):
                transfer(server, client, total)
                irs = irs_of(client, total)
                data_bytes = sent(server).data_bytes
            capture.stop()
            segments = capture.reader.of(Kind.SEGMENT)
            seen = coverage(segments, irs)
            assert len(seen) == total
            assert (seen >= 1).all()
            assert seen.sum() == data_bytes, "each as often as it was sent"
            row = capture.reader.ring.rows()[int(segments["row"][0])]
            assert row["flags"] & RowFlag.HAS_IRS
            assert row["irs"] == irs
            assert capture.reader.count(Counter.FRAMES_DROPPED) == 0
            assert not (segments["flags"] & SegmentFlag.MERGED).any()  # veth hands the sender's own frames on


@root
def test_loopback_frames_are_seen_once_on_their_way_in(probes: Probes) -> None:
    total = 300_000
    with Namespace() as host, listening(host, "127.0.0.1") as listener:
        probe = probes.start(host, "--interface", "lo", "--port", str(port_of(listener)))
        probe.ready()
        reader = probes.reader("lo")
        with connected(listener, host) as (server, client):
            transfer(server, client, total)
            irs = irs_of(client, total)
            data_bytes = sent(server).data_bytes
        assert probe.stop() == 0
        segments = reader.of(Kind.SEGMENT)
        seen = coverage(segments, irs)
        assert len(seen) == total
        assert (seen >= 1).all()
        assert seen.sum() == data_bytes, "each frame once, not going out and coming in"
        assert (segments["segment"]["length"] > 1500).any()  # the sender's own large frames: nobody merged them
        assert not (segments["flags"] & SegmentFlag.MERGED).any()
        assert (segments["source"] == Source.SW).all()
        assert len(reader.of(Kind.BYE)) == 1
        assert "event=stopped" in probe.said()


@root
@pytest.mark.parametrize("wire", ["loopback", "veth"])
def test_each_stamp_lies_between_sending_and_receiving(wire: str, tmp_path: Path) -> None:
    with Namespace() as peer, Namespace() as host:
        veth(peer, host)
        peer.address("veth0", "10.78.0.1/24")
        host.address("veth0", "10.78.0.2/24")
        where, address, interface = (host, "127.0.0.1", "lo") if wire == "loopback" else (peer, "10.78.0.1", "veth0")
        truth = []
        with listening(where, address) as listener, capturing(tmp_path, host, interface, listener) as capture:
            with connected(listener, host) as (server, client):
                for _ in range(50):
                    before_ns = time.time_ns()
                    server.send(b"x" * 300)
                    assert len(client.recv(300, socket.MSG_WAITALL)) == 300
                    truth.append((before_ns, time.time_ns()))
            capture.stop()
            segments = capture.reader.of(Kind.SEGMENT)
        data = segments[segments["segment"]["length"] > 0]
        # Of what was sent again, the first.
        stamps = data["time_ns"][np.unique(data["segment"]["seq"] - data["segment"]["seq"][0], return_index=True)[1]]
        assert len(stamps) == len(truth)
        assert all(before <= stamp <= after for stamp, (before, after) in zip(stamps, truth, strict=True))


@root
def test_frames_merged_by_gro_are_flagged_and_set_apart(tmp_path: Path) -> None:
    total = 200_000
    with tap_wire(napi=True) as (peer, host, _), listening(peer, "10.78.1.1") as listener:
        # The flush is put off, so that what comes meanwhile merges. Only a sysfs mounted inside shows the device.
        settings = "echo 20000000 > /sys/class/net/tap0/gro_flush_timeout"
        settings += " && echo 1000 > /sys/class/net/tap0/napi_defer_hard_irqs"
        host.run("unshare", "--mount", "sh", "-c", f"mount -t sysfs sysfs /sys && {settings}")
        with capturing(tmp_path, host, "tap0", listener) as capture:
            with connected(listener, host) as (server, client):
                transfer(server, client, total)
                irs = irs_of(client, total)
            capture.stop()
            segments = capture.reader.of(Kind.SEGMENT)
    assert (coverage(segments, irs) >= 1).all()
    is_merged = (segments["flags"] & SegmentFlag.MERGED) != 0
    merged, plain = segments[is_merged], segments[~is_merged]
    count, length = merged["segment"]["segments"].astype(int), merged["segment"]["length"]
    assert len(merged)
    assert (merged["source"] == Source.SW_GRO).all()
    assert (count >= 2).all()
    assert (length <= 1460 * count).all()
    assert (length > 1448 * (count - 1)).all()
    assert (plain["segment"]["length"] <= 1460).all()
    # One that no flag sends on at once may have waited for others.
    held = (plain["segment"]["length"] > 0) & (plain["segment"]["tcp_flags"] & 0x2F == 0)
    assert (plain["source"][held] == Source.SW_GRO).all()
    assert (plain["source"][~held] == Source.SW).all()


@root
def test_what_is_sent_again_is_captured_again(tmp_path: Path) -> None:
    total, losses = 200_000, iter([True] * 5)
    due = [20, 30, 40, 50, 60]

    def lossy(side: int, frame: bytes) -> list[bytes]:
        if side == 0 and len(frame) > 1000:
            due[:] = [left - 1 for left in due]
            if 0 in due and next(losses, False):
                return []
        return [frame]

    with (
        tap_wire(policy=lossy) as (peer, host, _),
        listening(peer, "10.78.1.1") as listener,
        capturing(tmp_path, peer, "tap0", listener, name="sender") as away,
        capturing(tmp_path, host, "tap0", listener) as capture,
    ):
        with connected(listener, host) as (server, client):
            transfer(server, client, total)
            irs = irs_of(client, total)
        capture.stop()
        away.stop()
        seen = coverage(capture.reader.of(Kind.SEGMENT), irs)
        assert next(losses, None) is None  # all were made
        assert len(seen) == total
        assert (seen >= 1).all()
        assert len(away.reader.of(Kind.SEGMENT)) == 0  # at the sender's own TAP its frames go out


@root
def test_a_port_used_again_is_another_connection(tmp_path: Path) -> None:
    truth, local = [], 0
    with (
        Namespace() as host,
        listening(host, "127.0.0.1") as listener,
        capturing(tmp_path, host, "lo", listener) as capture,
    ):
        for _ in range(3):
            with connected(listener, host, local_port=local) as (server, client):
                local = client.getsockname()[1]
                transfer(server, client, 1000)
                truth.append(irs_of(client, 1000))
                reset(client)
        capture.stop()
        opened = capture.reader.of(Kind.OPENED)["row"]
        rows = capture.reader.ring.rows()
        assert [int(rows[int(handle)]["irs"]) for handle in opened] == truth
        assert {int(rows[int(handle)]["local_port"]) for handle in opened} == {local}


@root
def test_a_killed_probe_leaves_a_ring_that_its_successor_goes_on_with(probes: Probes) -> None:
    with Namespace() as host, listening(host, "127.0.0.1") as listener:
        flags = ("--interface", "lo", "--port", str(port_of(listener)))
        first = probes.start(host, *flags)
        first.ready()
        reader = probes.reader("lo")
        with connected(listener, host) as (server, client):
            transfer(server, client, 1000)
            reader.wait(Kind.SEGMENT, 2)
            first.process.kill()
            first.process.wait()
            wait_until(lambda: not reader.ring.alive)
            probes.start(host, *flags).ready()
            assert reader.ring.alive
            before = len(reader.of(Kind.SEGMENT))
            transfer(server, client, 1000)
            segments = reader.wait(Kind.SEGMENT, before + 1)
        records = reader.all()
        assert list(np.diff(records["seq"])) == [1] * (len(records) - 1)
        old, new = int(segments["row"][0]), int(segments["row"][-1])
        assert old != new
        row = reader.ring.row(new)
        assert row is not None
        assert not row["flags"] & RowFlag.HAS_IRS  # joined midway: it does not pretend


@root
def test_ctrl_c_stops_it_cleanly_and_its_thread_stays_on_its_processor(probes: Probes) -> None:
    cpu = min(os.sched_getaffinity(0))
    with Namespace() as host:
        probe = probes.start(host, "--interface", "lo", "--cpu", str(cpu))
        probe.ready()
        reader = probes.reader("lo")
        tasks = list(Path(f"/proc/{probe.process.pid}/task").iterdir())
        assert {cpu} in [os.sched_getaffinity(int(task.name)) for task in tasks]
        probe.process.send_signal(signal.SIGINT)
        assert probe.process.wait(60) == 0
        assert len(reader.of(Kind.BYE)) == 1
        nowhere = probes.start(host, "--interface", "lo", "--cpu", "4000")
        assert nowhere.process.wait(60) == 2
        assert "cannot run on processor 4000" in nowhere.said()


@root
def test_once_its_ring_is_there_it_misses_no_handshake(probes: Probes) -> None:
    with Namespace() as host, listening(host, "127.0.0.1") as listener:
        probe = probes.start(host, "--interface", "lo", "--port", str(port_of(listener)))
        ring = probes.directory / "wire-lo.ring"
        wait_until(ring.exists, 60, "the ring")
        with connected(listener, host) as (server, client):
            transfer(server, client, 1000)
            irs = irs_of(client, 1000)
        probe.ready()
        reader = probes.reader("lo")
        wait_until(lambda: len(reader.ring.rows()) == 1)
        (row,) = reader.ring.rows().values()
        assert row["irs"] == irs


@root
def test_a_second_probe_of_an_interface_is_refused(probes: Probes) -> None:
    with Namespace() as host:
        probes.start(host, "--interface", "lo").ready()
        second = probes.start(host, "--interface", "lo")
        assert second.process.wait(60) == 1
        assert "Traceback" not in second.said()


@root
def test_a_stalled_probe_counts_what_the_kernel_dropped(probes: Probes) -> None:
    with Namespace() as host, listening(host, "127.0.0.1") as listener:
        probe = probes.start(
            host, "--interface", "lo", "--port", str(port_of(listener)), "--buffer-bytes", str(2 << 17)
        )  # fmt: skip
        probe.ready()
        reader = probes.reader("lo")
        with connected(listener, host) as (server, client):
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader.wait(Kind.SEGMENT, 1)
            probe.process.send_signal(signal.SIGSTOP)
            for _ in range(3000):
                server.send(b"x")
                client.recv(1)
            probe.process.send_signal(signal.SIGCONT)
            irs = irs_of(client, 3000)
            out = sent(server).segments
        assert probe.stop() == 0
        segments = reader.of(Kind.SEGMENT)
        missed = 3000 - int((coverage(segments, irs) > 0).sum())
        captured = int((segments["segment"]["length"] > 0).sum())
        # Beside the data only a handful of other frames (SYN-ACK, FIN, ACK) came in.
        assert missed <= reader.count(Counter.FRAMES_DROPPED)
        assert out - captured <= reader.count(Counter.FRAMES_DROPPED) <= out - captured + 10
        assert missed > 0


@root
def test_an_interface_that_goes_and_comes_is_captured_again(probes: Probes) -> None:
    with Namespace() as peer, Namespace() as host:
        veth(peer, host)
        peer.address("veth0", "10.78.0.1/24")
        host.address("veth0", "10.78.0.2/24")
        with listening(peer, "10.78.0.1") as listener:
            probe = probes.start(host, "--interface", "veth0", "--port", str(port_of(listener)))
            probe.ready()
            reader = probes.reader("veth0")
            with connected(listener, host) as (server, client):
                transfer(server, client, 1000)
                host.ip("link", "set", "veth0", "down")
                wait_until(lambda: "interface_unavailable" in probe.said())
                host.ip("link", "set", "veth0", "up")
                probe.ready(times=2)
                seen = len(reader.of(Kind.SEGMENT))
                transfer(server, client, 1000)
                reader.wait(Kind.SEGMENT, seen + 1)
            host.ip("link", "del", "veth0")
            wait_until(lambda: probe.said().count("interface_unavailable") == 2)
            veth(peer, host)
            peer.address("veth0", "10.78.0.1/24")
            host.address("veth0", "10.78.0.2/24")
            probe.ready(times=3)
            seen = len(reader.of(Kind.SEGMENT))
            with connected(listener, host) as (server, client):
                transfer(server, client, 1000)
                reader.wait(Kind.SEGMENT, seen + 1)
            assert reader.count(Counter.INTERFACE_LOST) == 2
            assert probe.stop() == 0


@root
def test_auto_follows_the_route_to_the_remote(probes: Probes) -> None:
    with Namespace() as peer, Namespace() as host:
        veth(peer, host, "up0")
        peer.address("up0", "10.78.0.1/24")
        host.address("up0", "10.78.0.2/24")
        probe = probes.start(host, "--remote", "10.78.0.1:443", "--remote", "127.0.0.1:443")
        probe.ready(times=2)
        assert {path.name for path in probes.directory.glob("*.ring")} == {"wire-up0.ring", "wire-lo.ring"}
        assert probe.stop() == 0
        lost = probes.start(host)
        assert lost.process.wait(60) == 69
        assert "no route tells which interface to watch; name one with --interface" in lost.said()


@root
def test_an_interface_that_does_not_exist_is_one_line(probes: Probes) -> None:
    with Namespace() as host:
        probe = probes.start(host, "--interface", "l0")
        assert probe.process.wait(60) == 2
        assert probe.said().strip() == "tickpath probe: no interface 'l0' here; is it lo?"


@root
def test_without_permission_one_line_tells_what_grants_it(probes: Probes) -> None:
    with Namespace() as host:
        probe = probes.start(host, "--interface", "lo", prefix=["setpriv", "--bounding-set", "-net_raw"])
        assert probe.process.wait(60) == 77
        line = probe.said().strip()
        assert line.startswith("tickpath probe: capturing on lo needs CAP_NET_RAW")
        assert "setpriv" in line
        assert "source sock" in line
        assert "\n" not in line
        assert not list(probes.directory.glob("*.ring"))
