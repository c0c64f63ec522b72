# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server: bounded threads, a deadline for every connection, one request per connection.

The standard library's server is enough for a few scrapes a minute on loopback, and nothing else needs to be kept up to
date. What it lacks for a port that strangers may reach is added here: it starts a thread per connection without limit,
and a client that sends one byte at a time holds its thread for ever.
"""

from __future__ import annotations

import errno
import io
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog

from tickpath.errors import ConfigError
from tickpath.exporter.web.application import Application
from tickpath.exporter.web.guard import Guard
from tickpath.exporter.web.response import Request, Response, plain

log = structlog.get_logger()

MAX_CONNECTIONS = 16
"""Requests answered at the same time; those that come on top are told to come back."""
CONNECTION_SECONDS = 10.0
"""How long a connection may take from accept to the end of its request."""

_REMEDY = "choose another address with --listen HOST:PORT or TICKPATH_EXPORTER_LISTEN"
_WHO = {"WWW-Authenticate": 'Basic realm="tickpath"'}
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment, however slowly the bytes drip in."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    # What a request that cannot be parsed counts as: http.server would answer HTTP/0.9, without a status.
    default_request_version = "HTTP/1.0"
    server_version = "tickpath"
    sys_version = ""
    # The status line alone for what http.server refuses by itself: no page, and nothing of the request in it.
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def setup(self) -> None:
        super().setup()
        deadline = time.monotonic() + self.server.connection_seconds
        self.rfile = io.BufferedReader(_DeadlineReader(self.connection, deadline))

    def _answer(self) -> None:
        guard = self.server.guard
        if guard and not guard.admit(self._header("Authorization")):
            self._send(plain("401 a user and a password are wanted", HTTPStatus.UNAUTHORIZED, _WHO))
            return
        try:
            response = self.server.application.answer(
                Request(self.command, self.path, self._header("Accept"), self._header("Accept-Encoding"))
            )
        except Exception:
            # A fault of ours on one page must not take the others with it, nor the process.
            log.exception("request failed", path=self.path)
            response = plain("500 see the exporter's log", HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(response)

    def _header(self, name: str) -> str | None:
        """A header that may come several times, which means the same as one list (RFC 9110, 5.3)."""
        values = self.headers.get_all(name)
        return ", ".join(values) if values else None

    def _send(self, response: Response) -> None:
        self.connection.settimeout(self.server.connection_seconds)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        # A kept-alive connection would hold one of the few threads while nothing happens on it.
        self.send_header("Connection", "close")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        log.debug("http", client=self.client_address[0], line=format % args)


class Server(ThreadingMixIn, TCPServer):
    """Serves an application on one address until stop()."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        application: Application,
        guard: Guard | None = None,
        *,
        max_connections: int = MAX_CONNECTIONS,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        """Binds and listens. Raises ConfigError where the address cannot be had."""
        self.application = application
        self.guard = guard
        self.connection_seconds = connection_seconds
        self._slots = threading.BoundedSemaphore(max_connections)
        self._thread: threading.Thread | None = None
        host, port = address
        try:
            family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = family
            super().__init__(where[:2], _Handler)  # type: ignore[arg-type]
        except OSError as error:
            raise ConfigError(_explain(host, port, error)) from error
        except UnicodeError:
            raise ConfigError(f"{host!r} is not a host name; {_REMEDY}") from None

    @property
    def url(self) -> str:
        """Where it listens, with the port that was really bound."""
        host, port = self.server_address[:2]
        text = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"{self.guard.scheme if self.guard else 'http'}://{text}:{port}/"

    def start(self) -> None:
        """Serves from a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; a request that is being answered is not waited for."""
        if self._thread:
            self.shutdown()
            self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands a connection to a thread, or turns it away when all are taken."""
        if self._slots.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # the host gives no more threads
                self._slots.release()
                raise
            return
        with suppress(OSError):
            request.settimeout(0.1)
            request.sendall(_BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, in its thread."""
        try:
            try:
                secured = self._secured(request)
            except OSError:
                self.handle_error(request, client_address)
                self.shutdown_request(request)
                return
            super().process_request_thread(secured, client_address)
        finally:
            self._slots.release()

    def _secured(self, request: socket.socket) -> socket.socket:
        """The connection behind its TLS handshake, where that is asked for. OSError: it did not come to be."""
        context = self.guard.context() if self.guard else None
        if context is None:
            return request
        request.settimeout(self.connection_seconds)
        return context.wrap_socket(request, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that went away or was too slow: nothing an operator could act on."""
        log.debug("connection ended", client=client_address[0], exc_info=True)


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another process; {_REMEDY}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs privileges this process lacks; {_REMEDY}"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; {_REMEDY}"
