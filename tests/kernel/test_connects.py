# SPDX-License-Identifier: Apache-2.0
"""What an attempt to connect came to, how long it took and who made it; and nothing of connections that came in."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from kernel.connecting import connect, took_at_once
from kernel.tracing import PATIENCE_S, Server, Tracing, cookie_of, traced
from netns import Namespace, Shuttle, veth
from tickpath.event import ConnectResult, Counter, Kind, RowFlag, RowState
from tickpath.selector import Selector, packed
from wire.capturing import wait_until

USER_TIMEOUT = 18
SYN = 0x02
DELAY_SECONDS = 0.03
# Addresses that the far end answers for, routes to nowhere, and forbids; and one that no answer comes from.
HERE = {4: "10.9.0.1", 6: "fd09::1"}
THERE = {4: "10.9.0.2", 6: "fd09::2"}
NOWHERE = {4: "10.99.0.1", 6: "fd99::1"}
FORBIDDEN = {4: "10.98.0.1", 6: "fd98::1"}
SILENT = {4: "10.97.0.1", 6: "fd97::1"}
# All of these are the near end's: a router answers each sender five times, then once a second (ip_error in net/ipv4).
SENDERS = "10.96.0.{}"


def _address(addresses: dict[int, str], family: str) -> str:
    return {"IPv4": addresses[4], "IPv6": addresses[6], "v4-mapped": f"::ffff:{addresses[4]}"}[family]


def _tcp_flags(frame: bytes) -> int:
    """Of an Ethernet frame without IP options; 0 for what is no TCP."""
    if frame[12:14] == b"\x08\x00" and frame[23] == 6:
        return frame[14 + 20 + 13]
    if frame[12:14] == b"\x86\xdd" and frame[20] == 6:
        return frame[14 + 40 + 13]
    return 0


class Network:
    """Two namespaces joined by a shuttle; `near` sends everything to `far`, which routes it as its address says."""

    def __init__(self) -> None:
        self.near, self.far = Namespace(), Namespace()
        self.policy: Callable[[int, bytes], list[bytes]] = lambda _, frame: [frame]
        self._taps = self.near.tap("t0"), self.far.tap("t0")
        self._shuttle = Shuttle(*self._taps, self._carry)
        self.near.address("t0", "10.9.0.1/24", "fd09::1/64")
        # A neighbour is asked for three times, a second apart else.
        self.near.run("sysctl", "-qw", "net.ipv4.neigh.t0.retrans_time_ms=50")
        self.far.address("t0", "10.9.0.2/24", "fd09::2/64")
        for version in (4, 6):
            self.near.ip(f"-{version}", "route", "add", "default", "via", THERE[version])
            for kind, addresses in (("unreachable", NOWHERE), ("prohibit", FORBIDDEN), ("blackhole", SILENT)):
                self.far.ip(f"-{version}", "route", "add", kind, addresses[version])
        self.near.ip("route", "add", "local", SENDERS.format("0/24"), "dev", "lo")
        self.far.ip("route", "add", SENDERS.format("0/24"), "via", HERE[4])
        self.far.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.far.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")

    def _carry(self, side: int, frame: bytes) -> list[bytes]:
        return self.policy(side, frame)

    def socket(self, family: str, *, options: dict[int, int] | None = None) -> socket.socket:
        with self.near.entered():
            made = socket.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6)
        for option, value in (options or {}).items():
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        cookie_of(made)  # a kprobe can give a socket none: it has one from being asked for it
        return made

    def server(self, family: str) -> Server:
        with self.far.entered():
            return Server(THERE[6 if family == "IPv6" else 4])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shuttle.close()
        for tap in self._taps:
            os.close(tap)
        self.near.close()
        self.far.close()


@pytest.fixture(scope="module")
def joined() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def network(joined: Network) -> Iterator[Network]:
    yield joined
    joined.policy = lambda _, frame: [frame]


@dataclass(frozen=True)
class Told:
    """The one record of an attempt, and its row."""

    record: Any
    row: Any

    @property
    def result(self) -> ConnectResult:
        return ConnectResult(int(self.record["connect"]["result"]))

    @property
    def error(self) -> str | None:
        return errno.errorcode.get(int(self.record["connect"]["error"]))

    @property
    def latency_ns(self) -> int:
        return int(self.record["connect"]["latency_ns"])


def _attempts(tracing: Tracing, cookie: int) -> Any:
    records = tracing.reader.of(Kind.CONNECT)
    return records[records["connect"]["cookie"] == cookie]


def told(tracing: Tracing, cookie: int) -> Told:
    def over() -> bool:
        return tracing.ended is not None or tracing.count(Counter.EVENTS_LOST) > 0

    wait_until(lambda: len(_attempts(tracing, cookie)) > 0 or over(), what="CONNECT")
    assert tracing.ended is None, "who fetches records has stopped"
    assert tracing.count(Counter.EVENTS_LOST) == 0
    (record,) = _attempts(tracing, cookie)
    row = tracing.reader.ring.row(int(record["row"]))
    assert row is not None
    return Told(record, row)


FAMILIES = pytest.mark.parametrize("family", ["IPv4", "IPv6", "v4-mapped"])
BLOCKING = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])


@traced
@FAMILIES
@BLOCKING
def test_a_connect_lasts_as_long_as_the_peer_and_the_wire_took(
    tmp_path: Path, network: Network, family: str, blocking: bool
) -> None:
    held_ns: list[int] = []

    def policy(side: int, frame: bytes) -> list[bytes]:
        if side == 1 and _tcp_flags(frame) & SYN:
            before_ns = time.monotonic_ns()
            time.sleep(DELAY_SECONDS)
            held_ns.append(time.monotonic_ns() - before_ns)
        return [frame]

    network.policy = policy
    with (
        network.server(family) as server,
        network.socket(family) as near,
        Tracing(tmp_path, [server.selector]) as tracing,
    ):
        before_ns = time.monotonic_ns()
        assert connect(near, _address(THERE, family), server.port, blocking=blocking) is None
        took_ns = time.monotonic_ns() - before_ns
        far, _ = server.listening.accept()
        with far:
            one = told(tracing, cookie_of(near))
            assert one.result is ConnectResult.OPENED
            assert one.error is None
            # The first of them: where everything is slow, another may be sent for nothing.
            assert held_ns[0] <= one.latency_ns <= took_ns
            assert before_ns + one.latency_ns <= one.record["time_ns"] <= before_ns + took_ns
            assert one.record["connect"]["pid"] == os.getpid()
            assert bytes(one.row["comm"]).decode() == Path("/proc/thread-self/comm").read_text().strip()
            assert one.record["connect"]["family"] == (6 if family == "IPv6" else 4)
            assert one.row["local"].tobytes() == packed(_address(HERE, family.replace("v4-mapped", "IPv4")))
            assert one.row["remote"].tobytes() == packed(_address(THERE, family.replace("v4-mapped", "IPv4")))
            assert (one.row["local_port"], one.row["remote_port"]) == (near.getsockname()[1], server.port)
            assert one.row["netns"] == network.near.inode
            assert one.row["state"] == RowState.OPEN
            assert one.row["flags"] & RowFlag.HAS_IRS
            (opened,) = tracing.of(Kind.OPENED, cookie_of(near))
            assert opened["row"] == one.record["row"], "an attempt that succeeded is its connection's"
            assert len(tracing.of(Kind.CONNECT, cookie_of(far))) == 0, "what was accepted was no attempt"


@traced
@FAMILIES
@BLOCKING
def test_what_is_refused_is_no_connection(tmp_path: Path, network: Network, family: str, blocking: bool) -> None:
    with network.server(family) as server:
        selector = server.selector
    with network.socket(family) as near, Tracing(tmp_path, [selector]) as tracing:
        assert connect(near, _address(THERE, family), selector.port, blocking=blocking) == "ECONNREFUSED"
        one = told(tracing, cookie_of(near))
        assert (one.result, one.error) == (ConnectResult.REFUSED, "ECONNREFUSED")
        assert one.record["connect"]["pid"] == os.getpid()
        assert one.row["state"] == RowState.CLOSED
        assert one.row["local_port"] > 0, "the port that it had, though it is given back by then"
        assert one.row["remote_port"] == selector.port
        assert len(tracing.of(Kind.OPENED, cookie_of(near))) == 0


@traced
@BLOCKING
@pytest.mark.parametrize(
    "answer",
    [
        (NOWHERE, "IPv4", "EHOSTUNREACH"),
        (NOWHERE, "IPv6", "ENETUNREACH"),
        (NOWHERE, "v4-mapped", "EHOSTUNREACH"),
        (FORBIDDEN, "IPv4", "EHOSTUNREACH"),
        (FORBIDDEN, "IPv6", "EACCES"),
    ],
    ids=["IPv4", "IPv6", "v4-mapped", "IPv4 forbidden", "IPv6 forbidden"],
)
def test_what_a_router_answers_for_is_unreachable(
    tmp_path: Path, network: Network, answer: tuple[dict[int, str], str, str], blocking: bool
) -> None:
    addresses, family, error = answer
    with network.socket(family) as near, Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        assert connect(near, _address(addresses, family), 80, blocking=blocking) == error
        one = told(tracing, cookie_of(near))
        assert (one.result, one.error) == (ConnectResult.UNREACHABLE, error)


@traced
@pytest.mark.parametrize("answer", [(THERE, "ECONNREFUSED"), (NOWHERE, "EHOSTUNREACH")], ids=["refused", "unreachable"])
def test_whose_error_is_taken_at_once_has_not_aborted(
    tmp_path: Path, network: Network, answer: tuple[dict[int, str], str]
) -> None:
    """The error may be gone before the socket steps, and with it why; that its owner did not give up remains."""
    addresses, error = answer
    failed = {"ECONNREFUSED": ConnectResult.REFUSED, "EHOSTUNREACH": ConnectResult.UNREACHABLE}[error]
    with Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        for number in range(1, 21):
            with network.socket("IPv4") as near:
                near.bind((SENDERS.format(number), 0))
                near.setblocking(False)
                assert near.connect_ex((addresses[4], 80)) == errno.EINPROGRESS
                taking = took_at_once(near)
                one = told(tracing, cookie_of(near))
                taking.join()
                assert taking.exitcode == getattr(errno, error)
                assert (one.result, one.error) in {(failed, error), (ConnectResult.OTHER, None)}


def _unreachables(namespace: Namespace) -> int:
    """How many ICMP messages of that kind it was sent."""
    names, values = (line.split() for line in namespace.run("cat", "/proc/net/snmp").splitlines() if "Icmp:" in line)
    return int(values[names.index("InDestUnreachs")])


@traced
def test_an_error_that_came_during_the_call_is_why_its_owner_gave_up(tmp_path: Path) -> None:
    """On one host the answer comes before connect returns: TCP only notes it, and goes on asking."""
    with Namespace() as near, Namespace() as far:
        veth(near, far)
        near.address("veth0", "10.9.0.1/24")
        far.address("veth0", "10.9.0.2/24")
        near.ip("route", "add", "default", "via", THERE[4])
        far.ip("route", "add", "unreachable", NOWHERE[4])
        far.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        with near.entered():
            trying = socket.socket()
        with trying, Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
            cookie = cookie_of(trying)
            trying.setblocking(False)
            assert trying.connect_ex((NOWHERE[4], 80)) == errno.EINPROGRESS
            wait_until(lambda: _unreachables(near) > 0, what="the answer, where its softirq was put off")
            trying.close()
            one = told(tracing, cookie)
            assert (one.result, one.error) == (ConnectResult.UNREACHABLE, "EHOSTUNREACH")


def _told_by_a_timer(tracing: Tracing, network: Network, attempt: Callable[[], int]) -> Told:
    """Of an attempt, by its socket's cookie, that a timer ended. There are kernels that run no BPF program over some
    processes of theirs, and a timer may come over one of these (docs/kernel.md): another is made then.
    """
    for _ in range(3):
        cookie = attempt()
        with network.socket("IPv4") as later:
            assert connect(later, THERE[4], 80, blocking=True) == "ECONNREFUSED"
            told(tracing, cookie_of(later))
        if len(_attempts(tracing, cookie)) > 0:
            return told(tracing, cookie)
    pytest.fail("three attempts, one after the other, of which nobody told")


@traced
def test_a_neighbour_that_is_not_there_is_unreachable(tmp_path: Path, network: Network) -> None:
    def attempt() -> int:
        with network.socket("IPv4") as near:
            assert connect(near, "10.9.0.77", 80, blocking=True) == "EHOSTUNREACH"
            return cookie_of(near)

    with Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        assert _told_by_a_timer(tracing, network, attempt).result is ConnectResult.UNREACHABLE


@traced
@pytest.mark.parametrize(
    ("family", "options", "sent_again"),
    [("IPv4", {socket.TCP_SYNCNT: 1}, 1), ("IPv4", {USER_TIMEOUT: 300}, 0), ("IPv6", {USER_TIMEOUT: 300}, 0)],
    ids=["once more", "hurried", "hurried IPv6"],
)
def test_without_an_answer_it_timed_out(
    tmp_path: Path, network: Network, family: str, options: dict[int, int], sent_again: int
) -> None:
    def attempt() -> int:
        with network.socket(family, options=options) as near:
            assert connect(near, _address(SILENT, family), 80, blocking=True) == "ETIMEDOUT"
            return cookie_of(near)

    with Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        one = _told_by_a_timer(tracing, network, attempt)
        assert (one.result, one.error) == (ConnectResult.TIMED_OUT, "ETIMEDOUT")
        assert one.latency_ns >= 300_000_000
        assert one.record["connect"]["pid"] == os.getpid(), "not of whoever the timer interrupted"
        tracing.stop()
        assert tracing.count(Counter.RETRANSMITS) >= sent_again, "the SYN that was sent again"


def _closed(near: socket.socket) -> None:
    near.close()


def _shut_down(near: socket.socket) -> None:
    near.shutdown(socket.SHUT_RDWR)


def _disconnected(near: socket.socket) -> None:
    assert ctypes.CDLL(None).connect(near.fileno(), bytes(16), 16) == 0  # AF_UNSPEC


@traced
@pytest.mark.parametrize("given_up", [_closed, _shut_down, _disconnected])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_what_its_owner_gives_up_is_aborted(
    tmp_path: Path, network: Network, family: str, given_up: Callable[[socket.socket], None]
) -> None:
    with network.socket(family) as near, Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        near.setblocking(False)
        assert near.connect_ex((_address(SILENT, family), 80)) == errno.EINPROGRESS
        cookie = cookie_of(near)
        given_up(near)
        one = told(tracing, cookie)
        assert (one.result, one.error) == (ConnectResult.ABORTED, None)


@traced
def test_a_process_that_is_killed_has_aborted(tmp_path: Path, network: Network) -> None:
    with network.socket("IPv4") as near, Tracing(tmp_path, [Selector(80)], connects_only=True) as tracing:
        cookie = cookie_of(near)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                near.connect((SILENT[4], 80))
            os._exit(0)
        near.close()
        wait_until(lambda: "SYN-SENT" in network.near.run("ss", "-tn", "dst", SILENT[4]), what="SYN-SENT")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        one = told(tracing, cookie)
        assert one.result is ConnectResult.ABORTED
        assert one.record["connect"]["pid"] == child


@traced
def test_what_this_host_could_not_send_is_neither_aborted_nor_the_network_s(tmp_path: Path) -> None:
    with Namespace() as namespace:
        with namespace.entered():
            server, first, second = Server(), socket.socket(), socket.socket()
        namespace.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50000")
        with server, first, second, Tracing(tmp_path, [server.selector]) as tracing:
            assert connect(first, server.address, server.port, blocking=True) is None
            assert connect(second, server.address, server.port, blocking=True) == "EADDRNOTAVAIL"
            one = told(tracing, cookie_of(second))
            assert (one.result, one.error) == (ConnectResult.OTHER, None)


@traced
def test_without_a_route_there_is_no_attempt(tmp_path: Path) -> None:
    with Namespace() as namespace:
        with namespace.entered():
            server, near, lost = Server(), socket.socket(), socket.socket()
        with server, near, lost, Tracing(tmp_path, [Selector(80), server.selector]) as tracing:
            assert connect(lost, NOWHERE[4], 80, blocking=True) == "ENETUNREACH"
            assert connect(near, server.address, server.port, blocking=True) is None
            told(tracing, cookie_of(near))
            assert len(tracing.of(Kind.CONNECT, cookie_of(lost))) == 0


@traced
def test_both_ends_may_open_at_once(tmp_path: Path) -> None:
    with Namespace() as namespace:
        with namespace.entered():
            both = socket.socket()
        both.bind(("127.0.0.1", 0))
        port = both.getsockname()[1]
        with both, Tracing(tmp_path, [Selector(port)]) as tracing:
            assert connect(both, "127.0.0.1", port, blocking=True) is None, (
                "to itself: no SYN was answered by a listener"
            )
            one = told(tracing, cookie_of(both))
            assert one.result is ConnectResult.OPENED
            assert one.row["local_port"] == one.row["remote_port"] == port


@traced
def test_a_socket_that_tries_again_is_told_twice(tmp_path: Path, network: Network) -> None:
    with network.server("IPv4") as server:
        selector = server.selector
    with network.socket("IPv4") as near, Tracing(tmp_path, [selector]) as tracing:
        for _ in range(2):
            assert connect(near, THERE[4], selector.port, blocking=True) == "ECONNREFUSED"
        records = tracing.of(Kind.CONNECT, cookie_of(near))
        assert records["connect"]["result"].tolist() == [ConnectResult.REFUSED] * 2
        assert len(set(records["row"])) == 2


@traced
def test_only_selected_attempts_are_told(tmp_path: Path) -> None:
    with Server() as wanted, Server() as other, Tracing(tmp_path, [wanted.selector]) as tracing:
        for server in (other, wanted):
            peers = server.connect()
        told(tracing, peers.cookie)
        assert set(tracing.reader.of(Kind.CONNECT)["connect"]["cookie"]) == {peers.cookie}


@traced
def test_where_only_connects_are_wanted_nothing_else_is_recorded(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector], connects_only=True) as tracing:
        peers = server.connect()
        peers.send(100)
        peers.read(100)
        one = told(tracing, peers.cookie)
        assert one.row["state"] == RowState.CLOSED, "nobody would close it"
        tracing.stop()
        assert set(tracing.reader.all()["kind"]) <= {Kind.HELLO, Kind.BYE, Kind.PASSED, Kind.CONNECT}


@traced
def test_a_burst_is_told_or_counted_as_lost(tmp_path: Path) -> None:
    made = 500
    with (
        Server() as server,
        # Nothing is fetched before the end: how many fit is no matter of how fast the machine is.
        Tracing(tmp_path, [server.selector], buffer_bytes=4096, interval_ms=600_000, connects_only=True) as tracing,
    ):
        server.listening.listen(made)
        for _ in range(made):
            with socket.create_connection((server.address, server.port)) as near:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tracing.stop()
        found = len(tracing.reader.of(Kind.CONNECT))
        assert 0 < found < made
        assert found + tracing.count(Counter.EVENTS_LOST) == made


@traced
def test_segments_out_of_order_and_sent_again_are_the_sockets_own_counts(tmp_path: Path, network: Network) -> None:
    carried = {"frames": 0}

    def policy(side: int, frame: bytes) -> list[bytes]:
        carried["frames"] += side == 1 and len(frame) > 200
        lost = side == 1 and len(frame) > 200 and carried["frames"] % 7 == 3
        return [] if lost else [frame]

    def counted(end: socket.socket, at: int) -> int:
        return int(struct.unpack_from("=I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), at)[0])

    network.policy = policy
    near = network.socket("IPv4")
    near.bind((HERE[4], 0))
    selectors = [Selector(near.getsockname()[1], packed(HERE[4]))]
    with network.server("IPv4") as server, Tracing(tmp_path, [server.selector, *selectors]) as tracing:
        peers = server.connect(near)
        peers.near.sendall(b"x")  # a kprobe knows the accepted socket from its first byte on
        assert peers.far.recv(1) == b"x"
        for _ in range(10):
            for _ in range(6):
                peers.send(700)
            peers.read(1 << 16)
        while peers.reads[-1].end < peers.sends[-1].end:
            peers.read(1 << 16)
        ends = (peers.near, peers.far)
        for end in ends:  # closed and there to be asked: an acknowledgement that is late has more sent again until then
            end.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(tracing.reader.of(Kind.CLOSED)) == 2, PATIENCE_S, "both ends closed")
        sent_again = sum(counted(end, 100) for end in ends)  # tcpi_total_retrans
        out_of_order = sum(counted(end, 224) for end in ends)  # tcpi_rcv_ooopack
        tracing.stop()
        assert sent_again > 0
        assert out_of_order > 0
        assert tracing.count(Counter.RETRANSMITS) == sent_again
        assert tracing.count(Counter.OUT_OF_ORDER) == out_of_order
