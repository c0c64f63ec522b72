# SPDX-License-Identifier: Apache-2.0
"""What `doctor` says of clocks that others discipline: NICs' own, and who sets them and the host's. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tickpath import clock, phc, servo
from tickpath.capability import Capability
from tickpath.phc import Phc, Scale, kept

# Who disciplines what, by the name of the process.
HOST_SERVICES = ("chronyd", "ntpd", "systemd-timesyn", "phc2sys", "openntpd")
PHC_SERVICES = ("ptp4l", "phc2sys", "ts2phc", "chronyd")


@dataclass(frozen=True, slots=True)
class Service:
    """A process that disciplines clocks."""

    name: str
    pid: int
    command: str


def services(root: Path = Path("/")) -> list[Service]:
    """Those that run here. A container sees its own alone."""
    found = []
    for folder in sorted((root / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            name = (folder / "comm").read_text().strip()
            if name in HOST_SERVICES + PHC_SERVICES:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                found.append(Service(name, int(folder.name), command))
        except OSError:
            continue  # it ended
    return found


def capabilities(root: Path = Path("/")) -> list[Capability]:
    """The provider that is registered for doctor."""
    status = clock.clock_status()
    running = services(root)
    return [host(status, running), *servos(running), *nics(root, status, running)]


def host(status: clock.ClockStatus, running: list[Service]) -> Capability:
    """Who disciplines the host's clock, and whether the kernel believes it."""
    mine = [service for service in running if service.name in HOST_SERVICES]
    who = ", ".join(f"{service.name} (pid {service.pid})" for service in mine)
    if status.synchronised:
        found = f"{who or 'somebody outside of this container'}: the kernel says synchronised"
    elif mine:
        found = f"{who} runs, and the kernel says: not synchronised"
    else:
        found = "nobody here"
    remedy = "look at `chronyc tracking` or the log of phc2sys" if mine else "run chrony, or ptp4l with phc2sys"
    return Capability(
        "clock.host_discipline",
        mine[0].name if mine else "none",
        0,
        status.synchronised,
        found,
        None if status.synchronised else remedy,
    )


def servos(running: list[Service]) -> list[Capability]:
    """Those that can be asked, each whether it is in lock: the kernel alone may go on believing for hours."""
    return [_servo(service) for service in running if service.name in ("chronyd", "ptp4l")]


def _servo(service: Service) -> Capability:
    chrony = service.name == "chronyd"
    said = servo.chrony() if chrony else servo.ptp(service.command)
    who = f"{service.name} (pid {service.pid})"
    log = "look at `chronyc sources`" if chrony else "look at its log, and whether a time transmitter is on the link"
    tool = "chronyc (Debian package chrony)" if chrony else "pmc (Debian package linuxptp)"
    if said.locked is None:
        found, remedy = f"runs; whether it is in lock is not known: {said.detail}", f"have {tool} here, or run as root"
    elif said.locked:
        found, remedy = said.detail, None
    else:
        found, remedy = f"runs and is not in lock: {said.detail}", log
    return Capability(f"clock.{service.name}", who, 0, said.locked is True, found, remedy)


def nics(root: Path, status: clock.ClockStatus, running: list[Service]) -> list[Capability]:
    """Each PTP clock: how it can be read, which time it keeps and how far off, within what bound, and who sets it."""
    folders = (root / "sys/class/ptp").glob("ptp[0-9]*")
    indices = sorted(int(folder.name.removeprefix("ptp")) for folder in folders)
    return [_nic(root, index, status, running) for index in indices]


def _nic(root: Path, index: int, status: clock.ClockStatus, running: list[Service]) -> Capability:
    subject = f"clock.phc{index}"
    try:
        name = (root / f"sys/class/ptp/ptp{index}/clock_name").read_text().strip()
    except OSError:
        name = "unnamed"
    if reason := phc.readable(index):
        return Capability(subject, name, 0, False, reason, "let this user read it (a udev rule), or run as root")
    try:
        with Phc(index) as device:
            reading, host_clock = device.read(), clock.read_realtime()
            way = device.way
    except OSError as error:
        return Capability(subject, name, 0, False, f"it cannot be read: {error.strerror}")
    return Capability(
        subject, name, 0, True, f"read {way}; {told(reading, host_clock, status)}; {_who(index, running)}"
    )


def told(reading: clock.Reading, realtime: clock.Reading, status: clock.ClockStatus) -> str:
    """Which time a clock keeps and how far off it is, within what bound, by one reading of it and one of the host's."""
    middle_ns, half_ns = _middle(reading)
    host_ns, host_half_ns = _middle(realtime)
    offset = kept(reading.time_ns - middle_ns - (realtime.time_ns - host_ns), status.tai_offset_s)
    bound = f"{offset.offset_ns:+d} ns within {half_ns + host_half_ns} ns"
    if offset.scale is Scale.UTC:
        return f"keeps UTC, {bound} of the host's"
    if offset.scale is Scale.FREE:
        return f"keeps a time of its own, {offset.offset_ns / 1e9:+.3f} s from the host's UTC: nothing sets it"
    said = f"keeps TAI ({offset.tai_s} s ahead of UTC), {bound} of the host's UTC and that"
    if status.tai_offset_s is None:
        said += (
            "; the kernel's TAI offset is 0, so CLOCK_TAI is UTC here (chrony: leapsectz right/UTC; not needed here)"
        )
    return said


def _middle(reading: clock.Reading) -> tuple[int, int]:
    half_ns = (reading.after_ns - reading.before_ns + 1) // 2
    return reading.before_ns + half_ns, half_ns


def _who(index: int, running: list[Service]) -> str:
    named = [service for service in running if service.name in PHC_SERVICES and f"/dev/ptp{index}" in service.command]
    others = [service for service in running if service.name in ("ptp4l", "ts2phc")]
    who = ", ".join(f"{service.name} (pid {service.pid})" for service in dict.fromkeys(named + others))
    return (
        f"disciplined by {who}, if that is its NIC"
        if who and not named
        else f"used by {who}"
        if who
        else "nobody sets it"
    )
