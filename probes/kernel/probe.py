# SPDX-License-Identifier: Apache-2.0
"""The kernel probe as a process: loads and attaches the programs, carries their records until told to stop."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from tickpath.errors import ConfigError, PermissionMissingError, TickpathError
from tickpath.event import Counter
from tickpath.probes.kernel.config import KernelConfig
from tickpath.probes.kernel.processes import tcp_sockets
from tickpath.probes.kernel.programs import load
from tickpath.probes.kernel.selection import cgroup_id, check_pids, peers
from tickpath.ring import RingReader, RingWriter
from tickpath.stopping import stop_pipe

if TYPE_CHECKING:
    from tickpath.probes.kernel._tracer import Tracer

WITHOUT = {
    "readable": "no nic_to_kernel, and no kernel_to_user",
    "copied": "no parts of kernel_to_user",
    "state": "connections are seen at their first bytes, and their ends not at all",
}
"""What is missing where a hook is."""


def _check_buffer(buffer_bytes: int) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    if buffer_bytes < page or buffer_bytes & (buffer_bytes - 1):
        raise ConfigError(f"buffer_bytes {buffer_bytes} is not a power of two of {page} or more")


def _check_btf(btf: Path | None) -> None:
    if btf is None:
        return
    try:
        with btf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigError(f"btf {str(btf)!r} cannot be read: {error.strerror}") from None
    # Types alone, in either byte order, or an ELF file that has them in a section.
    if magic[:2] not in (b"\x9f\xeb", b"\xeb\x9f") and magic != b"\x7fELF":
        raise ConfigError(f"btf {str(btf)!r} is no BTF: it wants the file that belongs to kernel {os.uname().release}")


def _claim(tracer: Tracer, pid: int) -> None:
    """Its sockets of now; those to come are claimed in the kernel."""
    log = structlog.get_logger()
    try:
        with tcp_sockets(pid) as held:
            for one in held:
                tracer.claim(one.fileno())
    except OSError as error:
        log.warning("sockets_not_taken", pid=pid, reason=error.strerror, effect="told of from its next read on")


def _count_cost(tracer: Tracer) -> None:
    try:
        tracer.count_cost()
    except OSError as error:
        raise PermissionMissingError(
            f"the kernel does not time BPF programs for us: {error.strerror}; "
            "it needs CAP_SYS_ADMIN, or leave out --cost"
        ) from None


class Attached(Protocol):
    """What is told of a tracer."""

    @property
    def modes(self) -> dict[str, str]:
        """By hook."""

    @property
    def refusals(self) -> dict[str, str]:
        """By hook, why not."""


def tell_modes(tracer: Attached) -> None:
    """One warning of the hooks that cannot be had, where that takes something away."""
    log = structlog.get_logger()
    missing = [hook for hook, mode in tracer.modes.items() if mode == "none" and hook in WITHOUT]
    if missing:
        log.warning(
            "hooks_missing",
            **{hook: tracer.refusals.get(hook, "") for hook in missing},
            effect="; ".join(WITHOUT[hook] for hook in missing),
        )


def run(config: KernelConfig, directory: Path) -> int:
    """Trace until SIGTERM or SIGINT, then 0. TickpathError: it cannot be done here, or failed."""
    _check_buffer(config.buffer_bytes)
    check_pids(config.pid)
    _check_btf(config.btf)
    # A cgroup says enough by itself, and so does a process.
    selectors = peers(config.remote, config.port, default_ports=config.cgroup is None and not config.pid)
    log = structlog.get_logger()
    stop_fd, _ = stop_pipe()
    # Before the ring is there to be seen: from then on events are kept.
    tracer = load(
        selectors,
        cgroup=cgroup_id(config.cgroup),
        pids=config.pid,
        buffer_bytes=config.buffer_bytes,
        rung=config.rung,
        btf=config.btf,
    )
    try:
        if config.cost:
            _count_cost(tracer)
        for pid in config.pid:
            _claim(tracer, pid)
        # One row more, which tells the modes.
        with RingWriter(directory, config.name, "kernel", capacity=config.capacity, rows=config.rows + 1) as ring:
            tracer.write_to(ring, rows=config.rows)
            tell_modes(tracer)
            log.info("ready", ring=str(ring.path), **tracer.modes)
            error_number = tracer.run(stop_fd, config.interval_ms)
            if error_number == errno.ESTALE:
                raise TickpathError(f"ring file {ring.path} was cut short under the probe; start it again")
            if error_number:
                raise TickpathError(f"fetching records from the kernel failed: {os.strerror(error_number)}")
            with RingReader(ring.path) as reader:
                totals = reader.counters()
            log.info(
                "stopped",
                records=ring.head,
                lost=totals[Counter.EVENTS_LOST],
                left_out=totals[Counter.RUNS_LEFT_OUT],
                unsupported=totals[Counter.UNSUPPORTED_TRANSPORT],
                no_cookie=totals[Counter.NO_COOKIE],
            )
    finally:
        tracer.close()
    return 0
