# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe kernel` as a process: stops by word, leaves nothing attached however it ends, says what it lacks."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.tracing import PATIENCE_S, Server, assert_covers_once, programs_of, traced
from tickpath.event import Counter, Kind
from tickpath.probes.kernel.programs import TYPED
from wire.capturing import Reader, wait_until

COMMAND = [sys.executable, "-m", "tickpath", "probe", "kernel"]


class Probe:
    """A probe process; its ring appears in `directory`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.log = directory / "log"
        self.ring = directory / "kernel.ring"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments, "--directory", str(directory), "--log-format", "logfmt"], stderr=log
            )

    def ready(self) -> None:
        wait_until(lambda: "event=ready" in self.log.read_text(), PATIENCE_S, f"event=ready ({self.log.read_text()})")

    def programs(self) -> set[int]:
        """The kernel's ids of the BPF programs that the process holds."""
        found = set()
        for entry in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            found |= {int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", entry.read_text(), re.MULTILINE)}
        return found


def _loaded(program: int) -> bool:
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    fd: int = libbpf.bpf_prog_get_fd_by_id(program)
    if fd >= 0:
        os.close(fd)
        return True
    assert ctypes.get_errno() == errno.ENOENT
    return False


@pytest.fixture
def probe_of(tmp_path: Path) -> Iterator[list[Probe]]:
    started: list[Probe] = []
    yield started
    for probe in started:
        if probe.process.poll() is None:
            probe.process.kill()
            probe.process.wait()


@traced
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_attached_however_it_ends(tmp_path: Path, probe_of: list[Probe], number: signal.Signals) -> None:
    probe = Probe(tmp_path, "--port", "18099")
    probe_of.append(probe)
    probe.ready()
    programs = probe.programs()
    modes = re.findall(r" (readable|copied|state|asked)=(\w+)", probe.log.read_text().partition("event=ready")[2])
    assert len(modes) == 4
    assert len(programs) == sum(programs_of(hook, mode) for hook, mode in modes)
    assert all(map(_loaded, programs))
    probe.process.send_signal(number)
    assert probe.process.wait(PATIENCE_S) == (-9 if number == signal.SIGKILL else 0)
    wait_until(lambda: not any(map(_loaded, programs)), PATIENCE_S, "the programs' end")
    if number != signal.SIGKILL:
        assert "event=stopped" in probe.log.read_text()


@traced
def test_a_successor_goes_on_where_a_killed_probe_was(tmp_path: Path, probe_of: list[Probe]) -> None:
    with Server() as server:
        peers = server.connect()
        for n in range(2):
            probe = Probe(tmp_path, "--remote", f"127.0.0.1:{server.port}")
            probe_of.append(probe)
            probe.ready()
            reader = Reader(probe.ring)
            for _ in range(3):
                peers.send(100)
                peers.read(100)
            wait_until(lambda reader=reader: len(reader.of(Kind.COPIED)) == 3)
            assert reader.of(Kind.READABLE)["interval"]["to"].tolist()[-1] == 300 * (n + 1)
            probe.process.kill()
            probe.process.wait()
            reader.ring.close()


@traced
@pytest.mark.parametrize("asked", [True, False])
def test_the_cost_of_its_programs_is_counted_where_asked(tmp_path: Path, probe_of: list[Probe], asked: bool) -> None:
    with Server() as server:
        peers = server.connect()
        probe = Probe(tmp_path, "--remote", f"127.0.0.1:{server.port}", *(["--cost"] if asked else []))
        probe_of.append(probe)
        probe.ready()
        reader = Reader(probe.ring)
        for _ in range(20):
            peers.send(100)
            peers.read(100)
        wait_until(lambda: len(reader.of(Kind.COPIED)) == 20)
        probe.process.send_signal(signal.SIGTERM)
        assert probe.process.wait(PATIENCE_S) == 0
        for kind, told, runs, cost in (
            (Kind.READABLE, Counter.TOLD_READABLE, Counter.RUNS_READABLE, Counter.COST_READABLE_NS),
            (Kind.COPIED, Counter.TOLD_COPIED, Counter.RUNS_COPIED, Counter.COST_COPIED_NS),
        ):
            if asked:
                intervals = reader.of(kind)["interval"]
                assert len(intervals) >= 19, "the first may have been before the probe's"
                assert reader.count(told) == len(intervals), [(one["from"], one["to"]) for one in intervals]
                assert reader.count(runs) >= 20
                assert reader.count(cost) > reader.count(runs), "no run takes less than a nanosecond"
            else:
                assert reader.count(told) == reader.count(runs) == reader.count(cost) == 0
        reader.ring.close()


@traced
def test_what_happened_before_a_stop_is_recorded(tmp_path: Path, probe_of: list[Probe]) -> None:
    with Server() as server:
        probe = Probe(tmp_path, "--port", str(server.port), "--interval-ms", "1000")
        probe_of.append(probe)
        probe.ready()
        reader = Reader(probe.ring)
        peers = server.connect()
        peers.send(100)
        peers.read(100)
        probe.process.terminate()
        assert probe.process.wait(PATIENCE_S) == 0
        assert_covers_once(reader.of(Kind.COPIED), 100)
        assert len(reader.of(Kind.BYE)) == 1
        reader.ring.close()


@traced
def test_a_ring_cut_short_ends_the_probe_with_one_line(tmp_path: Path, probe_of: list[Probe]) -> None:
    with Server() as server:
        probe = Probe(tmp_path, "--port", str(server.port))
        probe_of.append(probe)
        probe.ready()
        os.truncate(probe.ring, 4096)
        server.connect()
        assert probe.process.wait(PATIENCE_S) == 1
    assert "cut short" in probe.log.read_text().splitlines()[-1]


def _refused(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@traced
def test_without_permission_one_line_says_what_is_needed() -> None:
    done = _refused("--port", "1", before=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
    assert done.returncode not in (0, 2)
    assert len(done.stderr.splitlines()) == 1
    assert "CAP_BPF" in done.stderr
    assert "sudo" in done.stderr


@pytest.mark.skipif(not TYPED.exists(), reason="this installation was built without the kernel probe")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--buffer-bytes", "5000"), "power of two"),
        (("--cgroup", "/proc"), "version 2 cgroup"),
        (("--pid", "4194304"), "no process 4194304"),
        (("--pid", ",".join(map(str, range(1, 18)))), "at most 16"),
        (("--rung", "uprobe"), "rung"),
        (("--btf", "/proc/cpuinfo"), "no BTF"),
        (("--btf", "/nowhere"), "cannot be read"),
        (("--port", ",".join(map(str, range(1, 18)))), "at most 16"),
        (("--name", "../x"), "name"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = _refused(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
