# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a process, and tickpath's own processes as an operator would run them."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tickpath.errors import NotHereError, PermissionMissingError, RingError, TickpathError
from tickpath.lab.demo.processes import Child
from tickpath.lab.ports import HeldPort
from tickpath.ring import SUFFIX, RingReader

_START_S = 30.0


def cpu_ns(pid: int) -> int:
    """CPU time of all living threads of a process."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent


def private_bytes(pid: int) -> int:
    """Anonymous memory of a process, what it shares counted in part: Pss_Anon."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise TickpathError("this kernel tells no Pss_Anon (before 5.14)")


def busy_percent(pids: list[int], seconds: float) -> list[float]:
    """How much of a core each process uses over that time."""
    before = [cpu_ns(pid) for pid in pids]
    began_ns = time.monotonic_ns()
    time.sleep(seconds)
    after = [cpu_ns(pid) for pid in pids]
    elapsed_ns = time.monotonic_ns() - began_ns
    return [100 * (b - a) / elapsed_ns for a, b in zip(before, after, strict=True)]


@contextmanager
def on_cpus(cpus: set[int]) -> Iterator[None]:
    """This thread, and every process that it starts meanwhile, stay on these."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def undisturbed() -> Iterator[bool]:
    """This thread, and every one that it starts meanwhile, before all other work on its core; whether that is granted.

    For what is measured on the wall: a shared host's other work must not stand in for tickpath's.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _produces(rings: Path, kind: str) -> bool:
    for path in rings.glob(f"*{SUFFIX}"):
        with suppress(RingError), RingReader(path) as reader:
            if reader.kind == kind and reader.alive:
                return True
    return False


class Probes:
    """An exporter, and a probe of that kind (wire: on the loopback interface) that watches one port. A context manager.

    TickpathError where the probe is not permitted.
    """

    def __init__(self, folder: Path, watched_port: int, kind: str = "wire") -> None:
        self._folder = folder
        self._watched_port = watched_port
        self._kind = kind
        self.rings = folder / "rings"
        self._port = HeldPort()

    def __enter__(self) -> Probes:
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {"TICKPATH_DIRECTORY": str(self.rings)}
        port = self._port.number
        self.exporter = Child("exporter", ["exporter", "--listen", f"127.0.0.1:{port}"], self._folder, environment)
        where = ["--interface", "lo"] if self._kind == "wire" else []
        watched = ["probe", self._kind, *where, "--port", str(self._watched_port)]
        self.probe = Child(self._kind, watched, self._folder, environment)
        try:
            self.exporter.wait_until(lambda: _answers(port), _START_S, "answer")
            self.probe.wait_until(lambda: _produces(self.rings, self._kind), _START_S, "ring")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.probe.stop()
        self.exporter.stop()
        self._port.close()


def for_a_loop(module: str) -> list[int]:
    """The processors that a DPDK loop and the others may have; the last is to be the loop's own.

    NotHereError where the native `module` is missing or there is one processor; PermissionMissingError without root.
    """
    if importlib.util.find_spec(module) is None:
        raise NotHereError("built without DPDK (libdpdk-dev)")
    if os.geteuid() != 0:
        raise PermissionMissingError("DPDK wants root")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise NotHereError("a loop wants a core of its own, and here is one")
    return allowed
