# SPDX-License-Identifier: Apache-2.0
"""The demo's pipeline: started from the exporter up to the feeds, so that nothing is sent before all can see it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from tickpath import config
from tickpath.errors import PermissionMissingError, RingError
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.exposition.summary import Summary
from tickpath.lab.demo.plan import planned_feeds
from tickpath.lab.demo.processes import Child, DemoError
from tickpath.lab.ports import HeldPort
from tickpath.lab.simulator.config import EventTimes, Venue
from tickpath.lab.simulator.generator import Generator
from tickpath.lab.simulator.recording import Recording
from tickpath.ring import SUFFIX, RingReader

_START_S = 60.0
# How long the last messages may take to arrive, on a host that has other things to do.
_SETTLE_S = 30.0
_LINGER_S = 20
# How long a message waits for stamps that may still come. Feeds, probes, exporter and the exchange share a few
# processors here: one that stands still for a second is no reason to show another's messages without its stamps.
_WINDOW_MS = 20_000
_WIRE_BUFFER_BYTES = 1 << 24  # seconds of frames that come one by one
_PUBLISH_PORT = 5555
_NOT_PERMITTED = (
    "not permitted (CAP_NET_RAW): run the demo as root to capture the wire; "
    "until then the feed's own socket stamps serve, where they are true (source sock)"
)
_KERNEL_NOT_PERMITTED = (
    "not permitted (CAP_BPF, CAP_PERFMON): run the demo as root to see the kernel's part apart; "
    "until then nic_to_user stands for both hops"
)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demo plays. Ports of 0: any free one."""

    replay: Path | None
    speed: str
    tls: str | None
    event_times: EventTimes
    exporter_port: int
    publish_port: int = _PUBLISH_PORT


