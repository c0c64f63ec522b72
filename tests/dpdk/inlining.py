# SPDX-License-Identifier: Apache-2.0
"""`tickpath capture dpdk --mode inline` on the bench's host whose NIC DPDK has, and what its tests do to that host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tickpath.event import Counter
from tickpath.lab.bench.inline_host import FRAMES, TAP, port
from tickpath.lab.shuttle import Side, TruthWire
from tickpath.lab.shuttle.namespace import run_inside
from tickpath.ring import RingReader
from traffic import wait_until

PORT = 18065


def tickpath(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "tickpath", *arguments]


class Life:
    """One life of `tickpath capture dpdk --mode inline`: its process, what it says, and the ring that it makes."""

    process: subprocess.Popen[Any]
    log: Path
    ring: Path

    def ready(self) -> Self:
        wait_until(lambda: "event=ready" in self.said or self.process.poll() is not None, "a ready capture", 90)
        assert self.process.poll() is None, self.said
        return self

    @property
    def said(self) -> str:
        return self.log.read_text()

    def counters(self) -> Any:
        with RingReader(self.ring) as reader:
            return reader.counters()

    def counted(self, counter: Counter, at_least: int) -> None:
        """Wait: the loop tells its totals ten times a second."""

        def counted() -> bool:
            assert self.process.poll() is None, self.said
            return bool(self.counters()[counter] >= at_least)

        wait_until(counted, f"{at_least} {counter.name}")


class Capture(Life):
    """On the device of a truth wire's client."""

    def __init__(
        self, wire: TruthWire, folder: Path, *flags: str, idle_sleep_us: int = 20, frames: str = FRAMES
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / f"capture-{len(list(folder.glob('capture-*')))}.log"
        self.rings = folder / "rings"
        self.ring = self.rings / "dpdk-net_af_packet0-0.ring"
        device = port(wire, frames)
        argv = tickpath("capture", "dpdk", "--mode", "inline", "--device", device, "--memory", "none", *flags)
        # Not 0: who else runs on this machine shall have some of it.
        argv += ["--idle-sleep-us", str(idle_sleep_us)]
        with self.log.open("wb") as log:
            self.process = wire.run_in(
                wire.client,
                [*argv, "--port", str(PORT), "--directory", str(self.rings)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "TICKPATH_LOG_FORMAT": "logfmt"},
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)

    def __enter__(self) -> Self:
        return self.ready()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            assert self.stop() == 0, self.said


def forgotten(wire: TruthWire) -> None:
    """Have both sides find each other by ARP and neighbour discovery."""
    for side, device in ((wire.server, wire.server.device), (wire.client, TAP)):
        commands = [f"link set {device} arp on", f"neighbour flush dev {device} nud all"]
        run_inside(side.namespace, ["ip", "-batch", "-"], "\n".join(commands) + "\n")


def link(wire: TruthWire, side: Side, *words: str) -> None:
    run_inside(side.namespace, ["ip", "link", *words])
