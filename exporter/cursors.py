# SPDX-License-Identifier: Apache-2.0
"""Where an exporter stood in each ring: kept in a small file, so that its successor can count what it skipped."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()


class Cursor(msgspec.Struct, frozen=True):
    """The last record taken from a ring file; device and inode tell whether it is still the same file."""

    device: int
    inode: int
    record: int


class CursorFile:
    """Cursors by ring name. What cannot be read or written costs exactness of one counter, never the exporter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    def load(self) -> dict[str, Cursor]:
        """What the predecessor left; nothing where there was none, or where its file makes no sense."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Cursor])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            log.warning("cursors of the exporter before cannot be read", path=str(self._path), reason=str(error))
            return {}

    def save(self, cursors: dict[str, Cursor]) -> None:
        """Replaces the file at once, so that a reader finds the old or the new one."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_bytes(msgspec.json.encode(cursors))
            draft.replace(self._path)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning(
                    "cursors cannot be kept: a successor will count all it did not read as skipped",
                    path=str(self._path),
                    reason=error.strerror,
                )
