# SPDX-License-Identifier: Apache-2.0
"""What doctor says of clocks: who disciplines them, whether that works, which time a NIC keeps. All simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickpath import discipline
from tickpath.clock import ClockStatus, Reading

SYNCHRONISED = ClockStatus(True, 100_000, 0, 37)
FREE = ClockStatus(False, None, 0, None)
UTC_NS = 1_795_000_000_000_000_000


def proc(root: Path, *names: str) -> Path:
    for pid, name in enumerate(names, 100):
        folder = root / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cmdline").write_bytes(f"/usr/sbin/{name}\0-s\0/dev/ptp0\0".encode())
    return root


@pytest.mark.parametrize(
    ("status", "names", "available", "words"),
    [
        (SYNCHRONISED, ["bash", "chronyd"], True, "chronyd (pid 101): the kernel says synchronised"),
        (SYNCHRONISED, [], True, "outside of this container"),
        (FREE, ["phc2sys"], False, "phc2sys (pid 100) runs, and the kernel says: not synchronised"),
        (FREE, ["bash"], False, "nobody here"),
    ],
)
def test_who_disciplines_the_host_and_whether_it_works(
    tmp_path: Path, status: ClockStatus, names: list[str], available: bool, words: str
) -> None:
    found = discipline.host(status, discipline.services(proc(tmp_path, *names)))
    assert found.available is available
    assert words in found.detail
    assert (found.remedy is None) is available


@pytest.mark.parametrize(
    ("ahead_ns", "status", "words"),
    [
        (250, SYNCHRONISED, "keeps UTC, +250 ns within 60 ns"),
        (37 * 10**9 - 250, SYNCHRONISED, "keeps TAI (37 s ahead of UTC), -250 ns within 60 ns"),
        (37 * 10**9, FREE, "the kernel's TAI offset is 0, so CLOCK_TAI is UTC here"),
        (-UTC_NS, SYNCHRONISED, "keeps a time of its own"),
    ],
)
def test_which_time_a_nics_clock_keeps(ahead_ns: int, status: ClockStatus, words: str) -> None:
    device = Reading(UTC_NS + ahead_ns + 1000, 1000 - 50, 1000 + 50)
    host = Reading(UTC_NS + 2000, 2000 - 10, 2000 + 10)
    assert words in discipline.told(device, host, status)


def test_a_clock_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/ptp/ptp61"
    folder.mkdir(parents=True)
    (folder / "clock_name").write_text("some nic\n")
    (found,) = discipline.nics(tmp_path, FREE, [])
    assert (found.subject, found.source, found.available) == ("clock.phc61", "some nic", False)
    assert "/dev/ptp61 is not here" in found.detail
