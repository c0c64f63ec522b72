# SPDX-License-Identifier: Apache-2.0
"""Ports of loopback that are a test's alone: for a server that comes later or again, and for one that never comes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


class HeldPort:
    """A port that a process of the test may listen on, now and again, and nobody else is given meanwhile.

    A port found free and let go is the next test's in the process beside as well. Bound and never listened on, with
    SO_REUSEADDR, it is left to servers that ask for it by number, as all of ours do; the kernel chooses it for nobody:
    not for a server that takes any port, and not as the near end of a connection (whose far end it may even be).
    """

    def __init__(self) -> None:
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number = int(self._holder.getsockname()[1])

    def close(self) -> None:
        """Let it go."""
        self._holder.close()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, nor will."""
    with contextlib.closing(HeldPort()) as held:
        yield held.number
