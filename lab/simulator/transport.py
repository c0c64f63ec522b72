# SPDX-License-Identifier: Apache-2.0
"""What lies between frames and the TCP stream: nothing (ws) or TLS (wss), sealed record by record."""

from __future__ import annotations

from typing import Protocol

from tickpath.errors import InputError
from tickpath.lab.simulator.config import KeyUpdate


class Transport(Protocol):
    """Bytes are sealed in the order in which they are sent; nothing here touches the socket."""

    record_max_bytes: int | None
    """Plaintext bytes that one sealed piece may hold; None: any number, and the bytes stay as they are."""

    def open(self, data: bytes) -> bytes:
        """Plaintext of what came from the client. Raises InputError when it is not what the protocol allows."""

    def answer(self) -> bytes:
        """What the protocol itself now has to send: handshake, tickets, key updates."""

    def seal(self, plain: bytes) -> bytes:
        """The bytes to send for one piece: under TLS exactly one record."""

    def update_key(self, kind: KeyUpdate) -> None:
        """TLS 1.3 KeyUpdate; `answer` then has its bytes."""

    def farewell(self) -> bytes:
        """What ends the stream before TCP's FIN: TLS's close_notify."""


class PlainTransport:
    """ws."""

    record_max_bytes: int | None = None

    def open(self, data: bytes) -> bytes:
        return data

    def answer(self) -> bytes:
        return b""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def update_key(self, kind: KeyUpdate) -> None:
        raise InputError(f"no TLS here to send a KeyUpdate ({kind.value}) on")

    def farewell(self) -> bytes:
        return b""
