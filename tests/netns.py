# SPDX-License-Identifier: Apache-2.0
"""Test networks out of network namespaces, veth and TAP pairs, of which nothing can stay behind.

A namespace here has no name: it lives as long as the process that holds it, and the kernel ends that process with ours,
however ours ends. With it go all interfaces inside; a TAP goes with its descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_TAP, _IFF_NAPI, _IFF_NO_PI = 0x01, 0x02, 0x10, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@contextlib.contextmanager
def entered(path: Path) -> Iterator[None]:
    """The calling thread is inside the namespace that `path` names: sockets made there stay there."""
    with open("/proc/thread-self/ns/net") as home, path.open() as here:  # noqa: PTH123 - a pair is read best
        _enter(here.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


class Namespace:
    """A network namespace with its loopback up. Use as a context manager; root only."""

    def __init__(self) -> None:
        # setpriv stays the same process through all three: the kernel's promise to kill it with us is kept by exec.
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")
        own = Path("/proc/self/ns/net").stat().st_ino
        deadline = time.monotonic() + 60
        while (inode := self._inode()) in (0, own):
            if time.monotonic() > deadline or self._holder.poll() is not None:
                self.close()
                raise RuntimeError("no network namespace could be made")
            time.sleep(0.005)
        self.inode = inode
        self.ip("link", "set", "lo", "up")

    def _inode(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The argument vector that runs another one inside."""
        return ["nsenter", f"--net={self._path}", "--", *map(str, argv)]

    def run(self, *argv: str | Path) -> str:
        """Run to its end inside; its standard output. RuntimeError with what it said when it fails."""
        done = subprocess.run(self.command(argv), capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
        return done.stdout

    def ip(self, *arguments: str) -> str:
        return self.run("ip", *arguments)

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start inside; the caller ends it."""
        return subprocess.Popen(self.command(argv), **options)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside."""
        with entered(self._path):
            yield

    def address(self, device: str, *addresses: str) -> None:
        """Give a device its addresses and set it up. IPv6 ones are usable at once."""
        for address in addresses:
            self.ip("addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        self.ip("link", "set", device, "up")

    def tap(self, device: str, *, napi: bool = False, tun: bool = False) -> int:
        """A TAP (or TUN: frames without an Ethernet header) inside; its descriptor, non-blocking. Gone when closed."""
        with self.entered():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            flags = (_IFF_TUN if tun else _IFF_TAP) | _IFF_NO_PI | (_IFF_NAPI if napi else 0)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), flags))
        return fd

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def veth(here: Namespace, there: Namespace, device: str = "veth0") -> None:
    """A pair of that name in both namespaces, down and without addresses."""
    here.ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", str(there._holder.pid))


Policy = Callable[[int, bytes], list[bytes]]


class Shuttle:
    """Joins two TAPs: a thread that carries each frame across as `policy(side, frame)` says, whole by default.

    `side` is 0 for a frame that left the first TAP; the policy returns the frames to deliver at the other one.
    """

    def __init__(self, first: int, second: int, policy: Policy = lambda _, frame: [frame]) -> None:
        self._fds = (first, second)
        self._policy = policy
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while True:
            readable, _, _ = select.select([*self._fds, self._stop], [], [])
            if self._stop in readable:
                return
            for fd in readable:
                with contextlib.suppress(BlockingIOError, OSError):  # down for a moment: frames are lost, as on a wire
                    while True:
                        side = self._fds.index(fd)
                        for frame in self._policy(side, os.read(fd, 1 << 17)):
                            os.write(self._fds[1 - side], frame)

    def close(self) -> None:
        """Stop carrying; the TAPs stay the caller's."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
