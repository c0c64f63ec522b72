# SPDX-License-Identifier: Apache-2.0
"""A ring of one process: a command that shows what a probe records writes and reads it itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tickpath.ring import RingReader, RingWriter

_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def own_ring(name: str, kind: str, *, capacity: int, rows: int) -> Iterator[tuple[RingWriter, RingReader]]:
    """A ring that nobody else can find, and that is gone with this process however it ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"tickpath-{name}-", dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None))
    try:
        writer = RingWriter(folder, name, kind, capacity=capacity, rows=rows)
        reader = RingReader(writer.path)
    finally:
        shutil.rmtree(folder)
    with writer, reader:
        yield writer, reader
