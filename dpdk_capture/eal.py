# SPDX-License-Identifier: Apache-2.0
"""DPDK's environment layer: its arguments out of the typed configuration, and its failures in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import Device
from tickpath.errors import ConfigError, NotHereError, PermissionMissingError, TickpathError

_MIB = 1 << 20


class EalError(TickpathError):
    """EAL or a port would not start; the text says why, as DPDK put it, and what helps."""


def cores(config: DpdkConfig) -> list[int]:
    """One processor per queue; ConfigError where this process may not use them."""
    allowed = sorted(os.sched_getaffinity(0))
    shown = ",".join(map(str, allowed))
    if not config.cores:
        if len(allowed) < config.queues:
            raise ConfigError(f"{config.queues} queues want as many processors; this process may use {shown}")
        return allowed[-config.queues :]
    if len(config.cores) != config.queues:
        raise ConfigError(f"{len(config.cores)} cores for {config.queues} queues: each queue has a loop on its own")
    if wrong := [core for core in config.cores if core not in allowed]:
        raise ConfigError(f"cannot run on processor {wrong[0]}; this process may use {shown}")
    if len(set(config.cores)) != len(config.cores):
        raise ConfigError(f"two loops cannot share a processor: cores {','.join(map(str, config.cores))}")
    return list(config.cores)


def free_huge_bytes(root: Path = Path("/")) -> int:
    """Memory in huge pages of any size that nobody holds."""
    free = 0
    for folder in (root / "sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        page_bytes = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) << 10
        free += page_bytes * int((folder / "free_hugepages").read_text())
    return free


def uses_huge_pages(config: DpdkConfig, root: Path = Path("/")) -> bool:
    """Whether memory comes out of huge pages. EalError: they are asked for, and there are too few."""
    if config.memory == "none":
        return False
    free = free_huge_bytes(root)
    if free >= config.memory_mb * _MIB:
        return True
    if config.memory == "huge":
        raise EalError(
            f"{free // _MIB} MiB of huge pages are free and memory_mb is {config.memory_mb}; run: "
            f"echo {-(-config.memory_mb // 2)} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, "
            "or use --memory none"
        )
    return False


def arguments(config: DpdkConfig, device: Device, core: int, *, huge: bool) -> list[str]:
    """For EAL: nothing of it is left on the host, and no other process is let in."""
    given = ["tickpath", "--lcores", f"0@{core}", "--file-prefix", f"tickpath-{os.getpid()}", "--no-telemetry"]
    given += ["--in-memory"] if huge else ["--no-huge"]
    given += ["-m", str(config.memory_mb)]
    if config.memory_channels:
        given += ["-n", str(config.memory_channels)]
    given += ["-a", device.arguments] if device.pci else ["--no-pci", "--vdev", device.arguments]
    return given + list(config.eal)


# What EAL or a driver says -> what helps.
_REMEDIES = (
    ("Cannot get hugepage information", "no huge pages can be had: use --memory none"),
    ("Not enough memory available", "raise --memory-mb, or free huge pages"),
    ("unrecognized option", "see --eal"),
    ("failed to parse device", "see --device"),
    ("Cannot find device", "is its driver installed? Debian: librte-net-NAME23"),
    ("Permission denied", "run as root"),
    ("Operation not permitted", "run as root"),
)


def explained(log: str, fallback: str) -> str:
    """One line out of what EAL said: its last complaint, and a remedy where one is known."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if not any(word in line for word in ("Detected", "Selected", "Probing", "No free"))]
    line = told[-1].removeprefix("EAL: ") if told else fallback
    remedy = next((remedy for said, remedy in _REMEDIES if said in log), "")
    return f"{line}; {remedy}" if remedy else line


def memory(config: DpdkConfig, *, huge: bool) -> str:
    """What the port's buffers lie in, for people."""
    return f"{config.memory_mb} MiB {'of huge pages' if huge else 'without huge pages'}"


def start(config: DpdkConfig, device: Device, core: int) -> bool:
    """Start EAL in this process; whether with huge pages. EalError; NotHereError: no DPDK; PermissionMissingError."""
    native = library()
    huge = uses_huge_pages(config)
    try:
        native.start(arguments(config, device, core, huge=huge))
    except OSError as error:
        reason = explained(native.log_text(), str(error.strerror))
        if os.geteuid() != 0:
            raise PermissionMissingError(f"DPDK does not start: {reason}; run as root") from None
        raise EalError(f"DPDK does not start: {reason}") from None
    finally:
        # EAL leaves its folder there for other processes, of which we have none; what it has mapped stays.
        shutil.rmtree(f"/var/run/dpdk/tickpath-{os.getpid()}", ignore_errors=True)
    return huge


def library() -> ModuleType:
    """The native part; NotHereError where this installation has none."""
    try:
        from tickpath.dpdk_capture import _dpdk  # noqa: PLC0415 - it is not there everywhere
    except ImportError as error:
        raise NotHereError(
            f"built without DPDK ({error}); on Debian: apt-get install libdpdk-dev, then build again; with docker "
            "compose: -f compose.yaml -f compose.dpdk.yaml"
        ) from None
    return _dpdk
