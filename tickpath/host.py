# SPDX-License-Identifier: Apache-2.0
"""What the host itself offers to every part: clocks, a place for rings, permissions, kernel, CPUs. Changes nothing."""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tickpath import clock
from tickpath.capability import Capability
from tickpath.config import COMMON, CommonConfig, load
from tickpath.errors import ConfigError

# linux/capability.h; what needs which is the parts' to say, here is only what this process has.
PERMISSIONS = {
    "CAP_NET_RAW": (13, "capture and ping"),
    "CAP_NET_ADMIN": (12, "hardware stamps, network programs"),
    "CAP_BPF": (39, "the kernel probe"),
    "CAP_PERFMON": (38, "the kernel probe's tracing programs"),
}
_INITIAL_USER_NAMESPACE = "0 0 4294967295"
# One ring of the default size with its table; below the room for a few, a second feed would not start.
_LITTLE_ROOM_BYTES = 64 << 20


def capabilities(root: Path = Path("/")) -> list[Capability]:
    """The provider that is registered for doctor. `root` is where proc, sys and the like are looked for."""
    status = clock.clock_status()
    found = [
        *utc(status),
        tai(status),
        *monotonic(root),
        tsc(root),
        *rings(root),
        *permissions(root),
        kernel(),
        btf(root),
        governor(root),
        isolated(root),
    ]
    # What is there needs no remedy.
    return [replace(capability, remedy=None) if capability.available else capability for capability in found]


def utc(status: clock.ClockStatus) -> list[Capability]:
    """How well the host knows UTC, by the kernel's own word."""
    bound = (
        ""
        if status.max_error_ns is None
        else f"within {_duration(status.max_error_ns)} of UTC, by the kernel's own bound"
    )
    return [
        Capability(
            "clock.utc",
            "synchronised (adjtimex)",
            0,
            status.synchronised,
            f"{bound}; frequency {status.frequency / 65536:+.3f} ppm" if bound else "the kernel says: not synchronised",
            "run chrony (or ptp4l with phc2sys): until then bn_to_nic and total have no bound",
        ),
        Capability(
            "clock.utc", "free-running", 1, not status.synchronised, "the error against UTC is unknown, and shown so"
        ),
    ]


def tai(status: clock.ClockStatus) -> Capability:
    """Whether TAI stamps (PHCs usually run TAI) can be told from UTC."""
    known = status.tai_offset_s is not None
    return Capability(
        "clock.tai",
        "offset in the kernel",
        0,
        known,
        f"TAI - UTC = {status.tai_offset_s} s" if known else "nobody has set it: the kernel's TAI equals UTC",
        "chrony: `leapsectz right/UTC`; matters only for stamps of a NIC whose clock runs TAI",
    )


def monotonic(root: Path) -> list[Capability]:
    """What CLOCK_MONOTONIC is read from, and at what price."""
    folder = root / "sys/devices/system/clocksource/clocksource0"
    current = _text(folder / "current_clocksource") or "unknown"
    others = (_text(folder / "available_clocksource") or "").split()
    cost_ns = _clock_cost_ns()
    # Above this it is a system call or an emulated device, not a read in user space.
    cheap = cost_ns < 500
    return [
        Capability(
            "clock.monotonic",
            "read in user space",
            0,
            cheap,
            f"clocksource {current}; a call from Python takes {cost_ns} ns",
            "boot with clocksource=tsc" if "tsc" in others and current != "tsc" else "use a host with an invariant TSC",
        ),
        Capability(
            "clock.monotonic", "system call", 1, not cheap, f"clocksource {current}: every stamp costs the application"
        ),
    ]


def tsc(root: Path) -> Capability:
    """Whether the cycle counter can serve as a clock."""
    if platform.machine() not in ("x86_64", "i686"):
        return Capability(
            "clock.tsc", "invariant", 0, False, f"{platform.machine()} has no TSC; nothing here needs one"
        )
    flags = next(
        (line.split() for line in (_text(root / "proc/cpuinfo") or "").splitlines() if line.startswith("flags")), []
    )
    missing = [flag for flag in ("constant_tsc", "nonstop_tsc") if flag not in flags]
    return Capability(
        "clock.tsc",
        "invariant",
        0,
        not missing,
        f"the CPU does not say {' and '.join(missing)}" if missing else "constant_tsc and nonstop_tsc",
        "in a virtual machine: let the hypervisor show the host's TSC",
    )


