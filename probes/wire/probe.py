# SPDX-License-Identifier: Apache-2.0
"""The wire probe as a process: a thread per interface, which outlives the interface's absence and stops cleanly."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import structlog

from tickpath.clock import monotonic_ns
from tickpath.errors import ConfigError, NotHereError, PermissionMissingError, TickpathError
from tickpath.event import ROW, Counter, RowFlag
from tickpath.hardware import refused
from tickpath.hardware_lease import set_back_orphans
from tickpath.phc import pace, path
from tickpath.probes.wire._capture import SNAP_BYTES, Capture, merges
from tickpath.probes.wire.config import AUTO, BLOCK_BYTES, WireConfig
from tickpath.probes.wire.filter import compile_filter
from tickpath.probes.wire.hardware import Nic, switch_on, usable
from tickpath.ring import RingReader, RingWriter
from tickpath.route import default_interfaces, network_namespace, route_interface
from tickpath.selector import Remote, Selector, selected
from tickpath.stopping import stop_pipe

RETRY_MS = 500


def chosen_interfaces(config: WireConfig, remotes: Sequence[Remote]) -> list[str]:
    """The interfaces to capture on. ConfigError: one is not there; NotHereError: `auto` finds none."""
    present = [name for _, name in socket.if_nameindex()]
    chosen: list[str] = []
    for name in config.interface or [AUTO]:
        if name == AUTO:
            addresses = [address for remote in remotes for address in remote.addresses]
            routed = [route_interface(address) for address in addresses] if addresses else default_interfaces()
            chosen += [found for found in routed if found]
        elif name in present:
            chosen.append(name)
        else:
            near = get_close_matches(name, present, 1) or present
            raise ConfigError(f"no interface {name!r} here; is it {' or '.join(near)}?")
    if not chosen:
        raise NotHereError(f"no route tells which interface to watch; name one with --interface ({', '.join(present)})")
    return list(dict.fromkeys(chosen))


def _check_permission(interface: str) -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        # Started with `python -m`, argv[0] is a module file, which nobody could run.
        command = " ".join([shutil.which("tickpath") or f"{sys.executable} -m tickpath", *sys.argv[1:]])
        raise PermissionMissingError(
            f"capturing on {interface} needs CAP_NET_RAW; run: sudo setpriv --reuid $(id -u) --regid $(id -g) "
            f"--init-groups --inh-caps +net_raw --ambient-caps +net_raw {command} "
            "(until then the feed's own socket stamps are used, source sock)"
        ) from None


class InterfaceProbe:
    """Captures one interface into one ring."""

    def __init__(
        self, interface: str, selectors: Sequence[Selector], config: WireConfig, directory: Path, cpu: int | None
    ) -> None:
        self._config = config
        self._directory = directory
        self._leases = contextlib.ExitStack()
        self._soft = config.stamps == "sw"
        self._cpu = cpu
        self._log = structlog.get_logger().bind(interface=interface)
        self._capture = Capture(
            interface,
            compile_filter(selectors, ethernet=True, snap_bytes=SNAP_BYTES),
            compile_filter(selectors, ethernet=False, snap_bytes=SNAP_BYTES),
            selectors,
        )
        self._nics = self._harden()
        # Before the ring is there to be seen: from then on frames are kept, if the interface is up.
        self._unavailable()
        self._ring = RingWriter(
            directory, f"wire-{interface}", "wire", capacity=config.capacity, rows=config.rows + bool(self._nics)
        )
        self._mode: int | None = None
        if self._nics:
            self._say_mode()
        self._capture.write_to(self._ring, rows=config.rows, netns=network_namespace())

    def run(self, stop_fd: int) -> None:
        """Capture in the calling thread until `stop_fd` is readable. TickpathError: capturing can never work."""
        with self._ring, contextlib.closing(self._leases), contextlib.closing(self._capture):
            if self._cpu is not None:
                _pin(self._cpu)
            while not self._serve(stop_fd):
                pass
            self._report()

    def _harden(self) -> list[Nic]:
        """Have the NICs stamp, where that is wanted and can be; else none. TickpathError: it must be, and cannot."""
        name = self._capture.interface
        if self._soft:
            return []
        try:
            nics = usable(name)
            switch_on(nics, self._directory, allow_link_reset=self._config.allow_link_reset, leases=self._leases)
            for nic in nics:
                at = pace(nic.offer.driver)
                self._capture.stamped_by(
                    nic.link.index, nic.clock, str(path(nic.clock)), samples=at.samples, every_ns=at.every_ns
                )
        except (TickpathError, OSError) as error:
            self._leases.close()
            said = error if isinstance(error, TickpathError) else NotHereError(refused(error, name))
            if self._config.stamps == "hw":
                raise said from None
            self._soft = True
            self._log.info("software_stamps", reason=str(said))
            return []
        self._log.info(
            "hardware_stamps", nics=[f"{nic.link.name} ({nic.offer.driver}, PHC {nic.clock})" for nic in nics]
        )
        return nics

    def _soften(self) -> None:
        """The NICs stamp nothing, whatever they said: take the kernel's stamps, and say so."""
        self._soft = True
        self._capture.soften()
        self._leases.close()
        self._ring.count(Counter.HW_GIVEN_UP)
        self._log.warning(
            "hardware_stamps_given_up",
            nics=[f"{nic.link.name} ({nic.offer.driver})" for nic in self._nics],
            reason="the driver accepted the setting and delivers no stamps; source sw from now on",
        )
        self._say_mode()

    def _say_mode(self) -> None:
        """In the table, where a reader finds it that comes late."""
        row = np.zeros(1, ROW)[0]
        row["flags"] = RowFlag.PROBE
        row["opened_ns"] = monotonic_ns()
        row["feed"] = b"wire"
        row["stream"] = f"{self._capture.interface}={'sw' if self._soft else 'hw'}".encode()
        if self._mode is None:
            self._mode = self._ring.open_row(row)
        else:
            self._ring.update_row(self._mode, row)

    def _serve(self, stop_fd: int) -> bool:
        """Capture for as long as the interface is there, then wait a little; True once told to stop."""
        name = self._capture.interface
        if reason := self._unavailable():
            self._log.warning("interface_unavailable", reason=reason, retry_ms=RETRY_MS)
            while self._unavailable():
                if select.select([stop_fd], [], [], RETRY_MS / 1000)[0]:
                    return True
        self._log.info("ready", ring=str(self._ring.path), merging="yes" if merges(name) else "no")
        error = self._capture.run(stop_fd)
        if error == errno.ENODATA:
            self._soften()
            return False
        if error in (errno.ENETDOWN, errno.ENODEV):
            self._ring.count(Counter.INTERFACE_LOST)
        elif error == errno.ESTALE:
            raise TickpathError(f"ring file {self._ring.path} was cut short under the probe; start it again")
        elif error:
            raise TickpathError(f"capturing on {name} failed: {os.strerror(error)}")
        return error == 0

    def _unavailable(self) -> str:
        """Have the socket open; empty, or why that cannot be now."""
        try:
            self._capture.open(buffer_bytes=self._config.buffer_bytes, block_bytes=BLOCK_BYTES, hardware=not self._soft)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENETDOWN):
                return error.strerror or str(error)
            raise TickpathError(f"cannot capture on {self._capture.interface}: {error.strerror}") from None
        return ""

    def _report(self) -> None:
        with RingReader(self._ring.path) as reader:
            totals = reader.counters()
        self._log.info(
            "stopped",
            frames=totals[Counter.FRAMES],
            dropped=totals[Counter.FRAMES_DROPPED],
            unstamped=totals[Counter.FRAMES_UNSTAMPED],
        )


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})  # the calling thread alone
    except OSError:
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise ConfigError(f"cannot run on processor {cpu}; this process may use {allowed}") from None


def run(config: WireConfig, directory: Path) -> int:
    """Capture until SIGTERM or SIGINT, then 0. TickpathError when an interface cannot be captured for good."""
    selectors, remotes = selected(config.remote, config.port)
    interfaces = chosen_interfaces(config, remotes)
    _check_permission(interfaces[0])
    stop_fd, stop = stop_pipe()
    probes = [
        InterfaceProbe(name, selectors, config, directory, config.cpu[i % len(config.cpu)] if config.cpu else None)
        for i, name in enumerate(interfaces)
    ]
    # Now that those which are needed are held.
    set_back_orphans(directory)
    with ThreadPoolExecutor(len(probes), "wire") as threads:
        running = [threads.submit(probe.run, stop_fd) for probe in probes]
        wait(running, return_when=FIRST_EXCEPTION)
        os.write(stop, b"\0")  # one that failed for good ends all: what supervises the process should know
    for future in running:
        future.result()
    return 0