def _require_free(port: int, flag: str) -> None:
    """Raises DemoError where nothing can listen on the port, before anything was started in vain."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} cannot be had: {error.strerror} (another demo?); {flag} 0 takes any free one"
            ) from None


def _played(replay: Path | None) -> tuple[Venue, set[str]]:
    """Venue and stream names of what will be sent."""
    if replay is None:
        return Venue.USDM, set(Generator(Venue.USDM, seed=0).streams)
    recording = Recording.read(replay)
    return recording.venue or Venue.USDM, {message.stream for message in recording.messages if message.stream}


class Pipeline:
    """The running processes. A context manager: leaving it stops them all."""

    def __init__(self, settings: DemoSettings, folder: Path) -> None:
        self.settings = settings
        self.venue, streams = _played(settings.replay)
        self.planned = planned_feeds(self.venue, streams)
        self.wire_refused: str | None = None
        self.kernel_refused: str | None = None
        self._folder = folder
        self._status = folder / "sent.json"
        self._rings = folder / "rings"
        self._children: list[Child] = []
        self._exporter_url = ""
        self._held: list[HeldPort] = []
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Pipeline:
        try:
            self._start()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()

    def _child(self, name: str, *arguments: str) -> Child:
        # What the operator configured is for real feeds: the demo's parts have its flags and the defaults alone.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(config.PREFIX)}
        environment |= {"TICKPATH_DIRECTORY": str(self._rings), "TICKPATH_CONFIG": os.devnull}
        child = Child(name, arguments, self._folder, environment)
        self._children.append(child)
        return child

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            child.stop()
        for held in self._held:
            held.close()

    def _start(self) -> None:
        exporter_port = self.settings.exporter_port or self._free_port()
        first = self.settings.publish_port
        self._publish_ports = [first + n if first else self._free_port() for n in range(len(self.planned))]
        _require_free(exporter_port, "--exporter-port")
        for port in self._publish_ports:
            _require_free(port, "--publish-port")
        self._exporter_url = f"http://127.0.0.1:{exporter_port}"
        self.restart_exporter()
        self._port, self._authority = self._start_simulator()
        self.restart_wire()
        self.restart_kernel()
        self.feeds = [self._start_feed(number) for number in range(len(self.planned))]

    def _free_port(self) -> int:
        self._held.append(HeldPort())
        return self._held[-1].number

    def restart_exporter(self) -> None:
        """Start it, for the first time or after it ended."""
        listen = self._exporter_url.removeprefix("http://")
        self.exporter = self._child("exporter", "exporter", "--listen", listen, "--window-ms", str(_WINDOW_MS))
        self.exporter.wait_until(self._exporter_ready, _START_S, "answer on /-/ready")

    def _exporter_ready(self) -> bool:
        try:
            with self._opener.open(f"{self._exporter_url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _start_simulator(self) -> tuple[int, Path | None]:
        settings = self.settings
        arguments = ["simulate", "--port", "0", "--venue", self.venue.value, "--speed", settings.speed]
        arguments += ["--event-times", settings.event_times.value, "--status", str(self._status), "--shared-clock"]
        arguments += ["--connections", str(len(self.planned)), "--linger", str(_LINGER_S)]
        if settings.replay is not None:
            arguments += ["--replay", str(settings.replay)]
        authority = self._folder / "ca.pem" if settings.tls else None
        if settings.tls:
            arguments += ["--tls", settings.tls, "--ca", str(authority)]
        self.simulator = self._child("simulator", *arguments)
        self.simulator.wait_until(lambda: self._simulator_port() is not None, _START_S, "ready line")
        return self._simulator_port() or 0, authority

    def _simulator_port(self) -> int | None:
        for line in self.simulator.output.read_text().splitlines(keepends=True):
            if line.startswith("listening on ") and line.endswith("\n"):
                return int(line.strip().rpartition(":")[2])
        return None

    def restart_wire(self) -> None:
        """Start it, for the first time or after it ended. Where it is not permitted, `wire_refused` says so."""
        room = ("--buffer-bytes", str(_WIRE_BUFFER_BYTES))
        self.wire = self._child("wire", "probe", "wire", "--interface", "lo", "--port", str(self._port), *room)
        try:
            self.wire.wait_until(lambda: self._holds_ring("wire-lo"), _START_S, "ring")
        except DemoError:
            if self.wire.exit_code is None:
                raise
            not_permitted = self.wire.exit_code == PermissionMissingError.exit_code
            self.wire_refused = _NOT_PERMITTED if not_permitted else self.wire.last_words()

    def restart_kernel(self) -> None:
        """Start it, for the first time or after it ended. Where it cannot run, `kernel_refused` says why."""
        self.kernel = self._child("kernel", "probe", "kernel", "--port", str(self._port))
        try:
            self.kernel.wait_until(lambda: self._holds_ring("kernel"), _START_S, "ring")
        except DemoError:
            if self.kernel.exit_code is None:
                raise
            not_permitted = self.kernel.exit_code == PermissionMissingError.exit_code
            self.kernel_refused = _KERNEL_NOT_PERMITTED if not_permitted else self.kernel.last_words()

    def restart_feed(self, number: int) -> None:
        """Start the nth feed again, after it ended; it connects anew."""
        self.feeds[number] = self._start_feed(number)

    def _start_feed(self, number: int) -> Child:
        feed = self.planned[number]
        scheme = "wss" if self.settings.tls else "ws"
        url = f"{scheme}://127.0.0.1:{self._port}{feed.target}"
        venue = "generic" if self.venue is Venue.COINBASE else f"binance-{self.venue.value}"
        arguments = ["feed", url, "--name", feed.name, "--venue", venue, "--no-reconnect"]
        arguments += ["--publish", f"tcp://127.0.0.1:{self._publish_ports[number]}"]
        if self._authority is not None:
            arguments += ["--cafile", str(self._authority)]
        child = self._child(f"feed-{feed.name}", *arguments)
        child.wait_until(lambda: self._holds_ring(f"feed-{feed.name}"), _START_S, "ring")
        return child

    def _holds_ring(self, name: str) -> bool:
        """Whether a producer has made this ring and lives."""
        try:
            with RingReader(self._rings / f"{name}{SUFFIX}") as reader:
                return reader.alive
        except RingError:
            return False

    @property
    def exporter_url(self) -> str:
        return self._exporter_url

    @property
    def playing(self) -> bool:
        """Whether the simulator still sends."""
        return self.simulator.exit_code is None

    def sent(self) -> int:
        """Messages that the simulator says it has sent."""
        try:
            return int(json.loads(self._status.read_text())["messages"])
        except FileNotFoundError:
            return 0

    def summary(self) -> Summary:
        """The exporter's figures now. Raises DemoError when it does not answer."""
        try:
            with self._opener.open(f"{self._exporter_url}/api/summary", timeout=10) as answer:
                return msgspec.json.decode(answer.read(), type=Summary)
        except (OSError, msgspec.DecodeError) as error:
            raise DemoError(f"the exporter at {self._exporter_url} does not answer: {error}") from None

    def finish(self) -> tuple[Summary, int]:
        """End sending, let everything that is under way arrive; the final figures, and how many messages were sent."""
        self.simulator.stop(_LINGER_S + _SETTLE_S)
        for feed in self.feeds:
            feed.wait_for_end(_SETTLE_S)
            feed.stop()
        self.wire.stop()
        self.kernel.stop()
        sent = self.sent()
        deadline = time.monotonic() + _SETTLE_S
        while True:
            # Asked first: what it had taken by then is in the figures.
            taken = self._all_taken()
            summary = self.summary()
            counted = not summary.pending and (taken or summary.messages >= sent)
            if counted or time.monotonic() >= deadline:
                return summary, sent
            time.sleep(0.1)

    def _all_taken(self) -> bool:
        """Whether the exporter says that it stands at the end of every feed's ring; it does so once a second."""
        port = self._exporter_url.rpartition(":")[2]
        cursors = CursorFile(self._rings / f"exporter-{port}.cursors").load()
        for feed in self.planned:
            path = self._rings / f"feed-{feed.name}{SUFFIX}"
            cursor = cursors.get(f"feed-{feed.name}")
            try:
                with RingReader(path) as reader:
                    if cursor is None or cursor.inode != path.stat().st_ino or cursor.record < reader.head:
                        return False
            except (OSError, RingError):
                return False
        return True

    def faults(self) -> list[str]:
        """One line for each process that ended in a way it should not have."""
        said = []
        for child in self._children:
            refused = (child is self.wire and self.wire_refused) or (child is self.kernel and self.kernel_refused)
            if child.exit_code not in (None, 0) and not refused:
                with contextlib.suppress(OSError):
                    said.append(f"{child.name} ended with {child.exit_code}: {child.last_words()}")
        return said
