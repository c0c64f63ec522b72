# SPDX-License-Identifier: Apache-2.0
"""The exporter's engine: one thread that follows the rings and polls the correlator; everything else only looks."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import structlog

from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.rings import Correlates, Rings

log = structlog.get_logger()

SCAN_SECONDS = 0.25
SAVE_SECONDS = 1.0
# A ring holds 65,536 records by default: at a pause of 2 ms it would take 33 M records a second to lap this reader.
BUSY_PAUSE_SECONDS = 0.001
IDLE_PAUSE_SECONDS = 0.002
# A drain that brought this much was not the last: go on without a pause.
BEHIND_RECORDS = 8192
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
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)
        self._failure: str | None = None
        self._records = 0
        self._saved = 0
        self._polled = time.monotonic()

    def start(self) -> None:
        """Looks for rings once, so that those that are there now are attached, and starts polling."""
        with self._lock:
            self._rings.scan()
        self._polled = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Takes what producers have written up to now, finalises what waits, and remembers where it stood."""
        self._stopping.set()
        self._thread.join()
        if self._failure is None:
            for _ in range(_MAX_FINAL_DRAINS):
                taken = self._correlator.poll()
                self._records += taken
                if taken == 0:
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
                records=self._records + self._rings.records,
            )

    def failure(self) -> str | None:
        """Why rings are no longer read, for good; None while they are."""
        return self._failure

    def not_ready(self) -> str | None:
        """Why figures are not to be relied on now; None when they are."""
        if self._failure is not None:
            return self._failure
        if not self._thread.is_alive():
            return "rings are not being read: stopping" if self._stopping.is_set() else "rings are not being read yet"
        late = time.monotonic() - self._polled
        if late > STALLED_SECONDS:
            return f"rings have not been read for {late:.0f} s"
        return self._rings.directory_failure

    def _save(self) -> None:
        if self._records == self._saved:
            return
        self._saved = self._records
        with self._lock:
            cursors = self._rings.cursors(self._correlator.snapshot())
        self._cursors.save(cursors)

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            # The figures so far stay readable; that they no longer move is said by /-/ready and the log.
            log.exception("rings are no longer read")
            self._failure = f"rings are no longer read: {type(error).__name__}: {error}"

    def _follow(self) -> None:
        pause = BUSY_PAUSE_SECONDS
        scan_at = time.monotonic() + SCAN_SECONDS
        save_at = time.monotonic() + SAVE_SECONDS
        while not self._stopping.is_set():
            taken = self._correlator.poll()
            self._records += taken
            now = self._polled = time.monotonic()
            if now >= scan_at:
                with self._lock:
                    self._rings.scan()
                scan_at = now + SCAN_SECONDS
            if now >= save_at:
                self._save()
                save_at = now + SAVE_SECONDS
            if taken >= BEHIND_RECORDS:
                continue
            pause = BUSY_PAUSE_SECONDS if taken else min(2 * pause, IDLE_PAUSE_SECONDS)
            # Not self._stopping.wait(): that costs half as much again, and stop() can wait this long.
            time.sleep(pause)
