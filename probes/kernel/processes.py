# SPDX-License-Identifier: Apache-2.0
"""The TCP sockets that a process holds now, borrowed by pidfd: their records need not wait for its next read."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tickpath.errors import ConfigError

_PIDFD_GETFD = 438  # the same number on every architecture
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"


def check(pids: Sequence[int]) -> None:
    """ConfigError where a process is not there, or where its number means another to the kernel."""
    if not pids:
        return
    if str(Path("/proc/self/ns/pid").readlink()) != _INITIAL_PID_NAMESPACE:
        raise ConfigError(
            "pid counts processes of the host: start the probe in its pid namespace (--pid=host), not here"
        )
    for pid in pids:
        # A thread has a folder as well, and is not what its sockets are known by.
        if not Path(f"/proc/{pid}").exists() or f"Tgid:\t{pid}\n" not in Path(f"/proc/{pid}/status").read_text():
            raise ConfigError(f"there is no process {pid}")


@contextmanager
def tcp_sockets(pid: int) -> Iterator[list[socket.socket]]:
    """Its TCP sockets, open here too while the context lasts. OSError: it ended, or may not be looked into."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    held: list[socket.socket] = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if not str(entry.readlink()).startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue  # closed meanwhile
            fd = libc.syscall(_PIDFD_GETFD, pidfd, int(entry.name), 0)
            if fd < 0 and ctypes.get_errno() == errno.EBADF:  # closed meanwhile
                continue
            if fd < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            taken = socket.socket(fileno=fd)
            if taken.proto == socket.IPPROTO_TCP and taken.type == socket.SOCK_STREAM:
                held.append(taken)
            else:
                taken.close()
        yield held
    finally:
        for taken in held:
            taken.close()
        os.close(pidfd)