def rings(root: Path) -> list[Capability]:
    """Where the rings would lie."""
    try:
        directory = load(CommonConfig, COMMON).directory
    except ConfigError as error:
        return [Capability("host.rings", "directory", 0, False, str(error), "correct the configuration")]
    # The first process to come makes what is missing.
    nearest = next(folder for folder in (directory.absolute(), *directory.absolute().parents) if _exists(folder))
    kind = _file_system(root, nearest)
    writable = os.access(nearest, os.W_OK | os.X_OK)
    found = f"{directory}: {kind}, {_size(_free_bytes(nearest))} free, "
    found += ("writable" if writable else "not writable") + (
        "" if nearest == directory.absolute() else ", not made yet"
    )
    remedy = f"make {directory} writable for this user, or set TICKPATH_DIRECTORY"
    if writable:
        remedy = "set TICKPATH_DIRECTORY to a directory on tmpfs, e.g. below /dev/shm"
    enough = _free_bytes(nearest) >= _LITTLE_ROOM_BYTES
    if not enough:
        remedy = f"make room: {_size(_LITTLE_ROOM_BYTES)} hold some ten rings (docker: shm_size, or a tmpfs volume)"
    return [
        Capability("host.rings", "tmpfs", 0, writable and enough and kind == "tmpfs", found, remedy),
        Capability("host.rings", "other file system", 1, writable and enough and kind != "tmpfs", found, remedy),
    ]


def permissions(root: Path) -> list[Capability]:
    """The capabilities (man 7 capabilities) that are effective in this process."""
    status = dict(pairwise((_text(root / "proc/self/status") or "").split()))
    effective = int(status.get("CapEff:", "0"), 16)
    nested = " ".join((_text(root / "proc/self/uid_map") or _INITIAL_USER_NAMESPACE).split()) != _INITIAL_USER_NAMESPACE
    return [
        Capability(
            f"host.{name.lower()}",
            "effective",
            0,
            bool(effective >> bit & 1),
            f"for {use}" + ("; inside a user namespace: the host may still refuse" if nested else ""),
            f"run as root, or with {name} (systemd AmbientCapabilities, compose cap_add, or setpriv --ambient-caps)",
        )
        for name, (bit, use) in PERMISSIONS.items()
    ]


def kernel() -> Capability:
    """The kernel that runs."""
    return Capability("host.kernel", platform.system(), 0, True, f"{platform.release()} {platform.machine()}")


def btf(root: Path) -> Capability:
    """The kernel's type information, from which a probe learns its structures."""
    path = root / "sys/kernel/btf/vmlinux"
    there = _exists(path)
    return Capability(
        "host.btf",
        "vmlinux",
        0,
        there,
        f"{path} {'is there' if there else 'is missing'}",
        "a kernel with CONFIG_DEBUG_INFO_BTF",
    )


def governor(root: Path) -> Capability:
    """Whether the cores run at one speed."""
    names = Counter(
        name
        for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
        if (name := _text(path))
    )
    if not names:
        found = "not readable: a virtual machine, or the firmware decides"
        return Capability("host.cpu_speed", "performance governor", 0, False, found)
    return Capability(
        "host.cpu_speed",
        "performance governor",
        0,
        set(names) == {"performance"},
        ", ".join(f"{name} on {count}" for name, count in sorted(names.items())),
        "cpupower frequency-set -g performance",
    )


def isolated(root: Path) -> Capability:
    """Whether there are cores that the scheduler leaves alone."""
    cores = _text(root / "sys/devices/system/cpu/isolated")
    return Capability(
        "host.cpu_isolated",
        "isolated cores",
        0,
        bool(cores),
        f"cores {cores}" if cores else f"none of {os.cpu_count()}",
        "boot with isolcpus= and nohz_full= for the application's core",
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _exists(path: Path) -> bool:
    return os.access(path, os.F_OK)


def _clock_cost_ns() -> int:
    """The least of many: what a reading costs while nothing interferes."""
    stamps = [clock.monotonic_ns() for _ in range(200)]
    return min(later - earlier for earlier, later in pairwise(stamps))


def _file_system(root: Path, directory: Path) -> str:
    """The type of the mount that holds the directory, by /proc/self/mountinfo (man 5 proc)."""
    best, kind = -1, "unknown file system"
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        # Spaces in a mount point are written \040.
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        # Of two mounts on one point the later one is on top.
        if directory.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def _free_bytes(directory: Path) -> int:
    seen = os.statvfs(directory)
    return seen.f_bavail * seen.f_frsize


def _size(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / (1 << 20):.0f} MiB"


def _duration(ns: int) -> str:
    for unit, length_ns in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= length_ns:
            return f"{ns / length_ns:.3g} {unit}"
    return f"{ns} ns"
