# SPDX-License-Identifier: Apache-2.0
"""The kernel probe as a process: loads and attaches the programs, carries their records until told to stop."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import structlog

from tickpath.errors import ConfigError, TickpathError
from tickpath.event import Counter
from tickpath.probes.kernel.config import KernelConfig
from tickpath.probes.kernel.programs import explained, load
from tickpath.ring import RingReader, RingWriter
from tickpath.selector import Selector, selected
from tickpath.stopping import stop_pipe

MOST_SELECTORS = 16


def _selectors(config: KernelConfig) -> list[Selector]:
    # A cgroup says enough by itself.
    if config.cgroup is not None and not config.remote and not config.port:
        return []
    selectors, _ = selected(config.remote, config.port)
    if len(selectors) > MOST_SELECTORS:
        raise ConfigError(f"{len(selectors)} remotes and ports are too many: at most {MOST_SELECTORS}, or a cgroup")
    return selectors


def _cgroup_id(folder: Path | None) -> int:
    if folder is None:
        return 0
    if not (folder / "cgroup.controllers").exists():
        raise ConfigError(f"{folder} is not the folder of a version 2 cgroup (such as /sys/fs/cgroup/system.slice)")
    return folder.stat().st_ino


def _check_buffer(buffer_bytes: int) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    if buffer_bytes < page or buffer_bytes & (buffer_bytes - 1):
        raise ConfigError(f"buffer_bytes {buffer_bytes} is not a power of two of {page} or more")


def run(config: KernelConfig, directory: Path) -> int:
    """Trace until SIGTERM or SIGINT, then 0. TickpathError: it cannot be done here, or failed."""
    _check_buffer(config.buffer_bytes)
    selectors = _selectors(config)
    log = structlog.get_logger()
    stop_fd, _ = stop_pipe()
    tracer = load(selectors, cgroup=_cgroup_id(config.cgroup), buffer_bytes=config.buffer_bytes)
    try:
        # Before the ring is there to be seen: from then on events are kept.
        try:
            tracer.attach()
        except OSError as error:
            raise explained(error) from None
        with RingWriter(directory, config.name, "kernel", capacity=config.capacity, rows=config.rows) as ring:
            tracer.write_to(ring, rows=config.rows)
            log.info("ready", ring=str(ring.path), rung="tp_btf")
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
                unsupported=totals[Counter.UNSUPPORTED_TRANSPORT],
            )
    finally:
        tracer.close()
    return 0
