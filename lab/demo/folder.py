# SPDX-License-Identifier: Apache-2.0
"""The demo's folder: locked as long as the demo lives, so that what a killed one left can be told and removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tickpath.lab.demo.processes import DemoError

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "tickpath-demo-"
_NEEDED_BYTES = 24 << 20  # four rings of the default size, and what the parts say


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None when another demo does, or it is gone or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        named, held = folder.stat(), os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) and held.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None


def remove_leftovers(base: Path) -> None:
    """Removes the folders of this user's demos that did not live to do it themselves."""
    for folder in base.glob(f"{_PREFIX}*"):
        descriptor = _locked(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


@contextmanager
def demo_folder(base: Path = SHARED_MEMORY) -> Iterator[Path]:
    """A new folder in shared memory, where there is any, removed in the end. DemoError where none can be made."""
    base = base if base.is_dir() else Path(tempfile.gettempdir())
    remove_leftovers(base)
    free_bytes = shutil.disk_usage(base).free
    if free_bytes < _NEEDED_BYTES:
        raise DemoError(
            f"{base} has {free_bytes >> 20} MiB left, the demo needs {_NEEDED_BYTES >> 20}: free space there"
            " (in a container: give it a larger /dev/shm)"
        )
    descriptor = None
    while descriptor is None:  # another demo may take an unlocked folder for a leftover
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        except OSError as error:
            raise DemoError(
                f"cannot make a folder in {base}: {error.strerror}; free space there, or allow it"
            ) from None
        descriptor = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.close(descriptor)
