# SPDX-License-Identifier: Apache-2.0
"""A DPDK capture in a process of its own, for EAL lives once in each, and what its rings hold."""

from __future__ import annotations

import importlib.util
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from native import ROOT, compiled
from tickpath.event import RECORD, Counter, Kind
from tickpath.lab.shuttle import TruthWire
from tickpath.ring import SUFFIX, RingReader

_START_S = 60.0
_SOURCES = ["-P", "-m", "tickpath", "capture", "dpdk"]
# No processor of the machine is owned by a test: an idle loop sleeps.
_SPARING = ["--idle-sleep-us", "100", "--memory", "none", "--log-format", "logfmt"]

needs_dpdk = pytest.mark.skipif(
    importlib.util.find_spec("tickpath.dpdk_capture._dpdk") is None, reason="built without DPDK (libdpdk-dev)"
)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = _START_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.01)


class DpdkCapture:
    """`tickpath capture dpdk --device DEVICE …`, and readers of its rings from their first record."""

    def __init__(
        self,
        directory: Path,
        device: str,
        *flags: str,
        queues: int = 1,
        wire: TruthWire | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = device.partition(",")[0]
        directory.mkdir(exist_ok=True)
        self._log = directory / "capture.log"
        argv = [sys.executable, *_SOURCES, "--device", device, "--directory", str(directory), *_SPARING]
        argv += ["--queues", str(queues), *(["--cores", "0,1"] if queues == 2 else []), *flags]
        with self._log.open("wb") as log:
            options: dict[str, Any] = {"stdout": log, "stderr": log, "env": {**os.environ, **(environment or {})}}
            if wire:
                self.process = wire.run_in(wire.client, argv, **options)
            else:
                # The kernel ends it with us, however we end.
                self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], **options)
        self.paths = [directory / f"dpdk-{self.name}-{queue}{SUFFIX}" for queue in range(queues)]
        self._taken: list[np.ndarray] = [np.zeros(0, RECORD) for _ in self.paths]
        self.readers: list[RingReader] = []

    def text(self) -> str:
        return self._log.read_text()

    def ready(self) -> Self:
        """Wait until it polls."""

        def polls() -> bool:
            assert self.process.poll() is None, self.text()
            return "event=ready" in self.text()

        wait_until(polls, "the capture")
        self.readers = [RingReader(path, from_start=True) for path in self.paths]
        return self

    def records(self, kind: Kind, queue: int = 0) -> np.ndarray:
        out = np.zeros(4096, RECORD)
        while count := self.readers[queue].read(out.view("u1")):
            self._taken[queue] = np.concatenate([self._taken[queue], out[:count]])
        taken = self._taken[queue]
        return taken[taken["kind"] == kind]

    def count(self, counter: Counter) -> int:
        """Over all queues; published ten times a second."""
        return sum(reader.counters()[counter] for reader in self.readers)

    def wait_for(self, counter: Counter, count: int) -> None:
        def counted() -> bool:
            assert self.process.poll() is None, self.text()
            return self.count(counter) >= count

        wait_until(counted, f"{count} {counter.name}")

    def stop(self) -> str:
        """End it as an operator does; all that it said."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        # Else what a sanitizer finds as it ends would be seen by nobody.
        assert self.process.returncode == 0, self.text()
        return self.text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for reader in self.readers:
            reader.close()


def refused(*flags: str, code: int | None = None) -> str:
    """What a capture that cannot start says, with its exit code: one line."""
    argv = [sys.executable, *_SOURCES, *flags]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_START_S, check=False)
    assert done.returncode not in (0, -6, -11), done.stderr
    if code is not None:
        assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0]
    return lines[0]


def pcap_file(path: Path, frames: Iterable[tuple[int, bytes]]) -> Path:
    """A capture file in tcpdump's format of frames, each with its time in microseconds since 1970."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for time_us, frame in frames:
            file.write(struct.pack("<IIII", *divmod(time_us, 1_000_000), len(frame), len(frame)) + frame)
    return path


def preloadable(folder: Path, name: str) -> Path:
    """The library of NAME.c beside this file, which wraps calls of DPDK's."""
    flags = subprocess.run(["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True, check=True).stdout
    headers = [flag.replace("-I", "-isystem", 1) if flag.startswith("-I") else flag for flag in flags.split()]
    return compiled(
        folder / f"{name}.so",
        [ROOT / "tests" / "dpdk" / f"{name}.c"],
        "-shared",
        "-fPIC",
        "-DALLOW_EXPERIMENTAL_API",
        # In the process's global scope, where the preloaded library looks for what it wraps.
        *("-Wl,--no-as-needed", "-lrte_ethdev", "-lrte_mbuf", "-lrte_eal"),
        *headers,
    )


def preloaded(library: Path) -> dict[str, str]:
    """The environment in which it is loaded first, but for a sanitizer."""
    return {"LD_PRELOAD": " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))}
