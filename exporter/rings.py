# SPDX-License-Identifier: Apache-2.0
"""The ring files of a directory, kept attached to the correlator as they come, change and go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from tickpath.errors import RingError
from tickpath.exporter.cursors import Cursor
from tickpath.exporter.exposition.label import label, printable
from tickpath.exporter.snapshot import Polls, RingState, Snapshot
from tickpath.ring import SUFFIX, RingReader

log = structlog.get_logger()

MAX_RINGS = 64
"""Rings attached at the same time: the correlator's inputs. A dead producer's gives way to a living one's."""
_MAX_NAMED_UNREADABLE = 50
_MAX_LISTED = 10_000
_MAX_PAUSE_SCANS = 16
_MAX_RETIRED = 1000
_MAX_DRAINS = 64
_UNLISTED = f"more than {_MAX_LISTED} ring files: those beyond are not looked at; remove the dead ones"


class Correlates(Protocol):
    """What is asked of the correlator here; exporter.correlator.Correlator is one."""

    def attach(self, path: Path, *, from_start: bool = False) -> int:
        """The id of the ring. RingError when the file cannot be trusted."""

    def detach(self, ring: int) -> None:
        """Forget the ring."""

    def start(self) -> None:
        """Poll from a thread of its own. OSError where there is none to be had."""

    def stop(self) -> None:
        """End that thread."""

    def polls(self) -> Polls | None:
        """What that thread did; None while there is none."""

    def poll(self, now_ns: int | None = None) -> int:
        """Drain all rings once; the number of records."""

    def flush(self) -> None:
        """Finalise every message that still waits."""

    def snapshot(self) -> Snapshot:
        """A consistent state."""


@dataclass(frozen=True, slots=True)
class _File:
    """Which file a name means now. A ring's size never changes: one that was cut short is another file to us."""

    device: int
    inode: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Attached:
    ring: int
    file: _File
    predecessor: int
    """Last record that the exporter before this one took from the same file; 0: there was none."""


@dataclass(frozen=True, slots=True)
class _Refused:
    file: _File
    why: str
    said: bool
    stood: bool
    """It was there at the first scan and found no room: what it held then was another's to read."""
    retry_scan: int
    pause_scans: int


@dataclass(frozen=True, slots=True)
class RingTotals:
    """Attached rings under the names of their files, and losses that outlive a ring."""

    rings: tuple[RingState, ...]
    lost: Mapping[str, int]
    skipped: Mapping[str, int]
    modes: frozenset[tuple[str, str, str]]
    """(probe, hook, mode) of every living producer that says how it sees"""


