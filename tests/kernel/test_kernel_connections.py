# SPDX-License-Identifier: Apache-2.0
"""However connections begin, stall and end, and however fast they follow each other: none has another's records."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from pathlib import Path

import pytest

from kernel.tracing import (
    REPAIR_OFF_NO_PROBE,
    TCP_RECV_QUEUE,
    TCP_REPAIR,
    TCP_REPAIR_QUEUE,
    Server,
    Tracing,
    assert_covers_once,
    cookie_of,
    spans,
    traced,
    waiting,
)
from tickpath.event import Counter, Kind
from wire.capturing import wait_until

TCP_ULP = 31


def _reset_when_closed(sock: socket.socket) -> None:
    """No TIME_WAIT: its port and its memory are free at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _kernel_address(inode: int) -> str:
    """Of a socket, disguised by the kernel: the same for the same memory."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] == str(inode):
            return words[11]
    raise AssertionError(f"no socket {inode}")


@traced
def test_memory_that_is_another_connections_now_brings_nothing_of_the_one_before(tmp_path: Path) -> None:
    addresses, expected = [], {}
    with Server() as server, Tracing(tmp_path, [server.selector], rows=8) as tracing:
        for n in range(20):
            peers = server.connect()
            expected[peers.cookie] = 1 + n % 7
            peers.send(expected[peers.cookie])
            peers.read(100)
            addresses.append(_kernel_address(os.fstat(peers.near.fileno()).st_ino))
            _reset_when_closed(peers.near)
            peers.close()
        assert len(set(addresses)) < len(addresses), "memory was used again"
        assert len(expected) == len(addresses)
        for cookie, size in expected.items():
            opened, readable, copied, closed = (
                tracing.of(kind, cookie) for kind in (Kind.OPENED, Kind.READABLE, Kind.COPIED, Kind.CLOSED)
            )
            assert len(opened) == 1
            assert spans(readable) == spans(copied) == [(0, size)]
            assert closed["connection"]["bytes"].tolist() == [size]
            assert len({int(r["row"][0]) for r in (opened, readable, copied, closed)}) == 1
        assert tracing.count(Counter.ROWS_EXHAUSTED) == 0


@traced
def test_the_same_addresses_and_ports_at_once_again_are_another_connection(tmp_path: Path) -> None:
    port = 0
    cookies = []
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        for size in (100, 60):
            near = socket.socket()
            near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            near.bind(("127.0.0.1", port))
            port = near.getsockname()[1]
            peers = server.connect(near)
            cookies.append(peers.cookie)
            peers.send(size)
            peers.read(size)
            _reset_when_closed(near)
            peers.close()
        rows = []
        for cookie, size in zip(cookies, (100, 60), strict=True):
            copied = tracing.of(Kind.COPIED, cookie)
            assert spans(copied) == [(0, size)]
            row = tracing.reader.ring.row(int(copied["row"][0]))
            assert row is not None
            assert (row["local_port"], row["remote_port"], row["cookie"]) == (port, server.port, cookie)
            rows.append(row)
        assert rows[0]["irs"] != rows[1]["irs"]


@traced
def test_connections_that_follow_each_other_fast_each_have_their_own_row(tmp_path: Path) -> None:
    count, rows = 1000, 16
    cookies = set()
    with Server() as server, Tracing(tmp_path, [server.selector], rows=rows) as tracing:
        for n in range(count):
            with socket.socket() as near:
                cookies.add(cookie_of(near))
                _reset_when_closed(near)
                near.connect(("127.0.0.1", server.port))
                far, _ = server.listening.accept()
                with far:
                    far.send(b"x" * 10)
                    near.recv(10)
            if n % 200 == 0:
                tracing.reader.all()
        tracing.stop()
        assert tracing.count(Counter.EVENTS_LOST) == tracing.count(Counter.ROWS_EXHAUSTED) == 0
        opened = tracing.reader.of(Kind.OPENED)
        assert set(opened["connection"]["cookie"]) == cookies
        assert len(opened) == len(set(opened["row"])) == len(cookies) == count
        row_of = dict(zip(opened["connection"]["cookie"], opened["row"], strict=True))
        for kind, body in ((Kind.READABLE, "interval"), (Kind.COPIED, "interval"), (Kind.CLOSED, "connection")):
            records = tracing.reader.of(kind)
            assert len(records) == count
            assert all(row_of[r[body]["cookie"]] == r["row"] for r in records)
            if body == "interval":
                assert set(spans(records)) == {(0, 10)}


@traced
def test_bytes_that_nobody_reads_are_counted_at_the_close(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        cookie = peers.cookie
        peers.send(100)
        peers.read(30)
        peers.near.close()
        wait_until(lambda: len(tracing.reader.of(Kind.CLOSED)) == 1)
        assert_covers_once(tracing.of(Kind.READABLE, cookie), 100)
        assert spans(tracing.of(Kind.COPIED, cookie)) == [(0, 30)]
        assert tracing.of(Kind.CLOSED, cookie)["connection"]["bytes"].tolist() == [100]


@traced
def test_a_reader_that_shut_down_its_side_still_has_what_comes(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.send(100)
        wait_until(lambda: len(tracing.reader.of(Kind.READABLE)) == 1)
        peers.near.shutdown(socket.SHUT_RD)
        peers.send(50)
        wait_until(lambda: len(tracing.reader.of(Kind.READABLE)) == 2)
        while peers.read(70):
            pass
        for kind in (Kind.READABLE, Kind.COPIED):
            assert_covers_once(tracing.of(kind, peers.cookie), 150)


def _unsent(sock: socket.socket) -> int:
    """How many of its bytes the peer has not acknowledged: SIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


