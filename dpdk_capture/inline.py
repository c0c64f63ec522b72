# SPDX-License-Identifier: Apache-2.0
"""Inline mode around the loops: what would be set up, what is refused, the TAP by which the kernel has the port."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from tickpath.dpdk_capture import eal
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import Device, interfaces, shared
from tickpath.errors import ConfigError, PermissionMissingError, TickpathError
from tickpath.route import default_interfaces
from tickpath.selector import Selector

if TYPE_CHECKING:
    from tickpath.dpdk_capture._dpdk import Port

_NAME_BYTES = 15
# Up to here a buffer and its header fit into a page of 4 KiB, and DPDK lays none across two.
_ONE_PAGE_MTU = 3600


class InlineError(TickpathError):
    """The kernel cannot be given the port's traffic; the text says what to do."""


def check(config: DpdkConfig, device: Device, root: Path = Path("/")) -> None:
    """ConfigError where inline would cut this host off from its network, and that was not said to be meant."""
    name = config.tap
    if not 0 < len(name.encode()) <= _NAME_BYTES or set(name) & set("/: \t\n%") or name in (".", ".."):
        raise ConfigError(f"{name!r} cannot be the name of an interface: 1 to {_NAME_BYTES} bytes, no / : % or blanks")
    taken = set(interfaces(device, root)) & set(default_interfaces())
    if taken and not config.default_route:
        raise ConfigError(
            f"{device.name} is {', '.join(sorted(taken))}, over which this host's default route goes: inline, the host "
            f"is reached only while the capture runs, and through {name}; if that is meant, say so: --default-route"
        )


def across_pages(config: DpdkConfig, device: Device, root: Path = Path("/")) -> str:
    """What is to be said of frames that lie across pages of memory; empty: none do. EalError as uses_huge_pages."""
    if not device.pci or config.mtu <= _ONE_PAGE_MTU or eal.uses_huge_pages(config, root):
        return ""
    return (
        "large frames lie across pages: a NIC behind an IOMMU sends them, an emulated one (QEMU's e1000e) loses them "
        "and counts nothing; in a virtual machine use --memory huge"
    )


def attach(config: DpdkConfig, port: Port) -> list[int]:
    """The TAP's descriptors, one per queue. InlineError, PermissionMissingError."""
    descriptors: list[int] = []
    try:
        for _ in range(config.queues):
            descriptors.append(eal.library().attach_tap(config.tap, port.mac, config.mtu, config.queues > 1))
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise _explained(config.tap, error) from None
    return descriptors


def _explained(tap: str, error: OSError) -> TickpathError:
    said = f"TAP {tap}: {error.strerror}"
    if error.errno == errno.EBUSY:
        return InlineError(f"{said}: another process forwards to it; stop that one, or name another with --tap")
    if error.errno == errno.EINVAL:
        return InlineError(
            f"{said}: an interface of that name is there, and no such TAP (or was made for another number of queues): "
            f"name another with --tap, or, losing its addresses, run: ip link delete {tap}"
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionMissingError(f"{said}: needs CAP_NET_ADMIN; run as root")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return InlineError(f"{said}: the kernel's TUN driver is not there; run: modprobe tun")
    return InlineError(said)


def _rules(selectors: Sequence[Selector]) -> Iterator[str]:
    """Those of rte_flow, in testpmd's words, by which DPDK gets the watched peers' frames and the kernel the rest."""
    yield "flow isolate 0 true"
    for selector in selectors:
        address = ip_address(selector.remote) if selector.remote else None
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        versions = (address.version,) if address else (4, 6)
        for version in versions:
            source = f" src is {address}" if address else ""
            pattern = f"eth / ipv{version}{source} / tcp src is {selector.port} / end"
            yield f"flow create 0 ingress pattern {pattern} actions queue index 0 / end"


def plan(
    config: DpdkConfig, device: Device, core: int, selectors: Sequence[Selector], root: Path = Path("/")
) -> Iterator[str]:
    """What starting would do, a line each; nothing is touched."""
    huge = eal.uses_huge_pages(config, root)
    yield f"port {device.name}: {'a PCI device' if device.pci else 'a virtual device'}, {config.queues} queue(s)"
    yield f"memory: {eal.memory(config, huge=huge)}, given back at the end"
    if config.mode == "inline" and (said := across_pages(config, device, root)):
        yield f"memory: {said}"
    yield f"EAL: {' '.join(eal.arguments(config, device, core, huge=huge)[1:])}"
    if shared(device, root):
        names = ", ".join(interfaces(device, root))
        yield f"its driver stays with the kernel: while the port is open, all frames come here and none to {names}"
        yield "these rules of rte_flow would leave the rest to the kernel (as testpmd takes them; tickpath sets none):"
        yield from (f"    {rule}" for rule in _rules(selectors))
    if config.mode == "mirror":
        yield f"every frame of {device.name} is stamped and recorded, and goes nowhere"
        return
    tap = config.tap
    there = (root / "sys/class/net" / tap).exists()
    was = "is there and keeps its addresses, routes and connections" if there else "made, set up, and left at the end"
    yield f"TAP {tap}: {was}"
    yield f"TAP {tap}: gets the port's MAC address and MTU {config.mtu}; the kernel segments, and may leave checksums"
    for interface in interfaces(device, root):
        yield f"{interface}: its addresses and routes are yours to move to {tap}; nothing moves them"
    if not there:
        yield f"yours to run then: ip address add ADDRESS/LENGTH dev {tap}; ip route add default via GATEWAY dev {tap}"
    yield f"every frame of {device.name} is stamped, recorded and handed to {tap}; the other way nothing is recorded"
