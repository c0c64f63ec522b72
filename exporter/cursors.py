# SPDX-License-Identifier: Apache-2.0
"""Where an exporter stood in each ring: kept in a small file, so that its successor can count what it skipped."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()

_MAX_BYTES = 1 << 20


class Cursor(msgspec.Struct, frozen=True):
    """The last record taken from a ring file; device and inode tell whether it is still the same file."""

    device: int
    inode: int
    record: int


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)


def _read(path: Path) -> bytes:
    """The content of a plain file of sane size; nothing that would block, as a pipe of that name would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise OSError(f"not a plain file of at most {_MAX_BYTES} bytes")
        return file.read(_MAX_BYTES)


class CursorFile:
    """Cursors by ring name. What cannot be read or written costs exactness of one counter, never the exporter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    def load(self) -> dict[str, Cursor]:
        """What the predecessor left; nothing where there was none, or where its file makes no sense."""
        try:
            return msgspec.json.decode(_read(self._path), type=dict[str, Cursor])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            log.warning("cursors of the exporter before cannot be read", path=str(self._path), reason=str(error))
            return {}

    def save(self, cursors: dict[str, Cursor]) -> None:
        """Replaces the file at once, so that a reader finds the old or the new one."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.unlink(missing_ok=True)
            # The directory is shared with producers: what one of them may have put there is not written through.
            with open(draft, "xb", opener=_private) as file:
                file.write(msgspec.json.encode(cursors))
            draft.replace(self._path)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning(
                    "cursors cannot be kept: a successor will count all it did not read as skipped",
                    path=str(self._path),
                    reason=error.strerror,
                )