@traced
def test_what_a_full_window_keeps_out_is_readable_when_it_is_let_in(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        peers = server.connect(near)
        peers.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        peers.far.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += peers.far.send(bytes(1000))

        def all_told() -> bool:
            told = spans(tracing.reader.of(Kind.READABLE))
            return bool(told) and told[-1][1] == waiting(near)

        wait_until(lambda: _unsent(peers.far) > 0 and all_told())
        # In this order: what is let in between the two is inside.
        before_ns = time.monotonic_ns()
        inside = waiting(near)
        got = 0
        while got < sent:
            got += len(near.recv(3000))
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(readable, sent)
        assert_covers_once(copied, sent)
        kept_out = readable["interval"]["to"] > inside
        assert kept_out.any()
        assert (readable["time_ns"][kept_out] > before_ns).all()


@traced
def test_a_socket_that_was_connected_by_repair_is_unsupported(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing, socket.socket() as near:
        cookie = cookie_of(near)
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        near.connect(("127.0.0.1", server.port))
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)
        near.send(b"what it had received")
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE)
        assert near.recv(8) == b"what it "
        plain = server.connect()
        plain.send(10)
        plain.read(10)
        tracing.stop()
        for kind in (Kind.OPENED, Kind.READABLE, Kind.COPIED):
            assert len(tracing.of(kind, cookie)) == 0
            assert len(tracing.of(kind, plain.cookie)) == 1
        assert tracing.count(Counter.UNSUPPORTED_TRANSPORT) == 1


def _has_upper_layer(name: str) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        try:
            near.setsockopt(socket.IPPROTO_TCP, TCP_ULP, name.encode())
        except OSError:
            return False
    return True


@traced
@pytest.mark.skipif(not _has_upper_layer("tls"), reason="this kernel has no kTLS")
def test_ktls_makes_a_connection_unsupported_from_then_on(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.send(10)
        peers.read(10)
        peers.near.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        peers.send(10)
        peers.read(10)
        for kind in (Kind.READABLE, Kind.COPIED):
            assert spans(tracing.of(kind, peers.cookie)) == [(0, 10)]
        assert tracing.count(Counter.UNSUPPORTED_TRANSPORT) == 1
