# SPDX-License-Identifier: Apache-2.0
"""The other side of the feed rows: a process that sends messages of one size, all at once or paced."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import socket
import ssl
import struct
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tickpath.lab.bench.host import undisturbed

MESSAGE_BYTES = 300
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK_BYTES = 1 << 16
_FIRST_UPDATE = 10**12
_STAMP_BYTES = 20


@dataclass(frozen=True)
class Plan:
    """`gap_ns` 0: as fast as the client takes them. `certificate` and `key` None: ws."""

    messages: int
    gap_ns: int
    certificate: Path | None
    key: Path | None


def message(number: int) -> bytes:
    """A depth update of MESSAGE_BYTES, whose sequence numbers follow on from the one before; it ends in the time."""
    now_ms = time.time_ns() // 1_000_000
    update = _FIRST_UPDATE + number
    head = (
        f'{{"e":"depthUpdate","E":{now_ms},"T":{now_ms - 1},"s":"BTCUSDT","U":{update},"u":{update},"pu":{update - 1},'
        '"b":[["64250.10","1.204"],["64250.00","0.310"],["64249.90","2.000"]],"a":[["64250.20","0.551"]],"x":"'
    )
    padding = "-" * (MESSAGE_BYTES - len(head) - _STAMP_BYTES - 2)
    return f'{head}{padding}{time.monotonic_ns():0{_STAMP_BYTES}}"}}'.encode()


def sent_ns(payload: bytes) -> int:
    """When a message was made, monotonic."""
    return int(payload[-_STAMP_BYTES - 2 : -2])


def frame(number: int) -> bytes:
    """The message as a WebSocket frame."""
    payload = message(number)
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload


class _Peer:
    """One accepted connection; TLS, where there is one, with a record of its own for each write."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._held = bytearray()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._in, self._out, server_side=True)
            self._shake_hands(self._tls)

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._out.read())
                self._in.write(self._sock.recv(1 << 16))
            else:
                self._sock.sendall(self._out.read())
                return

    def read(self) -> bytes:
        if self._tls is None:
            return self._sock.recv(1 << 16)
        while True:
            try:
                return self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if not (data := self._sock.recv(1 << 16)):
                    return b""
                self._in.write(data)

    def put(self, data: bytes) -> None:
        """Hold it until there is a chunk of it."""
        if self._tls is None:
            self._held += data
        else:
            self._tls.write(data)
            self._held += self._out.read()
        if len(self._held) >= _CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        self._sock.sendall(self._held)
        self._held.clear()


def _accept(peer: _Peer) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += peer.read()
    headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    peer.put(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    peer.flush()


def _send(peer: _Peer, plan: Plan) -> None:
    due_ns = time.monotonic_ns()
    for number in range(plan.messages):
        if plan.gap_ns:
            due_ns += plan.gap_ns
            time.sleep(max(0, due_ns - time.monotonic_ns()) * 1e-9)
        peer.put(frame(number))
        if plan.gap_ns:
            peer.flush()
    peer.put(b"\x88\x00")
    peer.flush()
    while peer.read():
        pass


def _serve(told: Connection, plan: Plan) -> None:
    context = None
    if plan.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(plan.certificate, plan.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told.send(listener.getsockname()[1])
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with sock, suppress(OSError):
                peer = _Peer(sock, context)
                _accept(peer)
                with undisturbed() if plan.gap_ns else nullcontext():
                    _send(peer, plan)


class Exchange:
    """The running process; a context manager."""

    def __init__(self, plan: Plan) -> None:
        spawn = multiprocessing.get_context("spawn")
        heard, told = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_serve, args=(told, plan), daemon=True)
        self._process.start()
        told.close()
        self.port: int = heard.recv()
        scheme = "ws" if plan.certificate is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self.port}/public/ws/btcusdt@depth"

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
