# SPDX-License-Identifier: Apache-2.0
"""A host whose NIC DPDK has: the client's side of a truth wire, driven by net_af_packet, and behind it the TAP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tickpath.event import Counter
from tickpath.lab.shuttle import Side, TruthWire, WireConfig
from tickpath.lab.shuttle.namespace import run_inside
from tickpath.ring import RingReader
from traffic import wait_until

TAP = "tickpath0"
PORT = 18065
# Its own 512 frames were too few: what came while the loop did not run was lost, and no counter told.
_FRAMES = "blocksz=131072,framesz=2048,framecnt=8192"


def tickpath(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "tickpath", *arguments]


class Capture:
    """One life of `tickpath capture dpdk --mode inline`."""

    def __init__(self, wire: TruthWire, folder: Path, *flags: str, idle_sleep_us: int = 20) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / f"capture-{len(list(folder.glob('capture-*')))}.log"
        self.rings = folder / "rings"
        device = f"net_af_packet0,iface={wire.client.device},{_FRAMES}"
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

    def ready(self) -> Self:
        wait_until(lambda: "event=ready" in self.said or self.process.poll() is not None, "a ready capture", 90)
        assert self.process.poll() is None, self.said
        return self

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def ring(self) -> Path:
        return self.rings / "dpdk-net_af_packet0-0.ring"

    def counters(self) -> Any:
        with RingReader(self.ring) as reader:
            return reader.counters()

    def counted(self, counter: Counter, at_least: int) -> None:
        """Wait: the loop tells its totals ten times a second."""
        wait_until(lambda: self.counters()[counter] >= at_least, f"{at_least} {counter.name}")

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
            self.stop()


@contextmanager
def given_up(config: WireConfig | None = None) -> Iterator[TruthWire]:
    """A truth wire whose client's kernel has nothing to do with its device any more: DPDK may have it."""
    with TruthWire(config) as wire:
        device = wire.client.device
        run_inside(wire.client.namespace, ["ip", "address", "flush", "dev", device])
        # Frames go to packet sockets and to the kernel: it shall find none to be for it, as on a NIC it does not have.
        _set(wire, f"ipv6/conf/{device}/disable_ipv6", "1")
        _set(wire, f"ipv4/conf/{device}/rp_filter", "1")
        yield wire


def addressed(wire: TruthWire) -> None:
    """Give the TAP the client's addresses."""
    client, server = wire.client, wire.server
    commands = [f"address replace {client.ipv4}/24 dev {TAP}", f"address replace {client.ipv6}/64 dev {TAP} nodad"]
    commands += [f"neighbour replace {ip} lladdr {server.mac} dev {TAP}" for ip in (server.ipv4, server.ipv6)]
    run_inside(client.namespace, ["ip", "-batch", "-"], "\n".join(commands) + "\n")
    routes = Path("/proc/thread-self/net/ipv6_route")
    with wire.inside(client):
        wait_until(lambda: f"{client.ipv6.packed.hex()} 80" in routes.read_text(), "the TAP's IPv6 address in force")


def forgotten(wire: TruthWire) -> None:
    """Have both sides find each other by ARP and neighbour discovery."""
    for side, device in ((wire.server, wire.server.device), (wire.client, TAP)):
        commands = [f"link set {device} arp on", f"neighbour flush dev {device} nud all"]
        run_inside(side.namespace, ["ip", "-batch", "-"], "\n".join(commands) + "\n")


def link(wire: TruthWire, side: Side, *words: str) -> None:
    run_inside(side.namespace, ["ip", "link", *words])


def _set(wire: TruthWire, name: str, value: str) -> None:
    with wire.inside(wire.client):
        Path(f"/proc/sys/net/{name}").write_text(value)
