# SPDX-License-Identifier: Apache-2.0
"""What was sent, to the byte: one entry per message, and a summary per connection."""

from __future__ import annotations

import threading
from io import FileIO
from pathlib import Path

import msgspec
import structlog

from tickpath.errors import TickpathError

log = structlog.get_logger(__name__)


class Sent(msgspec.Struct, frozen=True, gc=False):
    """One message, as its bytes were taken by send().

    Offsets count the bytes that the server sent on the TCP connection; 0 is the first after its SYN. `begin_offset` is
    the first byte of the message's frame (under TLS: of the record which holds that byte), `end_offset` the message
    end: past its last frame's last byte (under TLS: past the record which holds that byte). `planned_ns` is when the
    recording's pace wanted it, `sent_ns` was read just before the send() that took its last byte; both monotonic.
    `ordinal` counts from 0.
    """

    connection: int
    peer_port: int
    ordinal: int
    begin_offset: int
    end_offset: int
    planned_ns: int
    sent_ns: int
    payload_bytes: int


class ConnectionSummary(msgspec.Struct):
    """One connection. `bytes` counts everything on the TCP stream, handshake included; times are monotonic."""

    connection: int
    peer_port: int
    opened_ns: int
    path: str = ""
    messages: int = 0
    bytes: int = 0
    payload_bytes: int = 0
    pings: int = 0
    pongs: int = 0
    unknown_pongs: int = 0
    requests: int = 0
    late_ns: int = 0
    """The most that a message was sent after its planned time."""
    closed: str | None = None
    """Why it ended; None while it is open."""


class Summary(msgspec.Struct):
    """The whole simulator: what `--json` prints and the status file holds."""

    url: str
    ca: str | None
    venue: str
    skipped_lines: int
    connections: list[ConnectionSummary]
    messages: int
    bytes: int
    ended: bool
    log_lost: int
    """Messages that were sent and could not be written to the log file."""


_FLUSH_LINES = 512


class TruthLog:
    """Takes the entries of all connections; writes them to a file, keeps them, or both.

    `lost` counts the entries that the file did not take.
    """

    def __init__(self, path: Path | None, *, keep: bool) -> None:
        self.wanted = keep or path is not None
        self.kept: list[Sent] = []
        self.lost = 0
        self._keep = keep
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []
        self._file: FileIO | None = None
        if path is not None:
            try:
                self._file = FileIO(path, "wb")
            except OSError as error:
                raise TickpathError(f"cannot write the log {path}: {error.strerror}") from error

    def add(self, entry: Sent) -> None:
        """Threads of several connections may call this at once."""
        if self._keep:
            self.kept.append(entry)
        if self._file is not None:
            line = self._encoder.encode(entry) + b"\n"
            with self._lock:
                self._lines.append(line)
                if len(self._lines) >= _FLUSH_LINES:
                    self._write()

    def flush(self) -> None:
        """What was added so far is in the file."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """No more is added."""
        with self._lock:
            self._write()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if self._file is None or not lines:
            return
        data = b"".join(lines)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            if not self.lost:
                log.warning("the log of messages cannot be written", reason=error.strerror)
            self.lost += len(lines)
