# SPDX-License-Identifier: Apache-2.0
"""What the kernel probe's tests share: a tracer in this process, and peers that log what they send and read."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import termios
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from tickpath import config
from tickpath.event import Counter, Kind
from tickpath.probes.kernel.config import KernelConfig
from tickpath.probes.kernel.programs import UnavailableError, load
from tickpath.ring import RingWriter
from tickpath.selector import Selector, packed
from wire.capturing import Reader, wait_until

# The one that the probe's own configuration would take from the environment.
RUNG = config.load(KernelConfig, "kernel").rung
# For what a process does in a moment, and takes minutes in an emulated machine that others keep from its processors.
PATIENCE_S = 200.0


def _refused() -> str | None:
    try:
        tracer = load([Selector(1)], buffer_bytes=4096, rung=RUNG)
    except UnavailableError as error:
        return str(error)
    tracer.close()
    return None


_REFUSED = _refused() if os.geteuid() == 0 else None
_REASON = "loads BPF programs: root only" if os.geteuid() else f"the kernel probe cannot run here: {_REFUSED}"
_STAND_IN = (("readable", "tp_btf"), ("readable", "fentry"), ("state", "tp_btf"))
CAN_TRACE = not (os.geteuid() or _REFUSED)
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_RECV_QUEUE, REPAIR_OFF_NO_PROBE = 19, 20, 21, 1, -1


def programs_of(hook: str, mode: str) -> int:
    """How many BPF programs a hook has, by how it is attached."""
    if mode == "none":
        return 0
    # Two where one stands in for the other; an entry and a return.
    return 2 if hook == "asked" or (hook, mode) in _STAND_IN else 1


def traced(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs the programs to load."""
    return pytest.mark.root(pytest.mark.skipif(not CAN_TRACE, reason=_REASON)(test))


class Tracing:
    """The programs attached, and their records carried into a ring by a thread of this process."""

    def __init__(
        self,
        directory: Path,
        selectors: Sequence[Selector],
        *,
        name: str = "kernel",
        rows: int = 64,
        capacity: int = 1 << 16,
        buffer_bytes: int = 1 << 20,
        interval_ms: int = 2,
        cgroup: int = 0,
        pids: Sequence[int] = (),
        connects_only: bool = False,
    ) -> None:
        self._tracer = load(
            selectors,
            cgroup=cgroup,
            pids=pids,
            buffer_bytes=buffer_bytes,
            rung=RUNG,
            connects_only=connects_only,
        )
        self.modes = self._tracer.modes
        self._ring = RingWriter(directory, name, "kernel", capacity=capacity, rows=rows + 1)
        self.path = self._ring.path
        self._tracer.write_to(self._ring, rows=rows)
        self.reader = Reader(self._ring.path)
        self._interval_ms = interval_ms
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ended: int | None = None

    def _run(self) -> None:
        self.ended = self._tracer.run(self._stop, self._interval_ms)

    def claim(self, one: socket.socket) -> None:
        self._tracer.claim(one.fileno())

    @contextmanager
    def fetching(self) -> Iterator[Callable[[], None]]:
        """What has the thread look for records, however long its interval is. Of the main thread."""
        before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        try:
            yield lambda: signal.pthread_kill(self._thread.ident or 0, signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)

    def stop(self) -> None:
        """Detach: all that happened so far is in the ring then."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()
        assert self.ended == 0

    def of(self, kind: Kind, cookie: int) -> np.ndarray:
        """The records of one connection, stopped first."""
        self.stop()
        return self.so_far(kind, cookie)

    def so_far(self, kind: Kind, cookie: int) -> np.ndarray:
        """Those of them that were fetched."""
        records = self.reader.of(kind)
        body = "interval" if kind in (Kind.READABLE, Kind.COPIED) else "connection"
        return records[records[body]["cookie"] == cookie]

    def count(self, counter: Counter) -> int:
        return self.reader.count(counter)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._tracer.close()
        self.reader.ring.close()
        self._ring.close()
        os.close(self._stop)


@dataclass(frozen=True)
class Span:
    """A call that moved stream bytes [begin, end), from before it to after it (monotonic ns)."""

    begin: int
    end: int
    before_ns: int
    after_ns: int


@dataclass
class Peers:
    """A connection: `near` reads, `far` sends; both log what they did."""

    near: socket.socket
    far: socket.socket
    sends: list[Span] = field(default_factory=list)
    reads: list[Span] = field(default_factory=list)
    _sent: int = 0
    _read: int = 0

    @property
    def cookie(self) -> int:
        return cookie_of(self.near)

    def send(self, size: int) -> None:
        before_ns = time.monotonic_ns()
        self.far.sendall(b"x" * size)
        self.sends.append(Span(self._sent, self._sent + size, before_ns, time.monotonic_ns()))
        self._sent += size

    def arrive(self) -> None:
        """Wait until all that was sent can be read: a softirq that was put off delivers it after send() returned."""
        wait_until(lambda: waiting(self.near) == self._sent - self._read, PATIENCE_S, "all that was sent")

    def read(self, size: int, flags: int = 0) -> int:
        return self.read_by(lambda: len(self.near.recv(size, flags)))

    def read_by(self, call: Callable[[], int]) -> int:
        before_ns = time.monotonic_ns()
        got = call()
        if got:
            self.reads.append(Span(self._read, self._read + got, before_ns, time.monotonic_ns()))
        self._read += got
        return got

    def close(self) -> None:
        self.near.close()
        self.far.close()


def cookie_of(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 57, 8), "little")  # SO_COOKIE


def waiting(sock: socket.socket) -> int:
    """How many bytes could be read at once: SIOCINQ. The kernel has told of each of them: it asks under the lock."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), "little")


