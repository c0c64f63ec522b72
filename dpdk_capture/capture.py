# SPDX-License-Identifier: Apache-2.0
"""The DPDK capture as a process: a pinned loop per queue, a ring each, one thread that looks after them all."""

from __future__ import annotations

import errno
import os
import re
import select
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog

from tickpath.dpdk_capture import eal, inline, rights
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import Device, check, named
from tickpath.errors import ConfigError, TickpathError
from tickpath.event import ROW, RowFlag
from tickpath.ring import RingWriter
from tickpath.selector import Selector, selected
from tickpath.stopping import stop_pipe

if TYPE_CHECKING:
    from tickpath.dpdk_capture._dpdk import Loop, Port

_LOOK_S = 1.0


def ring_name(device: str, queue: int) -> str:
    """Of the ring of one queue's loop."""
    return f"dpdk-{re.sub('[^A-Za-z0-9._-]', '-', device)}-{queue}"


def _open_port(config: DpdkConfig, device: Device) -> Port:
    native = eal.library()
    try:
        port: Port = native.Port(
            device.name,
            queues=config.queues,
            tx_queues=config.queues if config.mode == "inline" else 0,
            descriptors=config.descriptors,
            buffers=config.buffers,
            mtu=config.mtu,
            promiscuous=config.promiscuous,
            stamps=config.stamps != "poll",
            stamp_call="" if config.stamp_clock == "table" else config.stamp_clock,
            stamp_bits=config.stamp_bits,
        )
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ConfigError(f"{device.name}: {error.strerror}") from None
        if error.errno == errno.ENOMEM:
            raise eal.EalError(f"{device.name}: {error.strerror}; raise --memory-mb or lower --buffers") from None
        said = eal.explained(native.log_text(), "")
        raise eal.EalError(f"{device.name}: {error.strerror} ({said})") from None
    if config.stamps == "hardware" and port.no_stamps:
        reason = port.no_stamps
        port.close()
        raise eal.EalError(f"{device.name}: no stamps of the port's own: {reason}; use --stamps auto or poll")
    return port


def _say_how(ring: RingWriter, config: DpdkConfig, port: Port, core: int) -> None:
    """For the metric of modes: how this loop sees."""
    row = np.zeros(1, ROW)
    row["flags"] = RowFlag.PROBE
    row["feed"] = ring.name.encode()[:32]
    stamps = "port" if port.stamped else "poll"
    row["stream"] = f"mode={config.mode} driver={port.driver} core={core} stamps={stamps}".encode()[:120]
    ring.open_row(row)


class _Capture:
    """One port and its loops."""

    def __init__(self, config: DpdkConfig, device: Device, selectors: list[Selector], directory: Path) -> None:
        self._cores = eal.cores(config)
        self._huge = eal.start(config, device, self._cores[0])
        self._log = structlog.get_logger().bind(device=device.name)
        self._port = _open_port(config, device)
        self._tap = config.tap
        self._rings: list[RingWriter] = []
        self._loops: list[Loop] = []
        try:
            taps = inline.attach(config, self._port) if config.mode == "inline" else [-1] * config.queues
            for queue, (core, tap) in enumerate(zip(self._cores, taps, strict=True)):
                ring = RingWriter(
                    directory, ring_name(device.name, queue), "wire", capacity=config.capacity, rows=config.rows
                )
                self._rings.append(ring)
                _say_how(ring, config, self._port, core)
                loop = eal.library().Loop(
                    self._port,
                    ring,
                    selectors,
                    queue=queue,
                    burst=config.burst,
                    idle_sleep_us=config.idle_sleep_us,
                    rows=config.rows,
                    tap=tap,
                )
                self._loops.append(loop)
        except BaseException:
            self.close()
            raise
        self._tell(config)

    def _tell(self, config: DpdkConfig) -> None:
        port = self._port
        if config.queues > 1 and not port.rss:
            self._log.warning("no_rss", driver=port.driver, effect="the driver spreads frames over queues as it likes")
        if config.promiscuous and not port.promiscuous:
            self._log.warning("not_promiscuous", driver=port.driver, effect="copies for other addresses may not come")
        if port.no_stamps:
            self._log.info("poll_stamps", reason=port.no_stamps)
        inline_words = {"tap": config.tap, "sends_with": port.tx_offloads} if config.mode == "inline" else {}
        self._log.info(
            "ready",
            mode=config.mode,
            driver=port.driver,
            rings=[str(ring.path) for ring in self._rings],
            cores=self._cores,
            memory=eal.memory(config, huge=self._huge),
            stamps="port" if port.stamped else "poll",
            offloads=port.offloads,
            refused=port.refused_offloads,
            descriptors=port.descriptors,
            **inline_words,
        )

    def _poll(self, loop: Loop, core: int) -> None:
        os.sched_setaffinity(0, {core})  # the calling thread alone
        error = loop.run()
        if error == errno.ESTALE:
            raise TickpathError(f"ring file of queue {loop.queue} was cut short under the capture; start it again")
        if error == errno.EBADFD:
            raise TickpathError(
                f"TAP {self._tap} was removed under the capture: the kernel has lost the port; start it again and give "
                "the TAP its addresses anew"
            )
        if error:
            raise TickpathError(f"the loop of queue {loop.queue} failed: {os.strerror(error)}")

    def run(self, stop_fd: int) -> None:
        """Capture until `stop_fd` is readable, or a loop fails. TickpathError: why it failed."""
        with ThreadPoolExecutor(len(self._loops), "dpdk") as threads:
            running = [threads.submit(self._poll, *one) for one in zip(self._loops, self._cores, strict=True)]
            try:
                self._watch(stop_fd, running)
            finally:
                self._port.count()  # its losses, for what the loops tell last
                for loop in self._loops:
                    loop.stop()
                wait(running)
        for future in running:
            future.result()
        received, missed, errors, sent, _ = self._port.count()
        self._log.info("stopped", received=received, missed=missed, errors=errors, sent=sent)

    def _watch(self, stop_fd: int, running: list[Future[None]]) -> None:
        link = True
        while not select.select([stop_fd], [], [], _LOOK_S)[0]:
            up = self._port.count()[-1]
            if up != link:
                self._log.warning("link", up=up)
            link = up
            if wait(running, 0, FIRST_EXCEPTION).done:
                return

    def close(self) -> None:
        for loop in self._loops:
            loop.close()
        for ring in self._rings:
            ring.close()
        self._port.close()


def run(config: DpdkConfig, directory: Path, *, dry: bool = False) -> int:
    """Capture until SIGTERM or SIGINT, then 0; `dry`: say what that would set up, and do none of it.

    TickpathError when the port cannot be had, or a loop fails.
    """
    selectors, _ = selected(config.remote, config.port)
    device = named(config.device)
    if config.mode == "inline":
        inline.check(config, device)
    if dry:
        print("\n".join(inline.plan(config, device, eal.cores(config)[0], selectors)))
    check(device, proc=config.proc)
    rights.forgo()
    if dry:
        return 0
    eal.library()
    if config.mode == "inline" and (said := inline.across_pages(config, device)):
        structlog.get_logger().warning("across_pages", device=device.name, effect=said)
    stop_fd, _ = stop_pipe()
    capture = _Capture(config, device, selectors, directory)
    try:
        capture.run(stop_fd)
    finally:
        capture.close()
    return 0
