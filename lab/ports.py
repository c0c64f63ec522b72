# SPDX-License-Identifier: Apache-2.0
"""A port of loopback for a server that starts later, or again: nobody else is given it meanwhile."""

from __future__ import annotations

import socket


class HeldPort:
    """Bound with SO_REUSEADDR and never listened on.

    It is left to a server that asks for it by number and with SO_REUSEADDR, as servers do; the kernel chooses it for
    nobody: not for a server that takes any port, nor as the near end of a connection (even of one to this very port).
    """

    def __init__(self) -> None:
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number = int(self._holder.getsockname()[1])

    def close(self) -> None:
        """Let it go."""
        self._holder.close()
