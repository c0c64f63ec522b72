# SPDX-License-Identifier: Apache-2.0
"""The truth wire: two network namespaces joined by a shuttle that can harm frames and logs what it did to each."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any

from tickpath.errors import PermissionMissingError, TickpathError
from tickpath.lab.shuttle.config import WireConfig
from tickpath.lab.shuttle.log import Log, read_log
from tickpath.lab.shuttle.namespace import inside, run_inside, start_inside

_ANSWER_S = 10.0
_POLL_S = 0.001
# What the kernel keeps for the shuttle before it drops: more than any window of TCP here.
_QUEUE_FRAMES = 10_000
_TRANSMIT_DROPS = 11  # column of /proc/net/dev
_CONNECTION_S = 30.0  # each wait of a connection made here


class ShuttleError(TickpathError):
    """The shuttle did not start, or ended by itself; the text is its own last line."""


@dataclass(frozen=True)
class Side:
    """One end of the wire."""

    namespace: Path
    """Opens the network namespace, for as long as the wire lives."""
    device: str
    mac: str
    ipv4: IPv4Address
    ipv6: IPv6Address


class TruthWire:
    """Two namespaces, `server` and `client`, joined by the shuttle while the context lasts.

    Nothing of it has a name on the host: namespaces, devices and log live in the shuttle's memory and die with it, and
    the shuttle dies with this process. Every wire therefore has the same addresses, and fixed ports do no harm.
    Frames that the shuttle cannot take at once queue in the kernel, and `queue_drops` counts what that drops.
    Needs root. Raises PermissionMissingError; ShuttleError when the shuttle does not start, and on leaving
    when it ended by itself.
    """

    def __init__(self, config: WireConfig | None = None, *, program: Path | None = None) -> None:
        self.config = config or WireConfig()
        self._program = program or Path(str(files("tickpath.lab.shuttle") / "tickpath-shuttle"))
        self._shuttle: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[Any]] = []
        self._log_fd = -1
        self._last_log: Log | None = None

    def __enter__(self) -> TruthWire:
        if os.geteuid() != 0:
            raise PermissionMissingError("the truth wire makes namespaces and TAP devices: run as root")
        self._log_fd = os.memfd_create("tickpath-truth")
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        self._shuttle = subprocess.Popen(
            [self._program, f"log_fd={self._log_fd}", f"parent_pid={os.getpid()}", *self.config.words()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=[self._log_fd],
            start_new_session=True,  # Ctrl-C is for us: the log must outlive it
        )
        words = self._answer(b"\n").split()
        if len(words) != 3 or words[0] != b"ready":
            raise ShuttleError(f"the shuttle said {words!r} and not that it is ready")
        server, client = (Path(f"/proc/{self.pid}/fd/{int(word)}") for word in words[1:])
        self.server = Side(server, "tpserver", "02:00:00:00:00:01", IPv4Address("10.78.0.1"), IPv6Address("fd00:78::1"))
        self.client = Side(client, "tpclient", "02:00:00:00:00:02", IPv4Address("10.78.0.2"), IPv6Address("fd00:78::2"))
        self._configure(self.server, self.client)
        self._configure(self.client, self.server)
        for side in (self.server, self.client):
            self.wait_for_ipv6(side)
        if self.config.armed:
            self.arm()

    def _configure(self, side: Side, peer: Side) -> None:
        device = side.device
        if self.config.gro:
            self._set_gro(side)
        commands = [
            "link set lo up",
            # No frames but those asked for: no link-local address, no neighbour questions, no group reports.
            f"link set {device} address {side.mac} mtu {self.config.mtu_bytes} addrgenmode none arp off",
            f"link set {device} txqueuelen {_QUEUE_FRAMES}",
            f"address add {side.ipv4}/24 dev {device}",
            f"address add {side.ipv6}/64 dev {device} nodad",
            f"link set {device} up",
            f"neighbour replace {peer.ipv4} lladdr {peer.mac} dev {device} nud permanent",
            f"neighbour replace {peer.ipv6} lladdr {peer.mac} dev {device} nud permanent",
        ]
        run_inside(side.namespace, ["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def wait_for_ipv6(self, side: Side) -> None:
        """The kernel makes the route to a new IPv6 address in its own time, and drops what comes for it until then.

        ShuttleError where that is long over.
        """
        routes = Path("/proc/thread-self/net/ipv6_route")
        deadline = time.monotonic() + _ANSWER_S
        with self.inside(side):
            while f"{side.ipv6.packed.hex()} 80" not in routes.read_text():
                if time.monotonic() > deadline:
                    raise ShuttleError(f"{side.device}: {side.ipv6} is not in force after {_ANSWER_S:g} s")
                time.sleep(_POLL_S)

    def _set_gro(self, side: Side) -> None:
        # /sys shows the devices of the namespace in which it was mounted, so one of our own is.
        script = 'mount -t sysfs sysfs /sys && cd "/sys/class/net/$0" && echo 1 > napi_defer_hard_irqs'
        script += ' && echo "$1" > gro_flush_timeout'
        argv = ["unshare", "--mount", "sh", "-c", script, side.device, str(self.config.gro_flush_ns)]
        run_inside(side.namespace, argv)

    def _answer(self, end: bytes) -> bytes:
        """What the shuttle says up to and with `end`."""
        assert self._shuttle and self._shuttle.stdout
        said = b""
        while not said.endswith(end):
            ready, _, _ = select.select([self._shuttle.stdout], [], [], _ANSWER_S)
            more = self._shuttle.stdout.read(1) if ready else None
            if not more:
                raise ShuttleError(self._last_words() if ready else f"the shuttle is silent for {_ANSWER_S:g} s")
            said += more
        return said

    def _last_words(self) -> str:
        assert self._shuttle and self._shuttle.stderr
        code = self._shuttle.wait()
        text = " ".join(self._shuttle.stderr.read().decode(errors="replace").split())
        return f"the shuttle ended with {code}: {text or 'it said nothing'}"

    @property
    def pid(self) -> int:
        """Of the shuttle."""
        if not self._shuttle:
            raise ShuttleError("the wire is not up: use it as a context manager")
        return self._shuttle.pid

    def arm(self) -> None:
        """From the next frame on the faults are in force. Candidates go on counting where they stopped."""
        self._command(b"a")

    def disarm(self) -> None:
        """From the next frame on none of the faults is in force."""
        self._command(b"d")

    def _command(self, command: bytes) -> None:
        assert self._shuttle and self._shuttle.stdin
        try:
            self._shuttle.stdin.write(command)
        except BrokenPipeError:
            raise ShuttleError(self._last_words()) from None
        self._answer(command)

    @contextmanager
    def inside(self, side: Side) -> Iterator[None]:
        """The calling thread works in the side's namespace; sockets made there stay there."""
        with inside(side.namespace):
            yield

    @contextmanager
    def connection(self, port: int, version: int = 4) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A TCP connection to that port, of IPv4 or IPv6, that delays no data: the server's socket, the client's."""
        family, ip = (socket.AF_INET, self.server.ipv4) if version == 4 else (socket.AF_INET6, self.server.ipv6)
        address = (str(ip), port)
        with contextlib.ExitStack() as stack:
            with self.inside(self.server):
                listening = stack.enter_context(socket.create_server(address, family=family))
            listening.settimeout(_CONNECTION_S)
            with self.inside(self.client):
                client = stack.enter_context(socket.create_connection(address, timeout=_CONNECTION_S))
            server = stack.enter_context(listening.accept()[0])
            server.settimeout(_CONNECTION_S)
            for end in (server, client):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield server, client

    def run_in(self, side: Side, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the side's namespace, with subprocess.Popen's options.

        It (not what it starts in turn) is killed when the wire closes, and when the thread that called this ends.
        """
        child = start_inside(side.namespace, argv, **options)
        self._children.append(child)
        return child

    def log(self) -> Log:
        """Every frame so far (dtype RECORD), in the order of the writes; after the context the complete log.

        A frame is logged after its write: its receiver may have it a moment before it is here.
        """
        if self._last_log is not None:
            return self._last_log
        return read_log(self._log_fd)

    def queue_drops(self) -> int:
        """Frames that the shuttle never saw, because the kernel's queue before it was full. Only while it is up."""
        drops = 0
        for side in (self.server, self.client):
            with self.inside(side):
                lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
            (counters,) = (line.split()[1:] for line in lines if line.split()[0] == f"{side.device}:")
            drops += int(counters[_TRANSMIT_DROPS])
        return drops

    def _stop(self) -> str:
        """End everything; what the shuttle said at last."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()
        words = ""
        if self._shuttle:
            assert self._shuttle.stdin and self._shuttle.stdout and self._shuttle.stderr
            with contextlib.suppress(BrokenPipeError):
                # Not by the end of its input alone: a process forked from this one may hold that open.
                self._shuttle.stdin.write(b"q")
            try:
                self._shuttle.wait(_ANSWER_S)
            except subprocess.TimeoutExpired:
                self._shuttle.kill()
            words = self._last_words()
            for stream in (self._shuttle.stdin, self._shuttle.stdout, self._shuttle.stderr):
                stream.close()
        if os.fstat(self._log_fd).st_size:
            self._last_log = read_log(self._log_fd)
        os.close(self._log_fd)
        return words

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        words = self._stop()
        if self._shuttle and self._shuttle.returncode and error is None:
            raise ShuttleError(words)
