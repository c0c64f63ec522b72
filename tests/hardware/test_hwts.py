# SPDX-License-Identifier: Apache-2.0
"""Hardware stamps where every one can be checked: on the guest's pair of interfaces whose clocks' law is known."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware import clock
from hardware.law import Law
from netns import Namespace
from tickpath import hardware
from tickpath.errors import RingError
from tickpath.event import RECORD, Clock, Counter, Kind, Source
from tickpath.exporter.correlator import JOINED, Correlator
from tickpath.exporter.correlator._correlator import Timeline
from tickpath.ring import RingReader

CHECKS = 100_000
TOLD = Path("/sys/kernel/debug/hwts")
HERE, THERE = "10.79.0.1", "10.79.0.2"
OTHER_HERE, OTHER_THERE = "10.80.0.1", "10.80.0.2"
COMMAND = [sys.executable, "-P", "-m", "tickpath"]
# Emulated processors are slow.
PATIENCE_S = 240.0
LONG_S = 700.0
# Longer than any test: a clock that is set back by that shows nothing that it has shown before, and each stamp has but
# one true moment.
FAR_NS = 3600 * 10**9
WINDOW_NS = 60 * 10**9


def _missing() -> str:
    if os.geteuid() or not Path("/proc/modules").exists() or not shutil.which("modprobe"):
        return "needs the guest's module hwts (make test-vm)"
    done = subprocess.run(["modprobe", "hwts", "offset_ns=37000000000"], capture_output=True, check=False)
    return "" if done.returncode == 0 and TOLD.exists() else "needs the guest's module hwts (make test-vm)"


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[None]:
    """The module, loaded, and not here outside of a guest."""
    if reason := _missing():
        pytest.skip(reason)
    yield
    subprocess.run(["rmmod", "hwts"], check=False)


@pytest.fixture
def peer() -> Iterator[Namespace]:
    """The other end of the wire."""
    hardware.configure("hwts0", hardware.Setting())
    with Namespace() as other:
        join(other, "hwts0", "hwts1", HERE, THERE)
        yield other
        other.ip("link", "set", "hwts1", "netns", "1")


def join(other: Namespace, here: str, there: str, own: str, its: str) -> None:
    """Addresses for two interfaces on one wire, one of them in the other namespace, once the link stands."""
    subprocess.run(["ip", "link", "set", there, "netns", str(other._holder.pid)], check=True)
    other.address(there, f"{its}/24")
    subprocess.run(["ip", "addr", "replace", f"{own}/24", "dev", here], check=True)
    subprocess.run(["ip", "link", "set", here, "up"], check=True)
    carrier = Path(f"/sys/class/net/{here}/operstate")
    wait_until(lambda: carrier.read_text().strip() != "down", f"a link of {here}")


@dataclass
class Process:
    """A part of tickpath that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.said() or self.process.poll() is not None, f"{words} (it said {self.said()})")
        assert words in self.said(), self.said()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)


