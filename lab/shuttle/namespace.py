# SPDX-License-Identifier: Apache-2.0
"""Work inside a network namespace that is known by a path."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tickpath.errors import PermissionMissingError, TickpathError

_CLONE_NEWNET = 0x40000000


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise PermissionMissingError(
            f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}; needs root (CAP_SYS_ADMIN)"
        )


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """The calling thread, and no other, works in `namespace`; sockets made there stay there for their life."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        target = os.open(namespace, os.O_RDONLY)
        try:
            _setns(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def run_inside(namespace: Path, argv: Sequence[str], given: str = "") -> None:
    """Run a short command to its end, with `given` as its input. Raises TickpathError with what it said."""
    command = ["nsenter", f"--net={namespace}", "--", *argv]
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False)
    if done.returncode:
        raise TickpathError(f"{argv[0]}: {' '.join(done.stderr.split())}")


def start_inside(namespace: Path, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a program, with subprocess.Popen's options; it is killed when the thread that started it ends."""
    command = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={namespace}", "--", *argv]
    return subprocess.Popen(command, **options)
