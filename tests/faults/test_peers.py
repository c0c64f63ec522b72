# SPDX-License-Identifier: Apache-2.0
"""Peers that send nothing, nonsense, too much, or cut the line: every message they sent is recorded or counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from plant import STREAM, Auditor, wait_for
from tickpath.errors import RingError
from tickpath.event import Counter
from tickpath.lab.simulator.config import AtEnd, Faults, Garbage, SimulatorConfig
from tickpath.lab.simulator.server import Simulator
from tickpath.ring import RingReader

MiB = 1 << 20
Counts = Mapping[Counter, int]


def _feed(stack: ExitStack, url: str, directory: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "tickpath", "feed", f"{url}/market/ws/{STREAM}", "--directory", directory]
    command += ["--name", "x", "--publish", "none", "--backoff-first", "0.1", "--backoff-longest", "0.2", *flags]
    process = subprocess.Popen(command, stderr=(directory.parent / f"{directory.name}.log").open("wb"))
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most that it ever held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


CASES: list[tuple[str, Faults, tuple[str, ...], Callable[[Counts], bool]]] = [
    ("silent", Faults(silent=True), ("--idle-timeout", "1.5"), lambda c: c[Counter.CONNECTS] >= 2),
    (
        "json",
        Faults(garbage_after=5, garbage=Garbage.JSON),
        (),
        lambda c: c[Counter.PARSE_FAILED] >= 1 and c[Counter.MESSAGES] > 50,
    ),
    ("frame", Faults(garbage_after=5, garbage=Garbage.FRAME), (), lambda c: c[Counter.PROTOCOL_ERRORS] >= 2),
    ("reset", Faults(abort_after=20), (), lambda c: c[Counter.CONNECTS] >= 3),
    ("huge", Faults(huge_bytes=100_000_000), ("--max-message-bytes", "100000000"), lambda c: c[Counter.MESSAGES] > 5),
    ("beyond", Faults(huge_bytes=100_000_000), (), lambda c: c[Counter.PROTOCOL_ERRORS] >= 2),
]


@pytest.mark.parametrize(("name", "faults", "flags", "enough"), CASES, ids=[case[0] for case in CASES])
def test_what_a_bad_peer_sent_is_recorded_or_counted(
    tmp_path: Path, name: str, faults: Faults, flags: tuple[str, ...], enough: Callable[[Counts], bool]
) -> None:
    directory = tmp_path / "rings"
    directory.mkdir()
    with ExitStack() as stack:
        config = SimulatorConfig(port=0, faults=faults, messages=200, at_end=AtEnd.HOLD, linger_ns=40_000_000_000)
        simulator = stack.enter_context(Simulator(config))
        auditor = Auditor(directory / "feed-x.ring")
        stack.callback(auditor.close)
        feed = _feed(stack, simulator.url, directory, *flags)
        wait_for(lambda: _counters(directory) is not None, "a ring")
        wait_for(lambda: enough(_counters(directory) or {}), f"{name}'s effect", 60)
        resident_bytes = _resident_bytes(feed)
        simulator.stop()
        feed.terminate()
        assert feed.wait(60) == 0
        auditor.close()
        counters = _counters(directory)
        assert counters is not None
        lost = _balance(simulator, auditor)
        told = {counter.name: count for counter, count in counters.items() if count}
        print(f"{name}: {told}, never received {lost}, resident {resident_bytes >> 20} MiB")
        assert counters[Counter.MESSAGES] == auditor.messages
        assert lost == 0 or counters[Counter.PROTOCOL_ERRORS] > 0
        assert "Traceback" not in (tmp_path / "rings.log").read_text()
        # A message is held as received and as text while it is parsed; a refused one is not held at all.
        largest = faults.huge_bytes if name == "huge" else 0
        assert resident_bytes < 200 * MiB + 5 * largest


def _counters(directory: Path) -> dict[Counter, int] | None:
    try:
        with RingReader(directory / "feed-x.ring") as reader:
            return reader.counters()
    except RingError:
        return None


def _balance(simulator: Simulator, auditor: Auditor) -> int:
    """Messages sent and never received; asserts that none was received that was not sent."""
    received = {one.port: len(one.ordinals) for one in auditor.by_row.values()}
    never = 0
    for connection in simulator.connections:
        got = received.pop(connection.peer_port, 0)
        assert got <= connection.messages
        never += connection.messages - got
    assert not any(received.values())
    return never
