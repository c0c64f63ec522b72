# SPDX-License-Identifier: Apache-2.0
"""The simulator: listens, gives every client a connection of its own, tells what was sent, stops gracefully."""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import threading
from pathlib import Path
from time import monotonic_ns
from types import TracebackType
from typing import Self

import msgspec
import structlog

from tickpath.errors import ConfigError, PermissionMissingError, TickpathError
from tickpath.lab.simulator.config import SimulatorConfig, Venue
from tickpath.lab.simulator.connection import Connection
from tickpath.lab.simulator.generator import START_NS, Generator
from tickpath.lab.simulator.playback import Playback
from tickpath.lab.simulator.recording import Recording
from tickpath.lab.simulator.tls import TlsServer
from tickpath.lab.simulator.transport import PlainTransport, Transport
from tickpath.lab.simulator.truth import ConnectionSummary, Sent, Summary, TruthLog

log = structlog.get_logger(__name__)

_HOUSEKEEPING_S = 0.2
# select(2) cannot watch descriptors beyond this.
_DESCRIPTOR_LIMIT = 1024


class Simulator:
    """A simulated exchange in threads of this process; `start` binds and reads, `stop` closes every connection.

    Raises TickpathError from the constructor and `start` when the recording, the port or TLS cannot be had.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self.ended = threading.Event()
        """Set when the duration is over or the asked-for number of connections has ended."""
        self._summaries: list[ConnectionSummary] = []
        self._own_threads: list[threading.Thread] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._tls: TlsServer | None = None
        self._skipped = 0
        self._stopped = False

    # --- life ---

    def start(self) -> Self:
        """Listen. On return clients can connect."""
        config = self.config
        self._truth = TruthLog(config.log, keep=config.keep_log)
        self._stop_reader, self._stop_writer = os.pipe()
        try:
            self._playback = self._prepare()
            self._tls = TlsServer(config) if config.tls else None
            self._listener = _listen(config.host, config.port)
            self.port = int(self._listener.getsockname()[1])
            self._write_status()
        except BaseException:
            os.close(self._stop_reader)
            os.close(self._stop_writer)
            self._truth.close()
            if self._tls:
                self._tls.close()
            if self._listener:
                self._listener.close()
            raise
        for target in (self._accept, self._keep_house):
            thread = threading.Thread(target=target, name=f"simulator-{target.__name__}", daemon=True)
            thread.start()
            self._own_threads.append(thread)
        return self

    def stop(self) -> None:
        """Send no more messages, close every connection, wait for the clients (`linger_ns`), end all threads."""
        if self._stopped or self._listener is None:
            return
        self._stopped = True
        # Every thread watches the reading end, which says end-of-file from now on.
        os.close(self._stop_writer)
        for thread in self._own_threads:
            thread.join()
        for thread in self._threads:  # no more are added now
            thread.join()
        self._listener.close()
        os.close(self._stop_reader)
        self._truth.close()
        self.ended.set()
        if self._tls:
            self._tls.close()
        self._write_status()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what it tells ---

    @property
    def url(self) -> str:
        """Scheme, host and port; a venue's path follows."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'ws' if self.config.tls is None else 'wss'}://{host}:{self.port}"

    @property
    def ca_path(self) -> Path | None:
        """The CA certificate that a client has to trust; None without TLS."""
        return self._tls.ca_path if self._tls else None

    @property
    def venue(self) -> Venue:
        """The venue that is played."""
        return self._playback.venue

    @property
    def sent(self) -> int:
        """Messages sent on all connections so far."""
        return sum(summary.messages for summary in self._summaries)

    @property
    def connections(self) -> list[ConnectionSummary]:
        """One summary per connection that was accepted, in that order."""
        return list(self._summaries)

    @property
    def log(self) -> list[Sent]:
        """With `keep_log`: every message sent so far; those of one connection in their order."""
        return self._truth.kept

    def summary(self) -> Summary:
        """Everything that was sent so far."""
        summaries = self.connections
        return Summary(
            url=self.url,
            ca=str(self.ca_path) if self.ca_path else None,
            venue=self.venue.value,
            skipped_lines=self._skipped,
            connections=summaries,
            messages=sum(summary.messages for summary in summaries),
            bytes=sum(summary.bytes for summary in summaries),
            ended=self._stopped,
            log_lost=self._truth.lost,
        )

    # --- inside ---

    def _prepare(self) -> Playback:
        config = self.config
        if config.replay is None:
            generator = Generator(config.venue or Venue.USDM, config.seed)
            return Playback(
                config=config,
                venue=generator.venue,
                streams=generator.streams,
                first_ns=START_NS,
                messages=lambda: iter(generator),
                truth=self._truth,
                stop_fd=self._stop_reader,
            )
        recording = Recording.read(config.replay)
        self._skipped = recording.skipped
        venue = config.venue or recording.venue
        if venue is None:
            venue = Venue.USDM
            log.warning("the recording does not show its venue; USD-M is assumed: name it with --venue")
        return Playback(
            config=config,
            venue=venue,
            streams=frozenset(message.stream for message in recording.messages) - {""},
            first_ns=recording.messages[0].time_ns,
            messages=lambda: iter(recording.messages),
            truth=self._truth,
            stop_fd=self._stop_reader,
        )

    def _transport(self) -> Transport:
        return self._tls.transport() if self._tls else PlainTransport()

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            readable, _, _ = select.select([self._listener.fileno(), self._stop_reader], (), ())
            if self._stop_reader in readable:
                return
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                log.warning("a connection could not be accepted", reason=error.strerror)
                continue
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock.fileno() >= _DESCRIPTOR_LIMIT:
            log.warning("a connection was turned away: too many are open", limit=_DESCRIPTOR_LIMIT)
            sock.close()
            return
        try:
            connection = Connection(len(self._summaries), sock, self._transport(), self._playback)
        except OSError:  # gone before it was looked at
            sock.close()
            return
        name = f"simulator-{connection.summary.connection}"
        thread = threading.Thread(target=connection.run, name=name, daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        self._summaries.append(connection.summary)
        thread.start()

    def _keep_house(self) -> None:
        until_ns: int | None = None
        while True:
            readable, _, _ = select.select([self._stop_reader], (), (), _HOUSEKEEPING_S)
            if readable:
                return
            now_ns = monotonic_ns()
            if until_ns is None and self.config.duration_ns is not None and self._playback.subscribed.is_set():
                until_ns = now_ns + self.config.duration_ns
            over = sum(summary.closed is not None for summary in self._summaries)
            enough = self.config.connections is not None and over >= self.config.connections
            if enough or (until_ns is not None and now_ns >= until_ns):
                self.ended.set()
            self._truth.flush()
            try:
                self._write_status()
            except TickpathError as error:
                log.warning(str(error))

    def _write_status(self) -> None:
        path = self.config.status
        if path is None:
            return
        # Replaced whole: a reader never sees half of it.
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_bytes(msgspec.json.encode(self.summary()) + b"\n")
            fresh.replace(path)
        except OSError as error:
            raise TickpathError(f"cannot write the status file {path}: {error.strerror}") from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigError(f"{host} is no IP address to listen on: give one of this host's, e.g. 127.0.0.1") from None
    try:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return socket.create_server((str(address), port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use: choose another with --port (0: any free one), "
                f"or see who has it: ss -ltnp 'sport = :{port}'"
            ) from error
        if error.errno == errno.EACCES:
            raise PermissionMissingError(
                f"port {port} needs CAP_NET_BIND_SERVICE: choose one from 1024 up with --port"
            ) from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