class Rings:
    """Follows a directory. Not thread-safe: scan() and totals() belong under one lock."""

    def __init__(self, correlator: Correlates, directory: Path, predecessor: Mapping[str, Cursor]) -> None:
        self._correlator = correlator
        self._directory = directory
        self._predecessor = dict(predecessor)
        self._attached: dict[str, _Attached] = {}
        self._refused: dict[str, _Refused] = {}
        self._retired_lost: Counter[str] = Counter()
        self._retired_skipped: Counter[str] = Counter()
        self._scans = 0
        self._unlisted = False
        self.unreadable_total = 0
        self.directory_failure: str | None = None

    @property
    def unreadable(self) -> dict[str, str]:
        """Why each file that cannot be used cannot, by ring name; the first few of a crowd."""
        said = ((name, refused.why) for name, refused in self._refused.items() if refused.said)
        named = {label(name): label(why) for name, why in islice(said, _MAX_NAMED_UNREADABLE)}
        return {"": _UNLISTED, **named} if self._unlisted else named

    def scan(self) -> None:
        """Attaches what is new, detaches what is gone or was replaced."""
        found = self._look()
        if found is None:
            return
        for name, attached in list(self._attached.items()):
            if found.get(name) != attached.file:
                self._retire(name, attached)
        for name in [name for name in self._refused if name not in found]:
            del self._refused[name]
        for name, file in sorted(found.items()):
            refused = self._refused.get(name)
            waits = refused is not None and refused.file == file and self._scans < refused.retry_scan
            if name not in self._attached and not waits:
                self._try(name, file)
        self._scans += 1

    def _look(self) -> dict[str, _File] | None:
        """Ring files by name; None while the directory cannot be read."""
        found: dict[str, _File] = {}
        unlisted = False
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    name = entry.name.removesuffix(SUFFIX)
                    if name == entry.name or not entry.is_file(follow_symlinks=False):
                        continue
                    if len(found) < _MAX_LISTED or name in self._attached:
                        status = entry.stat(follow_symlinks=False)
                        found[name] = _File(status.st_dev, status.st_ino, status.st_size)
                    else:
                        unlisted = True
        except FileNotFoundError:
            if not self._directory.is_dir():
                self._complain(f"ring directory {self._directory} is not there")
                return None
            return self._look()  # a file went between listing and looking
        except OSError as error:
            self._complain(f"ring directory {self._directory} cannot be read: {error.strerror}")
            return None
        self.directory_failure = None
        if unlisted and not self._unlisted:
            log.error("ring_directory", reason=_UNLISTED)
            self.unreadable_total += 1
        self._unlisted = unlisted
        return found

    def _complain(self, why: str) -> None:
        if self.directory_failure != why:
            log.error("ring_directory", reason=why)
        self.directory_failure = why

    def _try(self, name: str, file: _File) -> None:
        path = self._directory / (name + SUFFIX)
        refused = self._refused.get(name)
        before = self._predecessor.get(name)
        same = before is not None and (before.device, before.inode) == (file.device, file.inode)
        for_room = len(self._attached) >= MAX_RINGS and not (_lives(path) and self._make_room())
        # A ring that was made while we were looking is read from its first record: nobody else will. One that was there
        # and had no room is not: another has read it.
        known = same or (refused is not None and refused.file == file and refused.stood)
        try:
            if for_room:
                raise RingError(f"{path}: {MAX_RINGS} rings are attached already")  # noqa: TRY301
            ring = self._correlator.attach(path, from_start=self._scans > 0 and not known)
        except RingError as error:
            self._refuse(name, file, str(error), for_room=for_room)
            return
        self._refused.pop(name, None)
        self._predecessor.pop(name, None)
        self._attached[name] = _Attached(ring, file, before.record if before is not None and same else 0)
        log.info("ring_attached", ring=printable(name))

    def _make_room(self) -> bool:
        """Lets go of a ring whose producer is dead, remembering where it stood should that come back."""
        for state in self._correlator.snapshot().rings:
            for name, attached in self._attached.items():
                if attached.ring == state.ring and not state.alive:
                    cursor = self._retire(name, attached)
                    if len(self._predecessor) < _MAX_RETIRED:
                        self._predecessor[name] = Cursor(attached.file.device, attached.file.inode, cursor)
                    return True
        return False

    def _refuse(self, name: str, file: _File, why: str, *, for_room: bool) -> None:
        """Says so once per file and reason, and not at the first sight of it: it may be in the making.

        A file that stays as bad as it is gets looked at less and less often, so that a crowd of them costs little.
        """
        before = self._refused.get(name)
        again = before is not None and (before.file, before.why) == (file, why)
        if before is not None and again and not before.said:
            log.warning("ring_unusable", ring=printable(name), reason=printable(why))
            self.unreadable_total += 1
        pause = min(2 * before.pause_scans, _MAX_PAUSE_SCANS) if before is not None and again else 1
        stood = before is not None and before.file == file and before.stood
        stood |= for_room and self._scans == 0
        self._refused[name] = _Refused(file, why, again, stood, self._scans + pause, pause)

    def _retire(self, name: str, attached: _Attached) -> int:
        """Lets go of a ring; the last record taken from it."""
        cursor = 0
        # Its producer may have written up to the moment at which the file went: take that too.
        for _ in range(_MAX_DRAINS):
            if self._correlator.poll() == 0:
                break
        for state in self._correlator.snapshot().rings:
            if state.ring == attached.ring:
                cursor = state.cursor
                # A crowd of names that come and go must not grow this for ever; their counts are kept under one.
                known = name in self._retired_lost or len(self._retired_lost) < _MAX_RETIRED
                self._retired_lost[name if known else ""] += state.lost
                self._retired_skipped[name if known else ""] += _skipped(state, attached)
        self._correlator.detach(attached.ring)
        del self._attached[name]
        log.info("ring_detached", ring=printable(name))
        return cursor

    def totals(self, snapshot: Snapshot) -> RingTotals:
        """The rings of a snapshot, each under the name of its file."""
        names = {attached.ring: (name, attached) for name, attached in self._attached.items()}
        lost = Counter({label(name): count for name, count in self._retired_lost.items()})
        skipped = Counter({label(name): count for name, count in self._retired_skipped.items()})
        rings = []
        modes: set[tuple[str, str, str]] = set()
        for state in snapshot.rings:
            if state.ring in names:
                name, attached = names[state.ring]
                if state.alive and state.kind == "kernel":
                    modes.update(_modes(self._directory / (name + SUFFIX)))
                rings.append(replace(state, name=label(name)))
                lost[label(name)] += state.lost
                skipped[label(name)] += _skipped(state, attached)
        return RingTotals(tuple(rings), lost, skipped, frozenset(modes))

    def cursors(self, snapshot: Snapshot) -> dict[str, Cursor]:
        """Where this reader stands, for its successor."""
        by_ring = {state.ring: state.cursor for state in snapshot.rings}
        return {
            label(name): Cursor(attached.file.device, attached.file.inode, by_ring[attached.ring])
            for name, attached in self._attached.items()
            if attached.ring in by_ring
        }


def _lives(path: Path) -> bool:
    try:
        with RingReader(path) as reader:
            return reader.alive
    except RingError:
        return False


def _modes(path: Path) -> list[tuple[str, str, str]]:
    try:
        with RingReader(path) as reader:
            return [(probe, hook, mode) for probe, hooks in reader.modes().items() for hook, mode in hooks.items()]
    except RingError:
        return []  # it went meanwhile; the next scan says so


def _skipped(state: RingState, attached: _Attached) -> int:
    """Records that neither this reader nor its predecessor took. A cursor past the ring's head is of another file."""
    if attached.predecessor > state.skipped:
        return state.skipped
    return state.skipped - attached.predecessor
