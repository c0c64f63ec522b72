# SPDX-License-Identifier: Apache-2.0
"""`tickpath connlat` as a process: its table, its JSON, its filters, how it ends and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernel.test_kernel_records import _version_2_cgroup
from kernel.tracing import Server, programs_of, traced
from tickpath.event import RECORD, ROW, ConnectResult, Kind
from tickpath.probes.kernel.attempt import Table, attempt_of
from tickpath.selector import packed
from wire.capturing import wait_until

COMMAND = [sys.executable, "-m", "tickpath", "connlat"]
ID = "0123456789abcdef" * 4


class Connlat:
    """The command at work, its output in files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*COMMAND, *arguments, "--log-format", "logfmt"], stdout=out, stderr=err)

    def ready(self) -> None:
        wait_until(lambda: "event=ready" in self.err(), 60, "event=ready")

    def err(self) -> str:
        return self._err.read_text()

    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def attempts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.err()


Start = Callable[..., Connlat]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Connlat] = []

    def begin(*arguments: str) -> Connlat:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Connlat(folder, *arguments))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


def _refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _left() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").glob("tickpath-connlat-*")}


@traced
def test_the_table_has_a_line_per_attempt_and_ctrl_c_ends_it(start: Start) -> None:
    refused = _refused_port()
    with Server() as server, Server("::1") as server6:
        connlat = start("--port", str(server.port), "--port", str(server6.port), "--port", str(refused))
        connlat.ready()
        local = server.connect().near.getsockname()[1]
        server6.connect()
        assert socket.socket().connect_ex(("127.0.0.1", refused)) != 0
        wait_until(lambda: len(connlat.lines()) == 4, what="three attempts")
        connlat.stop()
    header, first, second, third = (line.split() for line in connlat.lines())
    assert header == ["PID", "COMM", "IP", "SADDR", "LPORT", "DADDR", "DPORT", "LAT(ms)", "RESULT", "CONTAINER"]
    comm = Path("/proc/thread-self/comm").read_text().strip()
    assert first[:7] == [str(os.getpid()), comm, "4", "127.0.0.1", str(local), "127.0.0.1", str(server.port)]
    assert 0 < float(first[7]) < 60_000
    assert first[8] == "opened"
    assert (second[2], second[3], second[5]) == ("6", "::1", "::1")
    assert (third[6], third[8]) == (str(refused), "refused")
    assert "3 of 3 attempts shown" in connlat.err()
    assert not _left(), "its ring has no name"


@traced
def test_json_has_whole_nanoseconds_and_the_error_by_name(start: Start) -> None:
    refused = _refused_port()
    connlat = start("--json", "--failed", "--remote", f"127.0.0.1:{refused}")
    connlat.ready()
    before_ns = time.monotonic_ns()
    assert socket.socket().connect_ex(("127.0.0.1", refused)) != 0
    took_ns = time.monotonic_ns() - before_ns
    wait_until(lambda: len(connlat.lines()) == 1, what="the attempt")
    (attempt,) = connlat.attempts()
    assert (attempt["result"], attempt["error"]) == ("refused", "ECONNREFUSED")
    assert 0 < attempt["latency_ns"] <= took_ns
    assert before_ns < attempt["time_ns"] <= before_ns + took_ns
    assert attempt["netns"] == Path("/proc/self/ns/net").stat().st_ino
    assert (attempt["remote_address"], attempt["remote_port"], attempt["ip"]) == ("127.0.0.1", refused, 4)


@traced
def test_only_what_is_asked_for_is_shown(start: Start) -> None:
    refused = _refused_port()
    client = "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
    with Server() as server:
        ports = ("--port", str(server.port), "--port", str(refused), "--json")
        failed, slow, mine = start(*ports, "--failed"), start(*ports, "60000"), start(*ports, "--pid", str(os.getpid()))
        for one in (failed, slow, mine):
            one.ready()
        subprocess.run([sys.executable, "-c", client, str(server.port)], check=True, timeout=30)
        server.connect()
        assert socket.socket().connect_ex(("127.0.0.1", refused)) != 0
        wait_until(lambda: len(failed.lines()) == 1 and len(mine.lines()) == 2, what="those that are asked for")
        for one in (failed, slow, mine):
            one.stop()
    assert [one["result"] for one in failed.attempts()] == ["refused"]
    assert slow.attempts() == []
    assert "0 of 3 attempts shown" in slow.err()
    assert [(one["pid"], one["result"]) for one in mine.attempts()] == [
        (os.getpid(), "opened"),
        (os.getpid(), "refused"),
    ]


