# SPDX-License-Identifier: Apache-2.0
"""The server's half of TLS over memory BIOs, with what Python's ssl lacks: chosen record ends, KeyUpdate, padding."""

class Context:
    """One certificate and one protocol version, for any number of sessions.

    `version` is "1.2" or "1.3". Raises TickpathError when OpenSSL refuses any of the three.
    """

    def __init__(self, certificate_pem: bytes, key_pem: bytes, version: str) -> None: ...

class Session:
    """One connection. Bytes from the client go into `open`, bytes for it come out of `seal` and `answer`.

    `pad_bytes`: TLS 1.3 records are padded to a multiple of it (RFC 8446, 5.4); 0: not at all.
    """

    def __init__(self, context: Context, pad_bytes: int = 0) -> None: ...
    @property
    def established(self) -> bool:
        """Whether the handshake is over."""
    @property
    def version(self) -> str:
        """As agreed, e.g. `TLSv1.3`."""
    def open(self, data: bytes) -> bytes:
        """Take bytes of the client; returns the plaintext that became whole. Raises InputError on broken TLS."""
    def answer(self) -> bytes:
        """Whole records that TLS itself has to send: handshake, tickets, KeyUpdate, alerts."""
    def seal(self, plain: bytes) -> bytes:
        """One record of up to 16384 bytes of plaintext; call `answer` before, so that nothing else is in the bytes."""
    def update_key(self, request: bool) -> None:
        """Have a KeyUpdate sent by the next `answer`; with `request` the client must answer with its own."""
    def farewell(self) -> bytes:
        """The close_notify alert; empty before the handshake is over."""
