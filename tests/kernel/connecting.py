# SPDX-License-Identifier: Apache-2.0
"""How applications connect and learn what became of it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import select
import socket

from kernel.tracing import cookie_of
from wire.capturing import wait_until

SYN_SENT = 2  # of tcpi_state


def connect(near: socket.socket, address: str, port: int, *, blocking: bool) -> str | None:
    """The error's name as the application saw it; None: it is connected."""
    cookie_of(near)
    near.setblocking(blocking)
    number = near.connect_ex((address, port))
    if number == errno.EINPROGRESS:
        # Who asks sooner may take the error before the socket has stepped: docs/kernel.md.
        wait_until(lambda: near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != SYN_SENT, what="the step")
        assert select.select([], [near], [], 10)[1]
        number = near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[number] if number else None


def took_at_once(near: socket.socket) -> multiprocessing.Process:
    """A process that asks for the socket's error as fast as it can, until there is one: it ends with that."""

    def take() -> None:
        while not (error := near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            pass
        os._exit(error)

    taking = multiprocessing.get_context("fork").Process(target=take, daemon=True)
    taking.start()
    return taking
