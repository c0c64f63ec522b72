# SPDX-License-Identifier: Apache-2.0
"""A client that keeps every byte, and the plainest reading of them: the oracle for the simulator's log."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Heard:
    """One connection's bytes as they came, and what they mean."""

    stream: bytes = b""
    """Every byte of the TCP stream."""
    plain: bytearray = field(default_factory=bytearray)
    records: list[tuple[int, int, int]] = field(default_factory=list)
    """Under TLS: (plaintext end, stream begin, stream end) of each record that held plaintext."""
    chunks: list[int] = field(default_factory=list)
    """Bytes per recv()."""
    response: bytes = b""
    messages: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(begin offset, end offset, payload) of each text message."""
    frames: list[int] = field(default_factory=list)
    """Opcodes, in order."""
    broken: str = ""
    """Why the reading stopped before the end, if it did."""
    reset: bool = False


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    size = len(payload)
    assert size < 65536
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    )
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Listener:
    """Connects, upgrades, reads until the server ends the connection; answers Close and, unless told not to, pings."""

    def __init__(self, port: int, path: str, ca: Path | None = None, *, pong: bool = True) -> None:
        self.heard = Heard()
        self._pong = pong
        self._parsed = 0
        self._fragments: tuple[int, bytes] | None = None
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._tls: ssl.SSLObject | None = None
        if ca is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context(cafile=str(ca))
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
            self._unfed = b""
            self._shake()
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def request(self, text: str) -> None:
        """Send a text message."""
        self.send(_masked(0x1, text.encode()))

    def close(self) -> None:
        """Send Close."""
        self.send(_masked(0x8, struct.pack("!H", 1000)))

    def send(self, plain: bytes) -> None:
        """Send bytes through TLS, if there is any."""
        if self._tls is None:
            self.sock.sendall(plain)
        else:
            self._tls.write(plain)
            self.sock.sendall(self._outgoing.read())

    def read_all(self) -> Heard:
        """Until the server ends the connection or its bytes make no sense."""
        while not self.heard.broken and self.read_some():
            pass
        self.sock.close()
        return self.heard

    def read_messages(self, count: int) -> Heard:
        """Until so many text messages are there."""
        while len(self.heard.messages) < count and self.read_some():
            pass
        return self.heard

    def read_some(self) -> bool:
        """One recv(); false at the end of the stream."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            self.heard.reset = True
            return False
        if not data:
            return False
        self.heard.chunks.append(len(data))
        self.heard.stream += data
        if self._tls is None:
            self.heard.plain += data
        else:
            self._unfed += data
            try:
                self._feed_records()
            except ssl.SSLError as error:
                self.heard.broken = str(error)
        try:
            self._parse()
        except ValueError as error:
            self.heard.broken = str(error)
        return True

    def _shake(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                data = self.sock.recv(1 << 16)
                assert data, "the server ended the TLS handshake"
                self.heard.stream += data
                self._unfed += data
                while record := self._next_record():
                    self._incoming.write(record)
            else:
                self.sock.sendall(self._outgoing.read())
                return

    def _next_record(self) -> bytes | None:
        if len(self._unfed) < 5:
            return None
        size = 5 + int.from_bytes(self._unfed[3:5], "big")
        if len(self._unfed) < size:
            return None
        record, self._unfed = self._unfed[:size], self._unfed[size:]
        return record

    def _feed_records(self) -> None:
        assert self._tls is not None
        while True:
            begin = len(self.heard.stream) - len(self._unfed)
            record = self._next_record()
            if record is None:
                return
            self._incoming.write(record)
            before = len(self.heard.plain)
            while True:
                try:
                    part = self._tls.read(1 << 16)
                except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    break
                if not part:
                    break
                self.heard.plain += part
            if len(self.heard.plain) > before:
                self.heard.records.append((len(self.heard.plain), begin, begin + len(record)))
            if answer := self._outgoing.read():  # a key update of ours
                self.sock.sendall(answer)

    def _offsets(self, begin: int, end: int) -> tuple[int, int]:
        if self._tls is None:
            return begin, end
        first = next(record for record in self.heard.records if record[0] > begin)
        last = next(record for record in self.heard.records if record[0] >= end)
        return first[1], last[2]

    def _parse(self) -> None:
        plain = self.heard.plain
        if not self.heard.response:
            at = plain.find(b"\r\n\r\n")
            if at < 0:
                return
            self.heard.response = bytes(plain[: at + 4])
            self._parsed = at + 4
        if not self.heard.response.startswith(b"HTTP/1.1 101"):
            return
        while True:
            at = self._parsed
            if len(plain) < at + 2:
                return
            first, second = plain[at], plain[at + 1]
            opcode = first & 0x0F
            if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or second & 0x80:
                raise ValueError("no frame")
            size, head = second, 2
            if size == 126:
                size, head = int.from_bytes(plain[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(plain[at + 2 : at + 10], "big"), 10
            end = at + head + size
            if len(plain) < end or (size in (126, 127) and len(plain) < at + head):
                return
            self._take(first >> 7, opcode, at, end, bytes(plain[at + head : end]))
            self._parsed = end

    def _take(self, fin: int, opcode: int, begin: int, end: int, payload: bytes) -> None:
        self.heard.frames.append(opcode)
        if opcode == 0x9 and self._pong:
            self.send(_masked(0xA, payload))
        elif opcode == 0x8:
            self.send(_masked(0x8, payload))
        elif opcode in (0x0, 0x1):
            if opcode == 0x0:
                assert self._fragments is not None
                begin, payload = self._fragments[0], self._fragments[1] + payload
            if fin:
                self._fragments = None
                self.heard.messages.append((*self._offsets(begin, end), payload))
            else:
                self._fragments = (begin, payload)
