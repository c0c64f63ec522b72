# SPDX-License-Identifier: Apache-2.0
"""A scripted WebSocket server that keeps its own account of every byte it sends: the tests' truth.

It shares no code with the product: frames are built here, TLS is the standard library's over memory, and the stream
offset is the plain sum of what went into the TCP socket.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """An unmasked frame, as a server sends it."""
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return struct.pack("!BB", first, len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


def make_certificate(directory: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """A throw-away certificate that is its own authority: (certificate, key)."""
    certificate, key = directory / "server.pem", directory / "server.key"
    alternative = f"IP:{name}" if name[0].isdigit() else f"DNS:{name}"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={alternative}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def server_context(certificate: Path, key: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A server side that speaks one TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(certificate, key)
    return context


@dataclass
class Peer:
    """The server's side of one connection."""

    sock: socket.socket
    tls: ssl.SSLObject | None = None
    incoming: ssl.MemoryBIO | None = None
    outgoing: ssl.MemoryBIO | None = None
    sent: int = 0
    ends: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    request: bytes = b""

    def raw(self, data: bytes) -> None:
        """Bytes onto the wire, as they are."""
        self.sock.sendall(data)
        self.sent += len(data)

    def seal(self, plain: bytes) -> bytes:
        """What `plain` becomes on the wire: itself, or one TLS record of at most 16 KiB."""
        if self.tls is None:
            return plain
        assert self.outgoing is not None
        self.tls.write(plain)
        return self.outgoing.read()

    def write(self, plain: bytes) -> None:
        """Send plaintext at once."""
        self.raw(self.seal(plain))

    def message(self, payload: bytes, *, opcode: int = TEXT) -> None:
        """One message, one frame, one write; its end is noted."""
        self.write(frame(payload, opcode))
        self.note(payload)

    def note(self, payload: bytes) -> None:
        """The message `payload` ends with the last byte sent."""
        self.ends.append(self.sent)
        self.lengths.append(len(payload))

    def read(self) -> bytes:
        """Plaintext of the client; b"" when it left."""
        if self.tls is None:
            return self.sock.recv(65536)
        assert self.incoming is not None
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = self.sock.recv(65536)
                if not data:
                    return b""
                self.incoming.write(data)
            except ssl.SSLError:
                return b""

    def start_tls(self, context: ssl.SSLContext) -> None:
        """TLS handshake, every byte of it counted."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.raw(self.outgoing.read())
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("the client left during the handshake") from None
                self.incoming.write(data)
            except ssl.SSLError:
                self.raw(self.outgoing.read())  # the alert that says why
                raise
        self.raw(self.outgoing.read())

    def accept(self, status: bytes | None = None, *, then: bytes | None = None) -> None:
        """Answer the WebSocket handshake: 101, or `status` (a status line's rest, with headers).

        `then`: a message that comes with the answer, in one piece.
        """
        while b"\r\n\r\n" not in self.request:
            data = self.read()
            if not data:
                raise ConnectionError("the client left before its request was complete")
            self.request += data
        if status is not None:
            self.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            return
        headers = dict(line.split(b": ", 1) for line in self.request.split(b"\r\n")[1:] if b": " in line)
        key = next(v for k, v in headers.items() if k.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + (b"" if then is None else frame(then))
        )
        if then is not None:
            self.note(then)

    def drain(self) -> None:
        """Read until the client says goodbye, for whose answer it would wait, or is gone."""
        try:
            while (data := self.read()) and data[0] != 0x80 | CLOSE:
                pass
        except OSError:
            pass


class Server:
    """Accepts connections one after the other; connection n runs script(peer, n) in a thread of its own."""

    def __init__(self, script: Callable[[Peer, int], None], context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def url(self, path: str = "/market/ws/btcusdt@trade") -> str:
        """The server's WebSocket URL."""
        return f"{'wss' if self._context else 'ws'}://127.0.0.1:{self.port}{path}"

    def peer(self, number: int) -> Peer:
        """The server's side of connection `number`, as soon as it was accepted."""
        until = time.monotonic() + 60
        while len(self.peers) <= number:
            assert time.monotonic() < until, f"connection {number} never came"
            time.sleep(0.002)
        return self.peers[number]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer, len(self.peers) - 1), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer, number: int) -> None:
        try:
            if self._context is not None:
                peer.start_tls(self._context)
            self._script(peer, number)
        except OSError:
            pass  # the client may leave whenever it likes
        except BaseException as error:
            self.errors.append(error)
        finally:
            peer.sock.close()

    def close(self) -> None:
        """Stop listening and end what runs."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        for peer in self.peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@contextmanager
def serving(script: Callable[[Peer, int], None], context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server for the length of a test; what went wrong in its scripts is raised at the end."""
    server = Server(script, context)
    try:
        yield server
    finally:
        server.close()
    if server.errors:
        raise server.errors[0]
