# SPDX-License-Identifier: Apache-2.0
"""What the wire probe's tests share: a capture in this process, and records by kind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from netns import Namespace
from tickpath.clock import read_realtime
from tickpath.event import RECORD, Counter, Kind
from tickpath.probes.wire._capture import SNAP_BYTES, Capture
from tickpath.probes.wire.config import BLOCK_BYTES
from tickpath.probes.wire.filter import compile_filter
from tickpath.ring import RingReader, RingWriter
from tickpath.selector import Selector


class Reader:
    """Everything that a ring was given since this began to read."""

    def __init__(self, path: Path) -> None:
        self.ring = RingReader(path)
        self._taken = np.zeros(0, RECORD)

    def all(self) -> np.ndarray:
        out = np.zeros(4096, RECORD)
        while count := self.ring.read(out.view("u1")):
            self._taken = np.concatenate([self._taken, out[:count]])
        assert self.ring.lost == 0
        return self._taken

    def of(self, kind: Kind) -> np.ndarray:
        records = self.all()
        return records[records["kind"] == kind]

    def wait(self, kind: Kind, count: int, seconds: float = 60) -> np.ndarray:
        """At least so many records of a kind; AssertionError when they do not come."""
        wait_until(lambda: len(self.of(kind)) >= count, seconds, f"{count} {kind.name}")
        return self.of(kind)

    def count(self, counter: Counter) -> int:
        return self.ring.counters()[counter]


def realtime_offset_ns() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC, from the shortest of many readings: the reader may lose its processor."""
    reading = read_realtime(50)
    return reading.time_ns - (reading.before_ns + reading.after_ns) // 2


def wait_until(true: Callable[[], bool], seconds: float = 200, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.005)


class Capturing:
    """One interface captured by a thread of this process. `namespace` None: our own."""

    def __init__(
        self,
        directory: Path,
        interface: str,
        selectors: Sequence[Selector],
        namespace: Namespace,
        *,
        rows: int = 64,
        buffer_bytes: int = 1 << 23,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._capture = Capture(
            interface,
            compile_filter(selectors, ethernet=True, snap_bytes=SNAP_BYTES),
            compile_filter(selectors, ethernet=False, snap_bytes=SNAP_BYTES),
            selectors,
        )
        with namespace.entered():
            self._capture.open(buffer_bytes=buffer_bytes, block_bytes=block_bytes, hardware=False)
        self._ring = RingWriter(directory, f"wire-{interface}", "wire", rows=rows)
        self._capture.write_to(self._ring, rows=rows, netns=namespace.inode)
        self.reader = Reader(self._ring.path)
        self._stop = os.eventfd(0)
        self.ended: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.ended = self._capture.run(self._stop)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the capture: all that came in so far is recorded then. The ring stays."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop()
        self._capture.close()
        self._ring.close()
        os.close(self._stop)
