# SPDX-License-Identifier: Apache-2.0
"""A correlator that reads real rings and joins nothing: for tests of what surrounds the real one."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter_samples import empty_snapshot
from tickpath.errors import RingError
from tickpath.event import RECORD
from tickpath.exporter.snapshot import Polls, RingState, Snapshot
from tickpath.ring import RingReader


class FakeCorrelator:
    """Counts what it reads. `base` is what its snapshots say besides rings; `error` is raised by the next attach."""

    def __init__(self, base: Snapshot | None = None) -> None:
        self.base = base or empty_snapshot()
        self.error: Exception | None = None
        self.flushed = False
        self.polled = 0
        self._records = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock = threading.Lock()
        self._next = 0
        self._rings: dict[int, tuple[RingReader, int]] = {}
        self._buffer = np.zeros(1024, dtype=RECORD)

    def attach(self, path: Path, *, from_start: bool = False) -> int:
        if self.error:
            raise self.error
        reader = RingReader(path, from_start=from_start)
        with self._lock:
            self._next += 1
            self._rings[self._next] = (reader, reader.cursor)
            return self._next

    def detach(self, ring: int) -> None:
        with self._lock:
            self._rings.pop(ring)[0].close()

    def poll(self, now_ns: int | None = None) -> int:
        with self._lock:
            self.polled += 1
            taken = 0
            for reader, _ in self._rings.values():
                with suppress(RingError):  # one that was cut short reads as empty, as it does for the real one
                    taken += reader.read(self._buffer.view("u1"))
            self._records += taken
            return taken

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def polls(self) -> Polls | None:
        return None

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            self.poll()

    def flush(self) -> None:
        self.flushed = True

    def snapshot(self) -> Snapshot:
        states = []
        with self._lock:
            for ring, (reader, skipped) in self._rings.items():
                with suppress(RingError):
                    counters = {counter.name.lower(): count for counter, count in reader.counters().items() if count}
                    states.append(
                        RingState(
                            ring,
                            reader.name,
                            reader.kind,
                            reader.alive,
                            reader.lost,
                            skipped,
                            reader.cursor,
                            counters,
                        )
                    )
        return replace(self.base, rings=tuple(states), records=self._records)
