# SPDX-License-Identifier: Apache-2.0
"""How the programs are attached: what is chosen, what each way adds or lacks, and who gets to know it.

TICKPATH_KERNEL_RUNG=fentry (tp_btf, kprobe) makes all of tests/kernel use that one rung.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import structlog

from kernel.tracing import PATIENCE_S, RUNG, Peers, Server, Tracing, assert_covers_once, cookie_of, spans, traced
from tickpath.errors import TickpathError
from tickpath.event import Counter, Kind
from tickpath.probes.kernel import probe
from tickpath.probes.kernel.capability import capabilities
from tickpath.probes.kernel.processes import check, tcp_sockets
from tickpath.probes.kernel.programs import ForbiddenError, UnavailableError, load
from tickpath.ring import RingReader
from tickpath.selector import Selector
from wire.capturing import wait_until

RUNGS = ("tp_btf", "fentry", "kprobe")
STREAM = ("readable", "copied", "state")


@traced
def test_every_hook_that_the_stream_needs_is_attached_by_one_family(tmp_path: Path) -> None:
    with Tracing(tmp_path, [Selector(1)]) as tracing:
        found = {tracing.modes[hook] for hook in STREAM}
        assert found == {"kprobe"} or found <= {"tp_btf", "fentry"}
        if RUNG != "auto":
            assert found == {RUNG}


@traced
@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_that_is_wanted_is_used_or_refused_in_one_line(rung: str) -> None:
    try:
        tracer = load([Selector(1)], buffer_bytes=4096, rung=rung)
    except UnavailableError as error:
        line = str(error)
        assert "\n" not in line
        assert rung in line
        assert "--rung auto" in line
        # This process may do all that can be allowed: what is refused to it is not a permission to be asked for.
        assert "sudo" not in line
        assert not isinstance(error, ForbiddenError) or error.exit_code == 77
        return
    try:
        assert {tracer.modes[hook] for hook in STREAM} == {rung}
        assert tracer.modes["asked"] in ("none", rung)
    finally:
        tracer.close()


@traced
def test_a_refused_rung_ends_the_command_with_one_line(tmp_path: Path) -> None:
    for rung in RUNGS:
        try:
            load([Selector(1)], buffer_bytes=4096, rung=rung).close()
        except UnavailableError as error:
            command = [
                sys.executable,
                "-m",
                "tickpath",
                "probe",
                "kernel",
                "--rung",
                rung,
                "--directory",
                str(tmp_path),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            assert done.returncode == error.exit_code
            assert len(done.stderr.splitlines()) == 1
            assert rung in done.stderr
            return
    pytest.skip("every rung can be had here")


@traced
def test_types_from_a_file_serve_kprobes_and_wrong_ones_are_named(tmp_path: Path) -> None:
    try:
        load([Selector(1)], buffer_bytes=4096, rung="kprobe").close()
    except UnavailableError:
        pytest.skip("kprobes cannot be had here")
    tracer = load([Selector(1)], buffer_bytes=4096, rung="kprobe", btf=Path("/sys/kernel/btf/vmlinux"))
    assert set(tracer.modes.values()) == {"kprobe"}
    tracer.close()
    wrong = tmp_path / "wrong.btf"
    wrong.write_bytes(b"\x9f\xeb\x01" + bytes(100))
    with pytest.raises(UnavailableError) as refused:
        load([Selector(1)], buffer_bytes=4096, rung="kprobe", btf=wrong)
    assert "\n" not in str(refused.value)
    assert "wrong.btf" in str(refused.value)


@dataclass(frozen=True)
class _Partial:
    modes: dict[str, str]
    refusals: dict[str, str]


def test_a_hook_that_cannot_be_had_is_one_warning_that_says_what_is_missing() -> None:
    modes = dict.fromkeys(STREAM, "tp_btf") | {"asked": "none", "copied": "none"}
    with structlog.testing.capture_logs() as said:
        probe.tell_modes(_Partial(modes, {"asked": "refused", "copied": "there is no such tracepoint"}))
    assert said == [
        {
            "event": "hooks_missing",
            "log_level": "warning",
            "copied": "there is no such tracepoint",
            "effect": "no parts of kernel_to_user",
        }
    ]


@traced
def test_doctor_names_the_rung_and_leaves_nothing_attached() -> None:
    found = {one.subject: one for one in capabilities()}
    assert set(found) == {"nic_to_kernel", "kernel_to_user"}
    for one in found.values():
        assert one.available
        assert one.source.removeprefix("ebpf ") in RUNGS
    assert "asked" in found["kernel_to_user"].detail
    held = [entry.read_text() for entry in Path("/proc/self/fdinfo").iterdir() if entry.exists()]
    assert not any("prog_id" in text or "link_id" in text for text in held)


@traced
def test_a_late_reader_learns_the_modes_from_the_ring(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector], rows=1) as tracing:
        for _ in range(3):  # more connections than rows: the modes' own is not theirs
            peers = server.connect()
            peers.send(10)
            peers.read(10)
        wait_until(lambda: len(tracing.reader.of(Kind.COPIED)) == 3)
        with RingReader(tracing.reader.ring.path) as late:
            assert late.modes() == {"kernel": tracing.modes}
            connections = [row for row in late.rows().values() if not row["feed"]]
            assert len(connections) == 1


def _waits_in_recv(thread: int) -> bool:
    """Whether a thread of this machine is in recvfrom, and no system call before it."""
    number = {"x86_64": "45", "aarch64": "207"}[platform.machine()]
    return Path(f"/proc/{thread}/syscall").read_text().split()[0] == number


def _read_in_turn(peers: Peers, count: int) -> None:
    for _ in range(count):
        peers.send(100)
        peers.read(100)


@traced
def test_what_is_copied_tells_when_it_was_asked_for(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        _read_in_turn(peers, 10)
        peers.near.settimeout(None)  # with one, Python would poll first, and ask when there is something
        reader = threading.get_native_id()
        child = os.fork()
        if child == 0:
            wait_until(lambda: _waits_in_recv(reader))
            peers.far.sendall(b"x" * 100)
            os._exit(0)
        peers.read(100)
        os.waitpid(child, 0)
        copied, readable = (tracing.of(kind, peers.cookie) for kind in (Kind.COPIED, Kind.READABLE))
        asked = copied["interval"]["asked_ns"].tolist()
        if tracing.modes["asked"] == "none":
            assert set(asked) == {0}
            return
        for record, read in zip(copied, peers.reads, strict=True):
            assert read.before_ns <= record["interval"]["asked_ns"] <= record["time_ns"]
        assert asked[-1] < readable["time_ns"][-1]
        assert set(readable["interval"]["asked_ns"]) == {0}


@traced
def test_a_look_and_a_read_that_found_nothing_ask_for_nothing_later(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.near.setblocking(False)
        with pytest.raises(BlockingIOError):
            peers.near.recv(100)
        peers.send(100)
        peers.arrive()
        assert peers.near.recv(100, socket.MSG_PEEK)
        out, into = os.pipe()
        peers.read_by(lambda: os.splice(peers.near.fileno(), into, 100))  # has no entry that is seen
        os.close(out)
        os.close(into)
        copied = tracing.of(Kind.COPIED, peers.cookie)
        assert spans(copied) == [(0, 100)]
        assert copied["interval"]["asked_ns"].tolist() == [0]


@traced
def test_two_threads_that_wait_on_one_socket_asked_at_their_own_times(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        if tracing.modes["asked"] == "none":
            pytest.skip("asked cannot be had here")
        peers = server.connect()
        peers.near.settimeout(None)
        taken = []

        def wait() -> None:
            taken.append(peers.near.recv(1))

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
            wait_until(lambda thread=thread: _waits_in_recv(thread.native_id))
        for n in range(2):
            peers.send(1)
            wait_until(lambda n=n: len(taken) == n + 1)
        for thread in threads:
            thread.join()
        asked = tracing.of(Kind.COPIED, peers.cookie)["interval"]["asked_ns"]
        assert len(set(asked.tolist())) == 2
        assert int(asked.max()) < tracing.of(Kind.READABLE, peers.cookie)["time_ns"][0]


CLIENT = """
import socket, sys
open_before = socket.socket()
print(int.from_bytes(open_before.getsockopt(1, 57, 8), "little"), flush=True)
open_before.connect(("127.0.0.1", int(sys.argv[1])))
sys.stdin.readline()
opened_later = socket.socket()
print(int.from_bytes(opened_later.getsockopt(1, 57, 8), "little"), flush=True)
opened_later.connect(("127.0.0.1", int(sys.argv[1])))
for one in (open_before, opened_later):
    one.recv(10, socket.MSG_WAITALL)
