# SPDX-License-Identifier: Apache-2.0
import socket
import ssl

from tickpath.recorder import ConnectionRecorder

def enable_stamps(sock: socket.socket) -> None:
    """Ask the kernel for software and raw hardware receive stamps on this socket."""

def learn_irs(sock: socket.socket) -> int:
    """The peer's initial sequence number, through TCP_REPAIR; OSError (EPERM without CAP_NET_ADMIN)."""

class StampedSocket:
    """A connected TCP socket that knows the stream offset of every byte it hands out; one thread only.

    Takes the socket over: `sock` is closed with it. `connection` gets a READ record for each read, is closed with it.
    Has what websocket-client asks of a socket. buffer_bytes: the most that one read takes.
    """

    sock: socket.socket
    connection: ConnectionRecorder | None
    _closed: bool
    def __init__(
        self, sock: socket.socket, connection: ConnectionRecorder | None = None, *, buffer_bytes: int = ...
    ) -> None: ...
    @property
    def end(self) -> int:
        """Stream offset just past the last byte that recv() returned; under TLS past the record that held it."""
    @property
    def received(self) -> int:
        """Stream offset just past the last byte read from the kernel."""
    @property
    def returned_ns(self) -> int:
        """When the last read that brought bytes returned, monotonic; 0 before."""
    @property
    def stamps_ns(self) -> tuple[int, int]:
        """Software (realtime) and raw hardware stamp of that read; 0: none came."""
    @property
    def malformed_stamps(self) -> int: ...
    @property
    def tls_version(self) -> str | None:
        """As `ssl.SSLObject.version`; None without TLS."""
    def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> str:
        """TLS handshake as a client, within the timeout; the version agreed on.

        ssl.SSLError: refused by either side; InputError: the peer does not speak TLS; ConnectionResetError: it left.
        """
    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end of the stream.

        TimeoutError after the timeout, InterruptedError after interrupt(), InputError on what is no TLS record.
        """
    def send(self, data: bytes | bytearray | memoryview) -> int: ...
    def sendall(self, data: bytes | bytearray | memoryview) -> None: ...
    def pending(self) -> int:
        """Bytes that recv() hands out without asking the kernel (complete TLS records are opened to know)."""
    def interrupt(self) -> None:
        """Let the recv() that waits, or the next that would, raise InterruptedError; for signal handlers."""
    def resume(self) -> None:
        """Forget an interrupt() that no recv() has met."""
    def gettimeout(self) -> float | None: ...
    def settimeout(self, timeout: float | None) -> None: ...
    def fileno(self) -> int: ...
    def shutdown(self, how: int) -> None: ...
    def close(self) -> None: ...
