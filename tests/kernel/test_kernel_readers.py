# SPDX-License-Identifier: Apache-2.0
"""However the bytes are taken: each one is copied once, when it was taken, by whom; and readable whoever was told."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.tracing import (
    PATIENCE_S,
    Peers,
    Server,
    Tracing,
    assert_covers_once,
    assert_readable_before_copied,
    assert_true_times,
    spans,
    traced,
    waiting,
)
from kernel.uring import ASYNC, Uring
from netns import Namespace, veth
from tickpath.event import Counter, Kind
from wire.capturing import wait_until

SO_BUSY_POLL, SO_MEMINFO, SO_INCOMING_NAPI_ID = 46, 55, 56
MEMINFO_BACKLOG = 7
TCP_ZEROCOPY_RECEIVE = 35
MSG_WAITFORONE = 0x10000
SIOCETHTOOL, ETHTOOL_STSO, ETHTOOL_SGRO = 0x8946, 0x1F, 0x2C
PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def _uring_refused() -> str | None:
    try:
        with Uring():
            return None
    except OSError as error:
        return f"no io_uring here: {error.strerror}"


def _level(peers: Peers) -> None:
    with select.epoll() as epoll:
        epoll.register(peers.near, select.EPOLLIN)
        while epoll.poll(0 if peers.reads and peers.reads[-1].end == peers.sends[-1].end else 10):
            peers.read(400)


def _edge(peers: Peers) -> None:
    peers.near.setblocking(False)
    with select.epoll() as epoll:
        epoll.register(peers.near, select.EPOLLIN | select.EPOLLET)
        while epoll.poll(0 if peers.reads and peers.reads[-1].end == peers.sends[-1].end else 10):
            try:
                while peers.read(400):
                    pass
            except BlockingIOError:
                pass


def _vectors(peers: Peers) -> None:
    peers.read_by(lambda: os.readv(peers.near.fileno(), [bytearray(7), bytearray(1 << 14)]))


def _many_messages(peers: Peers) -> None:
    count, size = 4, 97
    buffers = [ctypes.create_string_buffer(size) for _ in range(count)]
    vectors = [ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(b), size)) for b in buffers]
    messages = ctypes.create_string_buffer(
        b"".join(struct.pack("@PI4xPNPNi4xI4x", 0, 0, ctypes.addressof(v), 1, 0, 0, 0, 0) for v in vectors)
    )

    def call() -> int:
        got = _libc.recvmmsg(peers.near.fileno(), messages, count, MSG_WAITFORONE, None)
        assert got > 0, os.strerror(ctypes.get_errno())
        return sum(struct.unpack_from("I", messages, 64 * n + 56)[0] for n in range(got))

    peers.read_by(call)


def _discarding(peers: Peers) -> None:
    peers.read(1 << 14, socket.MSG_TRUNC)


def _uring(peers: Peers) -> None:
    with Uring() as ring:
        peers.read_by(lambda: ring.recv(peers.near.fileno(), 1 << 14))


def _uring_worker(peers: Peers) -> None:
    with Uring() as ring:
        peers.read_by(lambda: ring.recv(peers.near.fileno(), 1 << 14, ASYNC))


_has_uring = pytest.mark.skipif(_uring_refused() is not None, reason=_uring_refused() or "")


@traced
@pytest.mark.parametrize(
    "reader",
    [
        _level,
        _edge,
        _vectors,
        _many_messages,
        _discarding,
        pytest.param(_uring, marks=_has_uring),
        pytest.param(_uring_worker, marks=_has_uring),
    ],
)
def test_every_byte_is_told_once_however_it_is_taken(tmp_path: Path, reader: Callable[[Peers], None]) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.near.settimeout(None)  # the calls here do not wait with Python's poll
        for size in (1, 300, 1400, 9000) * 5:
            peers.send(size)
            reader(peers)
        while peers.reads[-1].end < peers.sends[-1].end:
            reader(peers)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(readable, peers.sends[-1].end)
        assert_covers_once(copied, peers.sends[-1].end)
        assert_true_times(readable, copied, peers)
        assert set(copied["interval"]["pid"]) == {os.getpid()}
        if reader is _many_messages:
            assert max(end - begin for begin, end in spans(copied)) <= 97, "each message of recvmmsg by itself"


@traced
@pytest.mark.parametrize("edge", [0, select.EPOLLET], ids=["level", "edge"])
def test_readable_is_when_the_bytes_came_and_not_when_epoll_told(tmp_path: Path, edge: int) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing, select.epoll() as epoll:
        peers = server.connect()
        epoll.register(peers.near, select.EPOLLIN | edge)
        came_ns = []
        for _ in range(3):
            peers.send(100)
            peers.arrive()
            came_ns.append(time.monotonic_ns())
        assert len(epoll.poll(10)) == 1, "three arrivals, told once"
        peers.read(1000)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert spans(readable) == [(0, 100), (100, 200), (200, 300)]
        for record, send, after_ns in zip(readable, peers.sends, came_ns, strict=True):
            assert send.before_ns <= record["time_ns"] <= after_ns
        assert_covers_once(copied, 300)


@contextmanager
def _untouched_page() -> Iterator[tuple[mmap.mmap, int, Callable[[], None]]]:
    """A page that whoever writes to it waits for, the descriptor that tells of it, and what gives it at last."""
    number = {"x86_64": 323, "aarch64": 282}.get(platform.machine())
    fd = _libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK) if number else -1
    if fd < 0:
        pytest.skip("no userfaultfd here")
    page = mmap.mmap(-1, PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))

    def ask(request: int, *words: int) -> None:
        argument = ctypes.create_string_buffer(struct.pack("<4Q", *words, *[0] * (4 - len(words))), 32)
        assert _libc.ioctl(fd, ctypes.c_ulong(request), argument) == 0, os.strerror(ctypes.get_errno())

    try:
        ask(0xC018AA3F, 0xAA)  # UFFDIO_API
        ask(0xC020AA00, address, PAGE, 1)  # UFFDIO_REGISTER: missing pages
        yield page, fd, lambda: ask(0xC020AA04, address, PAGE)  # UFFDIO_ZEROPAGE
    finally:
        os.close(fd)


@traced
def test_what_comes_while_the_reader_holds_the_socket_is_readable_when_it_lets_go(tmp_path: Path) -> None:
    """The reader is stopped amid its copying, by a page that it has to wait for."""
    with (
        Server() as server,
        Tracing(tmp_path, [server.selector]) as tracing,
        _untouched_page() as (page, faults, give),
    ):
        peers = server.connect()
        peers.near.settimeout(None)
        peers.send(100)
        reader = threading.Thread(target=peers.read_by, args=[lambda: peers.near.recv_into(page)])
        reader.start()
        try:
            assert select.select([faults], [], [], PATIENCE_S)[0], "the reader waits for its page"
            peers.send(300)

            def held() -> int:
                figures: tuple[int, ...] = struct.unpack("9I", peers.near.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
                return figures[MEMINFO_BACKLOG]

            wait_until(lambda: held() > 0, what="a backlog")
            given_ns = time.monotonic_ns()
        finally:
            give()
            reader.join()
        while peers.reads[-1].end < 400:
            peers.read(1000)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert spans(readable) == [(0, 100), (100, 400)]
        assert readable["time_ns"][0] < given_ns < readable["time_ns"][1]
        assert_covers_once(copied, 400)
        assert_true_times(readable, copied, peers)


@traced
def test_a_busy_socket_s_intervals_are_whole_while_its_reader_copies(tmp_path: Path) -> None:
    total = 4 << 20
    with Server() as server, Tracing(tmp_path, [server.selector], buffer_bytes=1 << 22) as tracing:
        peers = server.connect()

        def send() -> None:
            for _ in range(total // 4096):
                peers.far.sendall(bytes(4096))

        sender = threading.Thread(target=send)
        sender.start()
        peers.near.settimeout(None)
        for _ in range(4):
            assert len(peers.near.recv(total // 4, socket.MSG_WAITALL)) == total // 4
        sender.join()
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert tracing.count(Counter.EVENTS_LOST) == 0
        assert_covers_once(readable, total)
        assert_covers_once(copied, total)
        assert_readable_before_copied(readable, copied)


@traced
def test_pages_that_are_mapped_instead_of_copied_are_told_as_copied(tmp_path: Path) -> None:
    total = 8 * PAGE
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        taken, given = os.pipe()
        for _ in range(total // PAGE):  # whole pages that belong to no file: the only ones that can be mapped
            os.write(given, bytes(PAGE))
            assert os.splice(taken, peers.far.fileno(), PAGE) == PAGE
        os.close(taken)
        os.close(given)
        wait_until(lambda: waiting(peers.near) == total)
        map_socket = _libc.mmap
        map_socket.restype = ctypes.c_void_p
        address = map_socket(None, ctypes.c_size_t(total), mmap.PROT_READ, mmap.MAP_SHARED, peers.near.fileno(), 0)
        asked = ctypes.create_string_buffer(struct.pack("<QIIIi", address, total, 0, 0, 0), 24)
        length = ctypes.c_uint32(24)
        before_ns = time.monotonic_ns()
        receive = (peers.near.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, asked, ctypes.byref(length))
        assert _libc.getsockopt(*receive) == 0, os.strerror(ctypes.get_errno())
        after_ns = time.monotonic_ns()
        mapped, left = struct.unpack_from("<II", asked, 8)
        assert (mapped, left) == (total, 0)
        assert _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(total)) == 0
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(readable, total)
        assert_covers_once(copied, total)
        assert all(before_ns <= record["time_ns"] <= after_ns for record in copied)
        assert set(copied["interval"]["pid"]) == {os.getpid()}
        assert set(copied["interval"]["asked_ns"]) == {0}, "it is no tcp_recvmsg"


@traced
def test_a_socket_that_was_passed_on_has_its_reader_s_process(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.send(300)
        peers.read(100)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            child = os.fork()
            if child == 0:
                peers.near.close()
                _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
                with socket.socket(fileno=fds[0]) as passed:
                    passed.recv(100)
                os._exit(0)
            socket.send_fds(ours, [b"."], [peers.near.fileno()])
            os.waitpid(child, 0)
        peers.near.recv(100)
        copied = tracing.of(Kind.COPIED, peers.cookie)
        assert_covers_once(copied, 300)
        assert copied["interval"]["pid"].tolist() == [os.getpid(), child, os.getpid()]
        assert len(set(copied["row"])) == 1


@traced
def test_threads_that_read_one_socket_are_one_process(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.near.settimeout(None)
        threads = [threading.Thread(target=peers.near.recv, args=[100, socket.MSG_WAITALL]) for _ in range(4)]
        for thread in threads:
            thread.start()
        peers.send(400)
        for thread in threads:
            thread.join()
        copied = tracing.of(Kind.COPIED, peers.cookie)
        assert_covers_once(copied, 400)
        assert set(copied["interval"]["pid"]) == {os.getpid()}


def _offload(namespace: Namespace, device: str, request: int, *, on: bool) -> None:
    """A veth that merges segments, whose peer sends them apart, is one that can be polled."""
    value = ctypes.create_string_buffer(struct.pack("II", request, on))
    with namespace.entered(), socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sQ16x", device.encode(), ctypes.addressof(value)))


@traced
def test_a_reader_that_polls_the_device_itself_is_as_any_other(tmp_path: Path) -> None:
    with Namespace() as here, Namespace() as there:
        veth(here, there)
        _offload(here, "veth0", ETHTOOL_SGRO, on=True)
        _offload(there, "veth0", ETHTOOL_STSO, on=False)
        here.address("veth0", "10.9.0.1/24")
        there.address("veth0", "10.9.0.2/24")
        with there.entered():
            server = Server("10.9.0.2")
        with server, Tracing(tmp_path, [server.selector]) as tracing:
            with here.entered():
                near = socket.socket()
            near.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, 5000)
            peers = server.connect(near)
            near.settimeout(None)
            assert near.getsockopt(socket.SOL_SOCKET, SO_INCOMING_NAPI_ID) > 0, "there is what to poll"
            sender = threading.Thread(target=lambda: [peers.send(700) for _ in range(30)])
            sender.start()
            while not peers.reads or peers.reads[-1].end < 21000:
                peers.read(1 << 16)
            sender.join()
            readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
            assert_covers_once(readable, 21000)
            assert_covers_once(copied, 21000)
            assert_true_times(readable, copied, peers)
            assert set(readable["interval"]["pid"]) == {0}