sys.stdin.readline()
"""


@contextmanager
def _client(server: Server) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with child:
            yield child
    finally:
        child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return child.stdout.readline()


@traced
def test_a_process_selects_the_sockets_that_it_holds_and_those_that_it_opens(tmp_path: Path) -> None:
    with Server() as server, _client(server) as child:
        assert child.stdout is not None
        cookies = [int(child.stdout.readline())]
        first, _ = server.listening.accept()
        check([child.pid])
        with Tracing(tmp_path, [server.selector], pids=[child.pid]) as tracing:
            with tcp_sockets(child.pid) as held:
                assert [cookie_of(one) for one in held] == cookies
                for one in held:
                    tracing.claim(one)
            other = server.connect()
            other.send(10)
            other.read(10)
            cookies.append(int(_line(child)))
            second, _ = server.listening.accept()
            for far, cookie in zip((first, second), cookies, strict=True):
                far.sendall(b"x" * 4)
                wait_until(lambda cookie=cookie: len(tracing.so_far(Kind.OPENED, cookie)) > 0)
                far.sendall(b"x" * 6)
            for cookie in cookies:
                wait_until(lambda cookie=cookie: 10 in tracing.so_far(Kind.COPIED, cookie)["interval"]["to"])
            tracing.stop()
            # Of the one that was open before, the first event tells where it begins.
            assert spans(tracing.of(Kind.READABLE, cookies[0])) == [(4, 10)]
            assert_covers_once(tracing.of(Kind.READABLE, cookies[1]), 10)
            for cookie in cookies:
                assert_covers_once(tracing.of(Kind.COPIED, cookie), 10)
            told = np.concatenate([tracing.reader.of(kind) for kind in (Kind.READABLE, Kind.COPIED)])
            assert set(told["interval"]["cookie"].tolist()) == set(cookies)
            first.close()
            second.close()


@traced
def test_a_process_that_is_given_a_socket_has_it_from_its_first_read_on(tmp_path: Path) -> None:
    with Server() as server:
        peers = server.connect()
        with Tracing(tmp_path, [server.selector], pids=[os.getpid()]) as tracing:
            for _ in range(2):  # not connected by it while it was looked at, nor claimed
                peers.send(10)
                peers.read(10)
            readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
            assert spans(copied)[-1] == (10, 20)
            assert spans(readable) == [(10, 20)]


@traced
def test_a_thread_is_no_process() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(TickpathError, match="no process"):
            check([thread.native_id])
    finally:
        stop.set()
        thread.join()


@traced
def test_a_socket_without_a_cookie_is_recorded_or_counted(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        near = socket.create_connection(("127.0.0.1", server.port))
        far, _ = server.listening.accept()
        far.sendall(b"x" * 10)
        assert near.recv(10, socket.MSG_WAITALL)
        tracing.stop()
        told = len(tracing.reader.of(Kind.COPIED))
        nameless = tracing.count(Counter.NO_COOKIE)
        assert (told, nameless > 0) == ((0, True) if tracing.modes["copied"] == "kprobe" else (1, False))
        near.close()
        far.close()
