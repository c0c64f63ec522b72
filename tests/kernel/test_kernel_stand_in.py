# SPDX-License-Identifier: Apache-2.0
"""What a softirq brings while it interrupts a program that it comes to itself: the kernel leaves that run out."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Value
from pathlib import Path

import numpy as np
import pytest

from kernel.connecting import SYN_SENT
from kernel.tracing import PATIENCE_S, Peers, Server, Tracing, assert_covers_once, traced
from tickpath.event import RECORD, ConnectResult, Counter, Kind
from tickpath.selector import Selector
from wire.capturing import wait_until

SO_MAX_PACING_RATE = 47
TCP_USER_TIMEOUT = 18
LEFT_OUT = 24
"""So many runs at least, before a test says anything; a quarter of them where that takes long, as in a guest."""
LONG_S = 20.0
BLIND = 3
"""Of so many runs left out one may go untold. There are kernels that run no BPF program over some processes of theirs,
and nobody sees what a softirq brings over one of these (docs/kernel.md). Where nothing stands in, all go untold."""
_ALONE = "by this rung nothing stands in: the kernel leaves such runs out"


def _left_out() -> int:
    """Runs, of the programs that this process holds: the kernel's own count."""
    texts = []
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            texts.append(entry.read_text())
        except FileNotFoundError:  # the folder's own
            continue
    return sum(int(count) for text in texts for count in re.findall(r"^recursion_misses:\s*(\d+)$", text, re.MULTILINE))


def _enough(began_s: float) -> bool:
    took_s = time.monotonic() - began_s
    return _left_out() >= (LEFT_OUT if took_s < LONG_S else LEFT_OUT / 4) or took_s > PATIENCE_S


def _keep_at(again: Callable[[], None]) -> None:
    """Ahead of all that run by the fair scheduler, so that few of these are what is interrupted."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while os.getppid() != 1:
        until_ns = time.monotonic_ns() + 5_000_000
        while time.monotonic_ns() < until_ns:
            again()
        time.sleep(0.0005)  # for the others on this processor, its softirqs' thread among them


@contextlib.contextmanager
def _beside(again: Callable[[], None]) -> Iterator[None]:
    """A process that does nothing else, on the processor that this thread keeps to meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    child = os.fork()
    if child == 0:
        try:
            _keep_at(again)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.sched_setaffinity(0, before)


def _read_all(connections: Sequence[Peers]) -> None:
    """To the end of each, as soon as something comes."""
    waiting = select.epoll()
    open_ = {peers.near.fileno(): peers for peers in connections}
    for number in open_:
        waiting.register(number, select.EPOLLIN)
    while open_:
        for number, _ in waiting.poll():
            if not open_[number].read(1 << 20):
                waiting.unregister(number)
                del open_[number]
    waiting.close()


def _gaps(readable: np.ndarray) -> int:
    body = readable["interval"]
    return int(np.count_nonzero(body["from"][1:] != body["to"][:-1]))


@traced
def test_bytes_that_come_while_the_program_runs_are_told_as_any_others(tmp_path: Path) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def wake_a_socket_of_no_interest() -> None:
        for _ in range(100):
            here.send(b"x")
            there.recv(1)

    with here, there, Server() as server, Tracing(tmp_path, [server.selector], buffer_bytes=1 << 22) as tracing:
        if tracing.modes["readable"] == "kprobe":
            pytest.skip(_ALONE)
        server.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        connections = [server.connect() for _ in range(20)]
        for number, peers in enumerate(connections):
            # What is sent at a pace leaves by a timer, over whoever has the processor then; each by its own.
            peers.far.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 1_500_000 + 70_000 * number)
        reader = threading.Thread(target=_read_all, args=[connections])
        reader.start()
        began_s = time.monotonic()
        with _beside(wake_a_socket_of_no_interest):
            while not _enough(began_s):
                for peers in connections:
                    peers.send(100_000)
        left_out = _left_out()
        for peers in connections:
            peers.far.shutdown(socket.SHUT_WR)
        reader.join()
        tracing.stop()
        assert left_out >= LEFT_OUT / 4
        assert tracing.count(Counter.EVENTS_LOST) == 0
        for peers in connections:
            assert_covers_once(tracing.of(Kind.COPIED, peers.cookie), peers.sends[-1].end)
        assert sum(_gaps(tracing.of(Kind.READABLE, peers.cookie)) for peers in connections) <= left_out // BLIND


def _give_up(address: tuple[str, int]) -> int:
    """So many attempts that are not answered: a timer ends each, over whoever has the processor then."""
    attempts = []
    for _ in range(500):
        near = socket.socket()
        near.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 300)
        near.setblocking(False)
        assert near.connect_ex(address) == errno.EINPROGRESS
        attempts.append(near)
        time.sleep(0.001)  # at one moment one timer would end them all
    wait_until(lambda: not any(map(_is_connecting, attempts)), PATIENCE_S, "their end")
    for near in attempts:
        near.close()
    return len(attempts)


def _is_connecting(near: socket.socket) -> bool:
    return near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == SYN_SENT


def _add_results(tracing: Tracing, told: np.ndarray) -> None:
    """How many attempts came to what, of the records that are new."""
    records = np.zeros(4096, RECORD)
    while count := tracing.reader.ring.read(records.view("u1")):
        attempts = records[:count][records["kind"][:count] == Kind.CONNECT]
        told += np.bincount(attempts["connect"]["result"], minlength=len(told))


@traced
def test_attempts_that_end_while_the_program_runs_are_told_as_any_others(tmp_path: Path) -> None:
    refused = Value("q", 0)
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = silent.getsockname()
    full = socket.create_connection(address)  # its queue: what comes now is not answered

    def be_refused() -> None:
        with socket.socket() as near:
            assert near.connect_ex(("127.0.0.9", address[1])) == errno.ECONNREFUSED
        refused.value += 1

    room = {"capacity": 1 << 20, "buffer_bytes": 1 << 25}
    with silent, full, Tracing(tmp_path, [Selector(address[1])], connects_only=True, **room) as tracing:
        if tracing.modes["state"] != "tp_btf":
            pytest.skip(_ALONE)
        told = np.zeros(len(ConnectResult) + 1, np.int64)
        given_up = rounds = 0
        began_s = time.monotonic()
        while not _enough(began_s):
            rounds += 1
            with _beside(be_refused):
                given_up += _give_up(address)
            _add_results(tracing, told)
        left_out = _left_out()
        tracing.stop()
        _add_results(tracing, told)
        assert tracing.reader.ring.lost == tracing.count(Counter.EVENTS_LOST) == 0
        assert left_out >= LEFT_OUT / 4
        made = given_up + refused.value
        # Each time the process was ended, maybe behind an attempt and before it had counted it.
        assert made - left_out // BLIND <= told.sum() <= made + rounds
        assert told[ConnectResult.TIMED_OUT] <= given_up
        assert told[ConnectResult.REFUSED] <= refused.value + rounds
