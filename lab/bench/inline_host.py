# SPDX-License-Identifier: Apache-2.0
"""A host whose NIC DPDK has: the client's side of a truth wire, driven by net_af_packet, and behind it the TAP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tickpath.lab.shuttle import TruthWire, WireConfig
from tickpath.lab.shuttle.namespace import run_inside

TAP = "tickpath0"
# Its own 512 frames were too few: what came while the loop did not run was lost, and no counter told.
FRAMES = "blocksz=131072,framesz=2048,framecnt=8192"


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


def port(wire: TruthWire, frames: str = FRAMES) -> str:
    """The client's device, as `tickpath capture dpdk --device` takes it."""
    return f"net_af_packet0,iface={wire.client.device},{frames}"


def addressed(wire: TruthWire) -> None:
    """Give the TAP the client's addresses."""
    client, server = wire.client, wire.server
    commands = [f"address replace {client.ipv4}/24 dev {TAP}", f"address replace {client.ipv6}/64 dev {TAP} nodad"]
    commands += [f"neighbour replace {ip} lladdr {server.mac} dev {TAP}" for ip in (server.ipv4, server.ipv6)]
    run_inside(client.namespace, ["ip", "-batch", "-"], "\n".join(commands) + "\n")
    wire.wait_for_ipv6(client)


def _set(wire: TruthWire, name: str, value: str) -> None:
    with wire.inside(wire.client):
        Path(f"/proc/sys/net/{name}").write_text(value)