@traced
@pytest.mark.skipif(_version_2_cgroup() is None, reason="no version 2 cgroups are mounted here")
def test_a_container_is_told_by_the_cgroup_of_the_task(start: Start) -> None:
    mounted = _version_2_cgroup()
    assert mounted is not None
    folder = mounted / f"docker-{os.getpid():064x}.scope"
    folder.mkdir()
    client = (
        "import pathlib, os, socket, sys\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
    )
    try:
        with Server() as server:
            connlat = start("--json", "--cgroup", str(folder))
            connlat.ready()
            server.connect()
            subprocess.run([sys.executable, "-c", client, str(folder), str(server.port)], check=True, timeout=30)
            wait_until(lambda: len(connlat.lines()) == 1, what="the attempt")
            connlat.stop()
        (attempt,) = connlat.attempts()
        assert attempt["container"] == f"{os.getpid():064x}"[:12]
        assert attempt["cgroup"] == folder.stat().st_ino
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), what="an empty cgroup")
        folder.rmdir()


@traced
def test_a_burst_is_shown_or_counted_as_lost(start: Start) -> None:
    made = 5000
    with Server() as server:
        connlat = start("--json", "--port", str(server.port))
        connlat.ready()
        for _ in range(made):
            with socket.create_connection((server.address, server.port)) as near:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.listening.accept()[0].close()
        connlat.stop()
    shown = len(connlat.lines())
    lost = int(connlat.err().split(" attempts shown, ")[1].split()[0]) if "events lost" in connlat.err() else 0
    assert shown + lost == made
    assert shown > 0


@traced
def test_it_ends_by_itself_and_holds_only_what_it_needs(start: Start) -> None:
    connlat = start("--duration", "0.5")
    connlat.ready()
    fdinfo = Path(f"/proc/{connlat.process.pid}/fdinfo")
    programs = [
        entry for entry in fdinfo.iterdir() if "prog_tag:" in entry.read_text() and "link_type" not in entry.read_text()
    ]
    assert len(programs) == programs_of("state", connlat.err().partition(" mode=")[2].split()[0])
    assert connlat.process.wait(30) == 0
    assert "attempts shown" in connlat.err()


@traced
def test_killed_it_leaves_nothing(start: Start) -> None:
    connlat = start()
    connlat.ready()
    connlat.process.kill()
    connlat.process.wait()
    assert not _left()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "0"], "port '0' is not a number from 1 to 65535"),
        (["--remote", "10.0.0.1"], "is not HOST:PORT"),
        (["--duration", "0"], "is not a number of seconds above 0"),
        (["-1"], "-1"),
        (["--pid", "x"], "is not a process id"),
        (["--cgroup", "/"], "is not the folder of a version 2 cgroup"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: list[str], words: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


def _record(**fields: int) -> np.void:
    record = np.zeros(1, RECORD)
    record["kind"] = Kind.CONNECT
    for name, value in fields.items():
        record["connect"][name] = value
    one: np.void = record[0]
    return one


def test_a_name_cannot_move_the_cursor() -> None:
    row = np.zeros(1, ROW)
    row["comm"] = b"\x1b[2J\xff\n"
    row["local"] = row["remote"] = np.void(packed("10.0.0.1"))
    attempt = attempt_of(_record(pid=7, family=4, result=ConnectResult.ABORTED), row[0], "-")
    line = Table().line(attempt)
    assert line.isprintable()
    assert "\\x1b[2J" in line


def test_what_was_overwritten_is_not_known() -> None:
    attempt = attempt_of(
        _record(pid=7, family=6, result=ConnectResult.TIMED_OUT, error=110, latency_ns=2_500_000), None, "-"
    )
    assert Table().line(attempt).split() == ["7", "?", "6", "?", "?", "?", "?", "2.500", "timed_out", "-"]
    assert attempt.error == "ETIMEDOUT"


def test_a_column_that_has_grown_stays_so() -> None:
    row = np.zeros(1, ROW)
    row["local"] = np.void(packed("fd00:1111:2222:3333:4444:5555:6666:7777"))
    row["remote"] = np.void(packed("10.0.0.1"))
    table, record = Table(), _record(pid=7, family=6)
    long = table.line(attempt_of(record, row[0], "-"))
    row["local"] = np.void(packed("10.0.0.2"))
    short = table.line(attempt_of(record, row[0], "-"))
    assert long.index("10.0.0.1") == short.index("10.0.0.1")
