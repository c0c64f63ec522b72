# SPDX-License-Identifier: Apache-2.0
"""One attempt to connect as `tickpath connlat` shows it: a line of its table, or a JSON object."""

from __future__ import annotations

import errno
import ipaddress

import msgspec
import numpy as np

from tickpath.event import ConnectResult

_MAPPED = b"\0" * 10 + b"\xff\xff"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Times in whole nanoseconds. Addresses and ports are null where they were overwritten before they were read."""

    time_ns: int
    """When it ended, CLOCK_MONOTONIC."""
    pid: int
    """Of the process, in the initial pid namespace."""
    comm: str | None
    ip: int
    local_address: str | None
    local_port: int | None
    remote_address: str | None
    remote_port: int | None
    latency_ns: int
    result: str
    error: str | None
    """The socket's error by name, null where it has none."""
    netns: int | None
    """Inode of the network namespace, 0 where the probe cannot know it."""
    cgroup: int
    container: str

    @property
    def failed(self) -> bool:
        """Whether no connection came of it."""
        return self.result != ConnectResult.OPENED.name.lower()


def _address(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed[12:] if packed.startswith(_MAPPED) else packed))


def _printable(raw: bytes) -> str:
    """A task may give itself any name: what would move a terminal's cursor is escaped."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def attempt_of(record: np.void, row: np.void | None, container: str) -> Attempt:
    """A CONNECT record and its row, None where that is another's by now."""
    connect = record["connect"]
    number = int(connect["error"])
    return Attempt(
        time_ns=int(record["time_ns"]),
        pid=int(connect["pid"]),
        comm=None if row is None else _printable(bytes(row["comm"])),
        ip=int(connect["family"]),
        local_address=None if row is None else _address(row["local"].tobytes()),
        local_port=None if row is None else int(row["local_port"]),
        remote_address=None if row is None else _address(row["remote"].tobytes()),
        remote_port=None if row is None else int(row["remote_port"]),
        latency_ns=int(connect["latency_ns"]),
        result=ConnectResult(int(connect["result"])).name.lower(),
        error=errno.errorcode.get(number, str(number)) if number else None,
        netns=None if row is None else int(row["netns"]),
        cgroup=int(connect["cgroup"]),
        container=container,
    )


class Table:
    """Lines under one another. A column that a value does not fit grows, for the lines to come too."""

    _NAMES = ("PID", "COMM", "IP", "SADDR", "LPORT", "DADDR", "DPORT", "LAT(ms)", "RESULT", "CONTAINER")
    _RIGHT = 7  # the latency's column

    def __init__(self) -> None:
        self._widths = [7, 15, 2, 15, 5, 15, 5, 9, 11, 0]

    def header(self) -> str:
        """The names of the columns."""
        return self._line(self._NAMES)

    def line(self, attempt: Attempt) -> str:
        """One attempt; '?' for what is not known."""
        cells = (
            attempt.pid,
            attempt.comm,
            attempt.ip,
            attempt.local_address,
            attempt.local_port,
            attempt.remote_address,
            attempt.remote_port,
            f"{attempt.latency_ns / 1e6:.3f}",
            attempt.result,
            attempt.container,
        )
        return self._line(["?" if cell is None else str(cell) for cell in cells])

    def _line(self, cells: tuple[str, ...] | list[str]) -> str:
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        padded = [
            cell.rjust(width) if column == self._RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, self._widths, strict=True))
        ]
        return " ".join(padded).rstrip()
