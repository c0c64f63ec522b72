# SPDX-License-Identifier: Apache-2.0
"""Hardware stamping switched on for as long as somebody needs it, and then set back, also after a crash.

One file per interface says what was set before, and what by us. Every process that needs the stamping holds a shared
lock on it; the last one sets back. A file that nobody holds is a crash's: whoever comes next takes it over, and
`set_back_orphans` at the start of a process that needs no stamping sets back what it says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec
import structlog

from tickpath.errors import NotHereError, PermissionMissingError, TickpathError
from tickpath.hardware import (
    FILTER_ALL,
    TX_ON,
    Setting,
    configure,
    links,
    offer,
    refused,
    setting,
)

_SUFFIX = ".hwstamps"
_GUARD = "guard" + _SUFFIX


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. before: None where the driver could not say what was set; then it is set to nothing."""

    ifindex: int
    before: Setting | None
    ours: Setting


def _namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _path(directory: Path, interface: str) -> Path:
    return directory / f"{_namespace()}-{interface}{_SUFFIX}"


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o660)
    except PermissionError:
        raise PermissionMissingError(
            f"{path} belongs to another user: who switches hardware stamps must be the same, or root"
        ) from None


@contextlib.contextmanager
def _guard(directory: Path) -> Iterator[None]:
    """One process at a time looks at the files, changes settings and locks."""
    directory.mkdir(parents=True, exist_ok=True)
    fd = _open(directory / _GUARD, os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> _Kept | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=_Kept)
    except msgspec.MsgspecError:
        return None  # written in part, before anything was set


def _write(fd: int, kept: _Kept) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, msgspec.json.encode(kept), 0)


def _index(interface: str) -> int | None:
    return next((link.index for link in links() if link.name == interface), None)


def _set_back(interface: str, kept: _Kept) -> bool:
    """To what was there before, unless somebody else has changed it since, or the interface is another one.

    False: that failed, and is still to be done.
    """
    log = structlog.get_logger().bind(interface=interface)
    try:
        if _index(interface) != kept.ifindex or kept.before == kept.ours:
            return True
        now = setting(interface)
        if now is not None and now != kept.ours:
            log.warning("hardware_stamps_left", reason="somebody else has set them since")
            return True
        configure(interface, kept.before or Setting())
    except OSError as error:
        log.warning("hardware_stamps_left", reason=refused(error, interface))
        return error.errno == errno.ENODEV
    log.info("hardware_stamps_set_back", to=str(kept.before or Setting()))
    return True


class StampingLease:
    """One process's need for a NIC's stamps, from acquire() to close().

    setting: what is in effect. It is only what the NIC was told: whether stamps come, each packet says.
    """

    def __init__(self, path: Path, interface: str, fd: int, in_effect: Setting) -> None:
        self._path = path
        self._fd = fd
        self.interface = interface
        self.setting = in_effect

    def close(self) -> None:
        """Give it up; the last one sets back what was before. Twice is harmless."""
        if self._fd < 0:
            return
        with _guard(self._path.parent):
            if _alone(self._fd):
                kept = _read(self._fd)
                if kept is None or _set_back(self.interface, kept):
                    self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> StampingLease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def acquire(
    interface: str, directory: Path, *, rx: bool = True, tx: bool = False, allow_link_reset: bool = False
) -> StampingLease:
    """Have a physical interface stamp every received frame (rx), and sent ones of which it is asked (tx).

    What it stamps already for others stays. `directory`: where processes of this host agree, the ring directory.
    NotHereError: it does not offer that, or only by resetting the link; PermissionMissingError: CAP_NET_ADMIN.
    """
    try:
        has = offer(interface)
        index = _index(interface)
    except OSError as error:
        raise NotHereError(refused(error, interface)) from None
    if index is None or (rx and not has.rx) or (tx and not has.tx):
        raise NotHereError(f"{interface} ({has.driver or 'no driver'}) does not offer hardware stamps of every frame")
    with _guard(directory):
        path = _path(directory, interface)
        fd = _open(path, os.O_CREAT)
        try:
            # A file of an interface that is gone speaks of another NIC.
            kept = _read(fd)
            kept = kept if kept and kept.ifindex == index else None
            in_effect = _have(interface, index, fd, kept, rx=rx, tx=tx, reset=allow_link_reset or not has.resets_link)
            fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            if _alone(fd) and kept is None:
                path.unlink()
            os.close(fd)
            raise
    return StampingLease(path, interface, fd, in_effect)


def _have(interface: str, index: int, fd: int, kept: _Kept | None, *, rx: bool, tx: bool, reset: bool) -> Setting:
    try:
        now = setting(interface)
        known = now or (kept.ours if kept else Setting())
        wanted = Setting(
            TX_ON if tx and known.tx == 0 else known.tx, FILTER_ALL if rx else known.rx, known.flags if now else 0
        )
        before = kept.before if kept else now
        if now == wanted:
            _write(fd, _Kept(ifindex=index, before=before, ours=wanted))
            return wanted
        if not reset:
            raise NotHereError(
                f"switching hardware stamps on resets the link of {interface}: allow it with --allow-link-reset, or "
                "switch them on beforehand"
            )
        # Said before it is done, so that a crash in between is set back as well.
        _write(fd, _Kept(ifindex=index, before=before, ours=wanted))
        made = configure(interface, wanted)
        _write(fd, _Kept(ifindex=index, before=before, ours=made))
    except OSError as error:
        kind = PermissionMissingError if isinstance(error, PermissionError) else TickpathError
        raise kind(refused(error, interface)) from None
    if rx and made.rx != FILTER_ALL:
        _set_back(interface, _Kept(ifindex=index, before=before, ours=made))
        raise NotHereError(f"{interface} accepts hardware stamps for some frames only (filter {made.rx})")
    return made


def set_back_orphans(directory: Path) -> list[str]:
    """Set back what processes left behind that crashed, in this network namespace; which interfaces."""
    pattern = f"{_namespace()}-*{_SUFFIX}"
    if not any(directory.glob(pattern)):
        return []
    try:
        return _set_back_all(directory, pattern)
    except PermissionMissingError as error:
        structlog.get_logger().warning("hardware_stamps_left", reason=str(error))
        return []


def _set_back_all(directory: Path, pattern: str) -> list[str]:
    done = []
    with _guard(directory):
        for path in sorted(directory.glob(pattern)):
            interface = path.name.removeprefix(f"{_namespace()}-").removesuffix(_SUFFIX)
            fd = _open(path, 0)
            try:
                if not _alone(fd):
                    continue
                kept = _read(fd)
                if kept is None or _set_back(interface, kept):
                    path.unlink()
                    done.append(interface)
            finally:
                os.close(fd)
    return done