class Server:
    """A listening socket, and the connections that were made to it."""

    def __init__(self, address: str = "127.0.0.1", protocol: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listening = socket.socket(family, socket.SOCK_STREAM, protocol)
        self.listening.bind((address, 0))
        self.listening.listen()
        self.address: str = address
        self.port: int = self.listening.getsockname()[1]
        self.selector = Selector(self.port, packed(address))
        self._peers: list[Peers] = []

    def connect(self, near: socket.socket | None = None, to: str | None = None) -> Peers:
        near = near or socket.socket(self.listening.family, socket.SOCK_STREAM)
        cookie_of(near)  # asked for as the feed does: without one, a kprobe cannot tell sockets apart
        near.connect((to or self.address, self.port))
        far, _ = self.listening.accept()
        cookie_of(far)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near.settimeout(PATIENCE_S)
        self._peers.append(Peers(near, far))
        return self._peers[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peers in self._peers:
            peers.close()
        self.listening.close()


def spans(records: np.ndarray) -> list[tuple[int, int]]:
    return [(int(r["interval"]["from"]), int(r["interval"]["to"])) for r in records]


def assert_covers_once(records: np.ndarray, total: int) -> None:
    """Every byte from 0 to `total`, once and in order."""
    at = 0
    for begin, end in spans(records):
        assert begin == at < end
        at = end
    assert at == total


def assert_true_times(readable: np.ndarray, copied: np.ndarray, peers: Peers) -> None:
    """No byte is readable before its send began, nor copied before it was readable or outside the read that took it."""
    announced = [(*span, int(time_ns)) for span, time_ns in zip(spans(readable), readable["time_ns"], strict=True)]
    for _, end, time_ns in announced:
        assert _spanning(peers.sends, end - 1).before_ns <= time_ns
    for (begin, end), time_ns in zip(spans(copied), copied["time_ns"], strict=True):
        read = _spanning(peers.reads, begin)
        assert end <= read.end
        assert read.before_ns <= time_ns <= read.after_ns
        for other in itertools.islice(announced, bisect_right(announced, begin, key=itemgetter(1)), None):
            if other[0] >= end:
                break
            assert other[2] <= time_ns


def assert_readable_before_copied(readable: np.ndarray, copied: np.ndarray) -> None:
    """No byte was copied before it was readable: both cover the same bytes in order, so the last of each tells."""
    last = np.searchsorted(readable["interval"]["to"], copied["interval"]["to"])
    assert (readable["time_ns"][last] <= copied["time_ns"]).all()


def _spanning(calls: list[Span], byte: int) -> Span:
    found = calls[bisect_right(calls, byte, key=attrgetter("end"))]
    assert found.begin <= byte
    return found


def initial_sequence(near: socket.socket, received: int) -> int:
    """The peer's, as the kernel says by TCP_REPAIR: an oracle that is not ours."""
    near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    try:
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)
        sequence = near.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
    finally:
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE)
    return (sequence - received - 1) & 0xFFFFFFFF
