# SPDX-License-Identifier: Apache-2.0
"""Nothing of a wire stays behind, however its maker ends; and the shuttle is clean under sanitizers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tickpath.lab.shuttle import Fate, Faults, ShuttleError, TruthWire, When, WireConfig, has
from traffic import connection, echo_answered, noise, send_bunch, transfer, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
]

SOURCES = Path(__file__).parents[2] / "lab" / "shuttle"


def _held(namespaces: set[int]) -> bool:
    """Whether any process is in one of the namespaces (by inode), or holds it open."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for link in (process / "ns" / "net", *(process / "fd").iterdir()):
                with contextlib.suppress(OSError):
                    target = str(link.readlink())
                    if target.startswith("net:[") and int(target[5:-1]) in namespaces:
                        return True
    return False


def _await_end(namespaces: set[int]) -> None:
    """Not at once: the kernel gives the numbers again, and a test in the process beside may have one by now."""
    wait_until(lambda: not _held(namespaces), "end of the namespaces")


def _inodes(wire: TruthWire) -> set[int]:
    return {side.namespace.stat().st_ino for side in (wire.server, wire.client)}


def test_after_the_context_nothing_is_left() -> None:
    with TruthWire() as wire:
        child = wire.run_in(wire.client, ["sleep", "1000"])
        namespaces = _inodes(wire)
        assert _held(namespaces)
        pid = wire.pid
    assert child.returncode == -9
    assert not Path(f"/proc/{pid}").exists()
    _await_end(namespaces)


def test_after_an_error_inside_nothing_is_left() -> None:
    namespaces = set()
    with pytest.raises(ZeroDivisionError), TruthWire() as wire:
        namespaces = _inodes(wire)
        raise ZeroDivisionError
    assert namespaces
    _await_end(namespaces)


def test_a_forked_process_does_not_keep_the_wire_up() -> None:
    with TruthWire():
        forked = os.fork()
        if forked == 0:
            while True:
                signal.pause()
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)


def test_a_program_runs_in_the_side_that_was_asked_for() -> None:
    with TruthWire() as wire:
        for side in (wire.server, wire.client):
            script = "from pathlib import Path; print(Path('/proc/self/ns/net').stat().st_ino)"
            child = wire.run_in(side, [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            assert int(child.communicate()[0]) == side.namespace.stat().st_ino


# It has forked: what it had open, the shuttle's input too, stays open after its end.
_KILLED = """
import os, time
from tickpath.lab.shuttle import TruthWire
with TruthWire() as wire:
    forked = os.fork()
    if forked == 0:
        time.sleep(1000)
    child = wire.run_in(wire.server, ["sleep", "1000"])
    inodes = (s.namespace.stat().st_ino for s in (wire.server, wire.client))
    print(forked, wire.pid, child.pid, *inodes, flush=True)
    time.sleep(1000)
"""


def test_after_kill_9_of_the_maker_nothing_is_left() -> None:
    maker = subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    with maker.stdout as said:
        forked, shuttle, child, *namespaces = (int(word) for word in said.readline().split())
    try:
        assert _held(set(namespaces))
        maker.kill()
        maker.wait()
        wait_until(lambda: not Path(f"/proc/{shuttle}").exists(), "end of the shuttle")
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "end of the program inside")
        _await_end(set(namespaces))
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_wire_outlives_the_thread_that_made_it() -> None:
    wire = TruthWire()
    thread = threading.Thread(target=wire.__enter__)
    thread.start()
    thread.join()
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.push(wire.__exit__)
        assert echo_answered(wire, wire.client, wire.server.ipv4)


def test_a_word_that_the_shuttle_does_not_know_is_refused(tmp_path: Path) -> None:
    for word in ("nonsense=1", "mtu_bytes=x", "mtu_bytes=", "to_client.drop.every=99999999999999999999999", "seed"):
        with TruthWire() as wire:
            program = Path(f"/proc/{wire.pid}/exe").readlink()
        done = subprocess.run([program, word], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == f"{word}: Invalid argument\n"


def test_a_shuttle_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "shuttle"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ShuttleError, match="ended with 1: no such luck"), TruthWire(program=broken):
        pass


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler: builds the shuttle with sanitizers")
    program = tmp_path_factory.mktemp("sanitized") / "tickpath-shuttle"
    options = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["cc", *options, f"-I{SOURCES.parents[1]}", *map(str, SOURCES.glob("*.c")), "-o", str(program)], check=True
    )
    return program


@pytest.mark.parametrize("gro", [False, True], ids=["plain", "gro"])
def test_the_shuttle_is_clean_under_sanitizers(sanitized: Path, gro: bool) -> None:
    often = When(probability=0.03)
    faults = Faults(
        drop=often,
        corrupt=often,
        duplicate=often,
        duplicate_copies=3,
        duplicate_apart_ns=200_000,
        swap=often,
        swap_by=2,
        hold=often,
        delay=often,
        delay_jitter_ns=300_000,
        only_payload=False,
    )
    data = noise(1_000_000)
    config = WireConfig(gro=gro, mtu_bytes=9000, to_client=faults, to_server=faults, armed=False)
    # A finding is a non-zero end of the shuttle, and so an error of the wire.
    with TruthWire(config, program=sanitized) as wire:
        for version in (4, 6):
            with connection(wire, version) as (server, client):
                wire.arm()
                assert transfer(server, client, data) == data
                assert transfer(client, server, data) == data
                wire.disarm()
        wire.arm()
        send_bunch(wire, wire.server, wire.client, [0, 1, 8000, 20_000] * 50)
    assert has(wire.log(), Fate.FORWARDED).any()


def test_frames_that_wait_at_the_end_are_freed(sanitized: Path) -> None:
    slow = Faults(only_payload=False, delay=When(every=2), delay_ns=60_000_000_000, hold=When(every=3))
    with TruthWire(WireConfig(to_client=slow), program=sanitized) as wire:
        send_bunch(wire, wire.server, wire.client, [10] * 4000, waiting=3999)
    assert has(wire.log(), Fate.UNSENT).any()