def wait_until(true: object, what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


class Parts:
    """The processes of one test, with one ring directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._all: list[Process] = []

    def start(self, *words: str, inside: Namespace | None = None) -> Process:
        log = self.directory / f"log{len(self._all)}"
        argv = [*COMMAND, *words]
        with log.open("wb") as out:
            process = subprocess.Popen(
                inside.command(argv) if inside else argv,
                stdout=out,
                stderr=out,
                env={**os.environ, "TICKPATH_DIRECTORY": str(self.directory), "TICKPATH_LOG_FORMAT": "logfmt"},
            )
        self._all.append(Process(process, log))
        return self._all[-1]

    def wire(self, *words: str, interface: str = "hwts0") -> Process:
        probe = self.start("probe", "wire", "--interface", interface, "--capacity", str(1 << 18), *words)
        probe.wait_for("event=ready")
        return probe

    def close(self) -> None:
        for part in self._all:
            part.process.kill()
            part.process.wait()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.close()


@contextlib.contextmanager
def blast(peer: Namespace, segment_bytes: int = 88, its: str = THERE) -> Iterator[int]:
    """The peer sends small segments to a reader here, until the end; its port."""
    with peer.entered():
        listener = socket.create_server((its, 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            server, _ = listener.accept()
            with server:
                while not ended.is_set():
                    server.sendall(bytes(64 * segment_bytes))
                    time.sleep(0.001)

    def take() -> None:
        with contextlib.suppress(OSError), socket.create_connection(listener.getsockname()) as client:
            while not ended.is_set() and client.recv(1 << 16):
                pass

    threads = [threading.Thread(target=serve, daemon=True), threading.Thread(target=take, daemon=True)]
    for thread in threads:
        thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        ended.set()
        listener.close()
        for thread in threads:
            thread.join(PATIENCE_S)


def report(**found: object) -> None:
    """For the table that make test-vm prints."""
    results = Path("/results")
    if results.is_dir():
        path = results / "hardware.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | found))


def index_of(interface: str) -> int:
    found = hardware.offer(interface).phc
    assert found is not None
    return found


class Checker:
    """Places each stamp of a wire ring as the exporter does, and compares with what was true."""

    def __init__(self, path: Path) -> None:
        self.ring = RingReader(path)
        self.timeline = Timeline()
        self.placed = 0
        self._taken: list[tuple[np.ndarray, ...]] = []

    def take(self) -> int:
        """What is new; how many stamps have been placed so far."""
        out = np.zeros(1 << 14, RECORD)
        while count := self.ring.read(out.view("u1")):
            results = [np.zeros(count, np.int64) for _ in range(3)]
            records = out[:count].copy()
            self.timeline.place(0, records.view("u1"), *results)
            stamps = (records["kind"] == Kind.SEGMENT) & (records["source"] == Source.HW)
            self.placed += int(np.count_nonzero(stamps & (results[2] == 0)))
            self._taken.append((records, *results))
        return self.placed

    def left(self) -> dict[str, int]:
        """Stamps that were not placed, by the error's name."""
        numbers, counts = np.unique(np.concatenate([part[3] for part in self._taken]), return_counts=True)
        return {errno.errorcode.get(int(n), "placed"): int(c) for n, c in zip(numbers, counts, strict=True)}

    def all(self) -> tuple[np.ndarray, ...]:
        """Records, and for each its time, bound and error."""
        return tuple(np.concatenate(parts) for parts in zip(*self._taken, strict=True))

    def verdict(self, law: Law) -> dict[str, float]:
        """Of each placed stamp: is the truth within the bound? What the clock showed twice is counted apart."""
        taken, times, bounds, errors_of = self.all()
        stamps = (taken["kind"] == Kind.SEGMENT) & (taken["source"] == Source.HW)
        placed = stamps & (errors_of == 0)
        wrong, ambiguous, errors = 0, 0, []
        bounds = bounds[placed]
        for stamp, time_ns, bound in zip(
            taken["time_ns"][placed].tolist(), times[placed].tolist(), bounds.tolist(), strict=True
        ):
            moments = law.when(stamp)
            assert moments, "a stamp that the clock never showed"
            off = min(abs(time_ns - moment) for moment in moments)
            wrong += off > bound + 2
            ambiguous += len(moments) > 1
            errors.append(off)
        left = errors_of[stamps]
        return {
            "checks": len(errors) - ambiguous,
            "ambiguous": ambiguous,
            "wrong": wrong,
            "error_ns_median": float(np.median(errors)),
            "error_ns_max": float(np.max(errors)),
            "bound_ns_median": float(np.median(bounds)),
            "bound_ns_max": float(np.max(bounds)),
            "near_a_step": int(np.count_nonzero(left == errno.ERANGE)),
            "no_reading": int(np.count_nonzero(left == errno.EAGAIN)),
        }


@pytest.mark.timeout(LONG_S + 60)
def test_the_bound_holds_in_every_check_through_drift_and_steps(peer: Namespace, parts: Parts) -> None:
    phc = index_of("hwts0")
    with blast(peer) as port:
        probe = parts.wire("--port", str(port), "--stamps", "hw")
        checker = Checker(parts.directory / "wire-hwts0.ring")
        changes = [
            lambda: clock.step(phc, 1_000_000),
            lambda: clock.tune(phc, 400),
            lambda: clock.step(phc, -1_000_000),
            lambda: clock.tune(phc, 50_000),
            lambda: clock.step(phc, -FAR_NS),
            lambda: clock.tune(phc, -50_000),
            lambda: clock.step(phc, 20_000),
            lambda: clock.step(phc, FAR_NS),
        ]
        done = 0
        deadline = time.monotonic() + LONG_S
        while (placed := checker.take()) < CHECKS * 1.05:
            assert time.monotonic() < deadline, f"{placed} stamps placed in {LONG_S} s; {checker.left()}"
            if done < len(changes) and placed >= (done + 1) * CHECKS / (len(changes) + 1):
                changes[done]()
                done += 1
            time.sleep(0.01)
        probe.stop()
        checker.take()
    assert done == len(changes)
    found = checker.verdict(Law((TOLD / "hwts0").read_text()))
    taken = checker.all()[0]
    segments = taken[taken["kind"] == Kind.SEGMENT]
    found["stamped"] = int(np.count_nonzero(segments["source"] == Source.HW))
    found["segments"] = len(segments)
    found["lost"] = checker.ring.lost
    report(conversion=found)
    print(found)
    assert found["wrong"] == 0
    assert found["checks"] >= CHECKS
    assert found["stamped"] == found["segments"], "the module stamps every frame"
    # NIC: in a block of frames that an emulated timer closed too late, and which nobody is to place.
    assert {Clock.PHC + phc} <= set(segments["clock"]) <= {Clock.PHC + phc, Clock.NIC}
    assert found["near_a_step"] > 0, "what lies near a step is left out, and said so"


@pytest.mark.timeout(LONG_S + 60)
def test_every_message_of_a_wss_feed_is_joined_by_the_nics_stamp(peer: Namespace, parts: Parts) -> None:
    wanted = 300
    phc = index_of("hwts0")
    authority = parts.directory / "ca.pem"
    simulator = parts.start(
        *("simulate", "--host", THERE, "--port", "0", "--venue", "usdm", "--tls", "1.3", "--ca", str(authority)),
        *("--messages", str(wanted), "--connections", "1", "--linger", "60", "--speed", "4", "--at-end", "hold"),
        inside=peer,
    )
    simulator.wait_for("listening on")
    line = next(line for line in simulator.said().splitlines() if line.startswith("listening on"))
    port = line.rpartition(":")[2]
    parts.wire("--port", port, "--stamps", "hw")
    # The wire probe's processor may stand still for longer than a message waits elsewhere.
    with_room = Correlator(joined_capacity=1 << 14, window_ns=WINDOW_NS)
    with_room.attach(parts.directory / "wire-hwts0.ring", from_start=True)
    feed = parts.start(
        *("feed", f"wss://{THERE}:{port}/public/stream?streams=btcusdt@depth@0ms/btcusdt@bookTicker"),
        *("--name", "f", "--venue", "binance-usdm", "--no-reconnect", "--cafile", str(authority)),
        *("--publish", "tcp://127.0.0.1:0"),
    )
    ring = parts.directory / "feed-f.ring"
    attached = False
    while not attached:
        assert feed.process.poll() is None, feed.said()
        with contextlib.suppress(RingError):
            with_room.attach(ring, from_start=True)
            attached = True
    results = np.zeros(1 << 14, JOINED)
    joined = np.zeros(0, JOINED)
    stepped = False
    deadline = time.monotonic() + LONG_S
    while len(joined) < wanted:
        assert time.monotonic() < deadline, f"{len(joined)} of {wanted} messages; {feed.said()} {simulator.said()}"
        with_room.poll()
        joined = np.concatenate([joined, results[: with_room.joined(results)]])
        if not stepped and len(joined) > wanted / 2:
            clock.step(phc, 5_000_000)
            stepped = True
        time.sleep(0.02)
    law = Law((TOLD / "hwts0").read_text())
    with RingReader(parts.directory / "wire-hwts0.ring", from_start=True) as wire:
        segments = np.zeros(1 << 16, RECORD)
        segments = segments[: wire.read(segments.view("u1"))]
        assert wire.counters()[Counter.HW_MISSING] == 0
    segments = segments[segments["kind"] == Kind.SEGMENT]
    stamp_of = dict(zip(segments["segment"]["frame"].tolist(), segments["time_ns"].tolist(), strict=True))
    own = joined[joined["stamps"] & 1 == 1]
    off = [min(abs(int(row["own_ns"]) - moment) for moment in law.when(stamp_of[int(row["frame"])])) for row in own]
    bounds = own["own_bound_ns"].tolist()
    with RingReader(ring, from_start=True) as reads:
        records = np.zeros(1 << 16, RECORD)
        records = records[: reads.read(records.view("u1"))]
    records = records[records["kind"] == Kind.READ]
    found = {
        "messages": len(joined),
        "source_hw": int(np.count_nonzero(joined["source"] == Source.HW)),
        "placed": len(own),
        "error_ns_max": max(off),
        "bound_ns_max": max(bounds),
        "wrong": sum(error > bound + 2 for error, bound in zip(off, bounds, strict=True)),
        "reads_with_hw": int(np.count_nonzero(records["read"]["hw_ns"])),
        "reads": len(records),
    }
    report(feed=found)
    print(found)
    assert found["source_hw"] == found["messages"], "every message has the NIC's stamp"
    assert found["wrong"] == 0
    assert found["placed"] >= 0.5 * found["messages"], "all but those near the step, or in a block closed too late"
    assert found["reads_with_hw"] >= found["reads"] - 2, "the stamped socket asks for it too"


@pytest.mark.parametrize("proto", ["icmp", "udp"])
def test_a_ping_is_timed_by_the_nics_stamps_of_both_ends(peer: Namespace, parts: Parts, proto: str) -> None:
    pings = 100
    if proto == "udp":
        parts.start("ping", "--serve", "-I", THERE, inside=peer).wait_for("18066")
    argv = ["ping", f"{proto}://{THERE}", "-c", str(pings), "-i", "0.02", "-W", "20", "--hardware", "--json"]
    ping = parts.start(*argv)
    ping.process.wait(PATIENCE_S)
    told = [json.loads(line) for line in ping.said().splitlines() if line.startswith("{")]
    replies = [one for one in told if one.get("result") == "reply"]
    assert len(replies) == pings, ping.said()
    # The first stamps may be from before the NIC's were on: those pings are timed by the kernel's, and say so.
    by_nic = [one for one in replies if one["source"] == "hw"]
    assert len(by_nic) >= pings - 2, sorted({one["source"] for one in replies})
    assert all(0 < one["rtt_ns"] <= one["app_rtt_ns"] for one in by_nic), "the NIC is inside of the application"
    assert hardware.setting("hwts0") == hardware.Setting(), "what was set is set back"
    report(**{f"ping_{proto}": {"replies": len(replies), "source_hw": len(by_nic)}})


def test_what_was_set_comes_back_when_the_probe_stops_and_after_it_was_killed(peer: Namespace, parts: Parts) -> None:
    before = hardware.setting("hwts0")
    assert before == hardware.Setting()
    probe = parts.wire("--port", "1", "--stamps", "hw")
    assert hardware.setting("hwts0") == hardware.Setting(rx=hardware.FILTER_ALL)
    probe.process.kill()
    probe.process.wait()
    assert hardware.setting("hwts0") == hardware.Setting(rx=hardware.FILTER_ALL)
    parts.wire("--port", "1", "--stamps", "sw").stop()
    assert hardware.setting("hwts0") == before
    parts.wire("--port", "1").stop()
    assert hardware.setting("hwts0") == before


def test_doctor_tells_what_is_enabled_and_delivered_and_which_time_the_clock_keeps(
    peer: Namespace, parts: Parts
) -> None:
    parts.wire("--port", "1", "--stamps", "hw")
    said = subprocess.run(
        [*COMMAND, "doctor", "--json"],
        capture_output=True,
        check=True,
        env={**os.environ, "TICKPATH_DIRECTORY": str(parts.directory)},
    ).stdout
    found = {
        (one["name"], source["source"]): source["detail"]
        for one in json.loads(said)["subjects"]
        for source in one["sources"]
    }
    phc = index_of("hwts0")
    assert f"hwts0 (hwts, PHC {phc}): enabled; stamps come" in found["nic_to_user", "af_packet hw hwts0"]
    assert "read extended, monotonic; keeps " in found[f"clock.phc{phc}", "hwts0"]


def _gives_up(parts: Parts, port: int, interface: str) -> dict[str, Any]:
    probe = parts.wire("--port", str(port), "--stamps", "hw", interface=interface)
    reader = RingReader(parts.directory / f"wire-{interface}.ring", from_start=True)
    records = np.zeros(1 << 18, RECORD)
    # On a busy host the whole guest stands still: so long was this process kept from waking up.
    late_s, woke_s = 0.0, time.monotonic()
    while "event=hardware_stamps_given_up" not in probe.said():
        assert probe.process.poll() is None, probe.said()
        time.sleep(0.05)
        late_s, woke_s = max(late_s, time.monotonic() - woke_s - 0.05), time.monotonic()
    time.sleep(1)
    taken = records[: reader.read(records.view("u1"))]
    segments = taken[taken["kind"] == Kind.SEGMENT]
    counters = reader.counters()
    assert set(segments["source"]) <= {Source.SW, Source.SW_GRO}, "no stamp of the NIC's is made up"
    assert counters[Counter.HW_GIVEN_UP] == 1
    assert counters[Counter.HW_MISSING] >= 3
    assert reader.modes() == {"wire": {interface: "sw"}}
    (said,) = [line for line in probe.said().splitlines() if "given_up" in line]
    # What it missed before it gave up: it is found out at the last of them.
    missed_ns = segments["segment"]["seen_ns"][: counters[Counter.HW_MISSING]].astype(np.int64)
    # So long nothing came, or nobody looked.
    late_s = max(late_s, float(np.diff(missed_ns).max()) / 1e9)
    probe.stop()
    return {
        "seconds": float(missed_ns[-1] - missed_ns[0]) / 1e9,
        "stood_still_s": late_s,
        "said": said,
        "missing": counters[Counter.HW_MISSING],
    }


def test_a_driver_that_accepts_and_delivers_nothing_is_found_out(peer: Namespace, parts: Parts) -> None:
    (TOLD / "deaf").write_text("Y")
    try:
        with blast(peer) as port:
            found = _gives_up(parts, port, "hwts0")
    finally:
        (TOLD / "deaf").write_text("N")
    report(deaf=found)
    assert 2 <= found["seconds"] < 5 + 2 * found["stood_still_s"]
    assert hardware.setting("hwts0") == hardware.Setting()


def _e1000e() -> list[str]:
    subprocess.run(["modprobe", "e1000e"], check=False, capture_output=True)
    return [name for _, name in socket.if_nameindex() if name != "lo" and hardware.driver_of(name) == "e1000e"]


def test_the_emulated_e1000e_claims_all_and_is_found_out(parts: Parts) -> None:
    nics = _e1000e()
    if len(nics) < 2:
        pytest.skip("no two e1000e here")
    here, there = nics[:2]
    assert hardware.offer(here).rx, "it claims to stamp all"
    with Namespace() as other:
        join(other, here, there, OTHER_HERE, OTHER_THERE)
        with blast(other, its=OTHER_THERE) as port:
            found = _gives_up(parts, port, here)
    report(e1000e=found)
    assert 2 <= found["seconds"] < 5 + 2 * found["stood_still_s"]
