# SPDX-License-Identifier: Apache-2.0
"""Which port is meant, and whether DPDK can have it: asked of sysfs and proc before DPDK is. Changes nothing."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tickpath.dpdk_capture.config import AUTO
from tickpath.errors import ConfigError, NotHereError, TickpathError

_PCI = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE)
_VIRTUAL = re.compile(r"[a-z][a-z0-9_]*")
# Drivers of the kernel that hand a whole device to a process.
_HANDING = ("vfio-pci", "igb_uio", "uio_pci_generic")
# Those that stay and share it: DPDK works through them.
_BIFURCATED = ("mlx4_core", "mlx5_core", "mana", "nfp")
_NETWORK_CLASS = "0x02"


class DeviceError(TickpathError):
    """The port cannot be had; the text says what to do."""


@dataclass(frozen=True)
class Device:
    """A port as DPDK knows it: its name, what EAL is given for it, and whether it is on the PCI bus."""

    name: str
    arguments: str
    pci: bool


def parse(text: str) -> Device:
    """What the operator wrote; ConfigError when it is neither a PCI address nor a virtual device."""
    name, comma, rest = text.partition(",")
    if match := _PCI.fullmatch(name):
        address = f"{match[1] or '0000'}:{match[2]}".lower()
        return Device(address, address + comma + rest, True)
    if _VIRTUAL.fullmatch(name):
        return Device(name, text, False)
    raise ConfigError(
        f"device {text!r} is neither a PCI address (0000:01:00.0) nor a virtual device (net_af_packet0,iface=eth0)"
    )


def named(text: str, root: Path = Path("/")) -> Device:
    """The device that is meant, whether or not it can be had.

    Raises ConfigError; NotHereError: `auto`, and no NIC is bound for DPDK.
    """
    if text == AUTO:
        bound = bound_devices(root)
        if not bound:
            raise NotHereError(
                "no NIC here is bound for DPDK; name one with --device, or let `tickpath probe wire` capture"
            )
        if len(bound) > 1:
            raise ConfigError(f"several NICs are bound for DPDK ({', '.join(bound)}): name one with --device")
        text = bound[0]
    return parse(text)


def check(device: Device, root: Path = Path("/"), proc: Path | None = None) -> None:
    """DeviceError with the remedy where the kernel can tell that DPDK will not get the device.

    `proc`: where the host's processes are listed, in a container that has a list of its own in /proc.
    """
    if device.pci:
        _check(device.name, root, proc or root / "proc")


def chosen(text: str, root: Path = Path("/"), proc: Path | None = None) -> Device:
    """named() and check() in one."""
    device = named(text, root)
    check(device, root, proc)
    return device


def bound_devices(root: Path = Path("/")) -> list[str]:
    """PCI addresses of the NICs that DPDK has been given."""
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _read(device / "class").startswith(_NETWORK_CLASS) and _driver(device) in _HANDING:
            found.append(device.name)
    return found


def interfaces(device: Device, root: Path = Path("/")) -> list[str]:
    """The kernel's interfaces whose traffic the port takes: the PCI device's own, or the one below a virtual device."""
    if device.pci:
        return [entry.name for entry in _entries(root / "sys/bus/pci/devices" / device.name / "net")]
    pairs = (word.partition("=") for word in device.arguments.split(",")[1:])
    return [value for key, _, value in pairs if key in ("iface", "remote") and value]


def shared(device: Device, root: Path = Path("/")) -> bool:
    """Whether the kernel's driver stays while DPDK works through it (bifurcated)."""
    return device.pci and _driver(root / "sys/bus/pci/devices" / device.name) in _BIFURCATED


def owners(address: str, root: Path = Path("/"), proc: Path | None = None) -> list[int]:
    """Processes, other than this one, that hold the device's file of VFIO or UIO; those of others only as root."""
    device = root / "sys/bus/pci/devices" / address
    files = {f"/dev/{entry.name}" for entry in (device / "uio").glob("uio*")}
    group = _link(device / "iommu_group")
    if group:
        files |= {f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"}
    proc = proc or root / "proc"
    ours = _target(proc / "self")
    holding = []
    for process in proc.glob("[0-9]*"):
        if process.name != ours and any(_target(entry) in files for entry in _entries(process / "fd")):
            holding.append(int(process.name))
    return sorted(holding)


def _check(address: str, root: Path, proc: Path) -> None:
    device = root / "sys/bus/pci/devices" / address
    if not os.access(device, os.F_OK):
        raise DeviceError(f"there is no PCI device {address}; `dpdk-devbind.py --status-dev net` lists the NICs")
    if not _read(device / "class").startswith(_NETWORK_CLASS):
        raise DeviceError(f"PCI device {address} is no NIC (class {_read(device / 'class')})")
    driver = _driver(device)
    bind = f"dpdk-devbind.py --bind=vfio-pci {address}"
    if not driver:
        raise DeviceError(f"{address} is bound to no driver; run: modprobe vfio-pci && {bind}")
    if driver in _BIFURCATED:
        return
    if driver not in _HANDING:
        known = [entry.name for entry in _entries(device / "net")]
        has = f", where it is interface {', '.join(known)}" if known else ""
        raise DeviceError(
            f"{address} belongs to the kernel's driver {driver}{has}: DPDK cannot take it; `tickpath probe wire` "
            f"captures there as it is, or run (the interface goes away): {bind}"
        )
    if driver == "vfio-pci" and not _entries(root / "sys/kernel/iommu_groups") and not _without_iommu(root):
        raise DeviceError(
            f"{address} is bound to vfio-pci and this host has no IOMMU: boot with intel_iommu=on iommu=pt (AMD: "
            "amd_iommu=on), or, unsafe, run: echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        )
    if driver == "vfio-pci" and not _without_iommu(root) and not _entries(root / "sys/module/vfio_iommu_type1"):
        raise DeviceError(
            f"{address} is bound to vfio-pci, whose other half is missing; run: modprobe vfio_iommu_type1"
        )
    if holders := owners(address, root, proc):
        names = ", ".join(f"{pid} ({_read(proc / str(pid) / 'comm') or '?'})" for pid in holders)
        raise DeviceError(f"{address} is in use by process {names}: a port has one owner; stop it first")
    if group := _link(device / "iommu_group"):
        _check_group(address, root / "dev/vfio", group)


def _check_group(address: str, folder: Path, group: str) -> None:
    """VFIO itself tells of owners that a container's /proc does not show, and of files that it was not given."""
    unsafe = folder / f"noiommu-{group}"
    file = unsafe if unsafe.exists() else folder / group
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceError(
                f"{address} is in use by a process that cannot be seen from here: a port has one owner; on the host, "
                f"`fuser -v {file}` names it"
            ) from None
        if error.errno in (errno.ENOENT, errno.EPERM):
            helps = (
                "without an IOMMU it takes CAP_SYS_RAWIO and CAP_SYS_ADMIN: run the capture on the host"
                if file == unsafe
                else "a container must be given it, as compose.dpdk.yaml does"
            )
            raise DeviceError(
                f"{address} is bound to vfio-pci and {file} is not to be had ({error.strerror}): {helps}"
            ) from None
        # What else is wrong, EAL says.


def _without_iommu(root: Path) -> bool:
    return _read(root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode") in ("Y", "1")


def _driver(device: Path) -> str:
    return _link(device / "driver")


def _link(path: Path) -> str:
    return Path(_target(path)).name


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
