# SPDX-License-Identifier: Apache-2.0
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from tickpath.clock import StepWatch
from tickpath.event import Counter, Resolution, Tier, Transport
from tickpath.ring import RingWriter

class Recorder:
    """The ring of one feed, DIRECTORY/KIND-NAME.ring; one thread only.

    `capacity` records are kept for readers, `rows` connections have a row at once. RingError: see RingWriter.
    """

    ring: RingWriter
    def __init__(
        self, directory: Path, name: str, kind: str = ..., *, capacity: int = ..., rows: int = ...
    ) -> None: ...
    def count(self, counter: Counter, add: int = 1) -> None: ...
    def open_connection(
        self,
        sock: socket.socket,
        *,
        venue: str,
        feed: str,
        stream: str,
        transport: Transport = ...,
        reconnects: int = ...,
        irs: int | None = None,
    ) -> ConnectionRecorder:
        """Give a connected TCP socket its row and write OPENED.

        venue, feed, stream: labels; the row holds 16, 32 and 120 bytes, longer ones end in '~'.
        reconnects: how many connections of this feed came before. irs: the peer's initial sequence number, where it is
        known (`tickpath.socket.learn_irs`).
        """
    def record_clocks(self, watch: StepWatch | None = None) -> None:
        """Write CLOCK records, realtime and TAI; about once a second, so that readers can tell the venue's time.

        watch: flags the records when the clock was set since the last ones.
        """
    def close(self) -> None:
        """Write BYE and let go of the ring; everything that writes to it afterwards raises RingError.

        As a context manager a recorder does so unless the block fails: then BYE is left out, as when it is killed.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class ConnectionRecorder:
    """The records of one connection; made by Recorder.open_connection."""

    row: int
    open: bool
    messages: int
    """Messages recorded so far: the next one's ordinal, for a client that records each."""
    @property
    def cookie(self) -> int:
        """SO_COOKIE: what this connection is to every probe on the host, until reboot."""
    def established(self, transport: Transport) -> None:
        """The handshakes are over: puts the transport into the row and counts a connection (Counter.CONNECTS)."""
    def message(
        self,
        end: int,
        ordinal: int,
        length: int,
        exchange_ns: int | None,
        resolution: Resolution | int,
        transaction_ns: int | None,
        decode_began_ns: int | None,
        received_ns: int,
        parsed_ns: int | None,
        published_ns: int | None,
        tier: Tier | int,
    ) -> None:
        """Write the record of one message, and a wide one behind it where a field does not fit.

        end: the stream offset just past its last byte (under TLS: past the record that holds it); ordinal: nth message
        of the connection, from 0; length: payload bytes. exchange_ns and transaction_ns: since 1970, the venue's; the
        others: CLOCK_MONOTONIC. None: not known. Without parsed_ns `published` is kept relative to received.
        """
    def draft(
        self,
        end: int,
        ordinal: int,
        length: int,
        exchange_ns: int | None,
        resolution: Resolution | int,
        transaction_ns: int | None,
        decode_began_ns: int | None,
        received_ns: int,
        parsed_ns: int | None,
        tier: Tier | int,
    ) -> bytes:
        """The record as it stands before publishing, to send along: 64 bytes, 128 where it is flagged WIDE.

        Nothing is written until publish() completes it.
        """
    def publish(self, published_ns: int | None) -> None:
        """Complete the draft and write it; None: it was not handed on."""
    def close(self, received: int = 0) -> None:
        """Write CLOSED with the stream offset reached and give the row back; once."""
