# SPDX-License-Identifier: Apache-2.0
"""The exporter's engine: the correlator polls by itself, a thread follows the rings; everything else only looks."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import structlog

from tickpath.errors import TickpathError
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.rings import Correlates, Rings

log = structlog.get_logger()

SCAN_SECONDS = 0.25
SAVE_SECONDS = 1.0
STALLED_SECONDS = 5.0
_MAX_FINAL_DRAINS = 1000


class Service:
    """Owns the correlator. observe(), failure() and not_ready() may be called from any thread."""

    def __init__(self, correlator: Correlates, directory: Path, cursors: CursorFile) -> None:
        self._correlator = correlator
        self._cursors = cursors
        self._rings = Rings(correlator, directory, cursors.load())
        # Held while rings come and go and while their names are looked up, never while records are joined.
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._failure: str | None = None
        self._saved = 0
        self._started_ns = time.time_ns()

    def start(self) -> None:
        """Looks for rings once, so that those that are there now are attached, and starts polling.

        Raises TickpathError where the host gives no thread.
        """
        with self._lock:
            self._rings.scan()
        try:
            self._correlator.start()
            self._thread.start()
        except (OSError, RuntimeError) as error:
            raise TickpathError(f"cannot start a thread: {error}; raise the limit on tasks (ulimit -u)") from error

    def stop(self) -> None:
        """Takes what producers have written up to now, finalises what waits, and remembers where it stood."""
        self._stopping.set()
        self._thread.join()
        self._correlator.stop()
        for _ in range(_MAX_FINAL_DRAINS):
            if self._correlator.poll() == 0:
                break
        self._correlator.flush()
        self._save()

    def observe(self) -> Observation:
        """The state now; joined and counted records only, taken between two polls."""
        with self._lock:
            snapshot = self._correlator.snapshot()
            totals = self._rings.totals(snapshot)
            return Observation(
                snapshot=replace(snapshot, rings=totals.rings),
                lost=totals.lost,
                skipped=totals.skipped,
                unreadable=self._rings.unreadable,
                unreadable_total=self._rings.unreadable_total,
                started_ns=self._started_ns,
                polls=self._correlator.polls(),
                modes=totals.modes,
            )

    def failure(self) -> str | None:
        """Why rings are no longer followed, for good; None while they are."""
        return self._failure

    def not_ready(self) -> str | None:
        """Why figures are not to be relied on now; None when they are."""
        if self._failure is not None:
            return self._failure
        if not self._thread.is_alive():
            return "rings are not being read: stopping" if self._stopping.is_set() else "rings are not being read yet"
        polls = self._correlator.polls()
        late = (time.monotonic_ns() - polls.last_ns) / 1e9 if polls and polls.last_ns else 0.0
        if late > STALLED_SECONDS:
            return f"rings have not been read for {late:.0f} s"
        return self._rings.directory_failure

    def _save(self) -> None:
        with self._lock:
            snapshot = self._correlator.snapshot()
            cursors = self._rings.cursors(snapshot)
        if snapshot.records == self._saved:
            return
        self._saved = snapshot.records
        self._cursors.save(cursors)

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            # What is attached is still read; that nothing new will be is said by /-/ready and the log.
            log.exception("rings are no longer followed")
            self._failure = f"rings that come or go are no longer noticed: {type(error).__name__}: {error}"

    def _follow(self) -> None:
        save_at = time.monotonic() + SAVE_SECONDS
        while not self._stopping.wait(SCAN_SECONDS):
            with self._lock:
                self._rings.scan()
            now = time.monotonic()
            if now >= save_at:
                self._save()
                save_at = now + SAVE_SECONDS
