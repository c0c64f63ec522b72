# SPDX-License-Identifier: Apache-2.0
"""A port's own stamps, simulated below DPDK's real API (fake_clock.c): fitted within their bound, whatever it does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk, preloadable, preloaded, refused, wait_until
from tickpath.clock import LinearFit, Reading
from tickpath.event import Clock, ClockFlag, Counter, Kind, Source
from tickpath.lab.shuttle import TruthWire
from tickpath.lab.shuttle.namespace import run_inside

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the truth wire makes network namespaces: needs root"),
    needs_dpdk,
]

PORT = 443
FIRST = 1000  # sequence number; the client's own answers carry 0
_FAKED = "mlx5_pci"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated clock's library."""
    return preloadable(tmp_path_factory.mktemp("fake"), "fake_clock")


class _Stamped:
    """A capture whose port is simulated to stamp, and a sender of frames to it."""

    def __init__(self, fake: Path, folder: Path, *flags: str, **clock: Any) -> None:
        self.wire = TruthWire()
        self._folder = folder
        self._clock = {f"FAKE_{name.upper()}": str(value) for name, value in clock.items()}
        self._log = folder / "true.log"
        self._fake = fake
        self._flags = flags
        self._sent = 0

    def __enter__(self) -> _Stamped:
        self.wire.__enter__()
        client = self.wire.client
        environment = {"FAKE_DRIVER": _FAKED, "FAKE_LOG": str(self._log), **preloaded(self._fake), **self._clock}
        device = f"net_af_packet0,iface={client.device},framecnt=8192"
        flags = ("--port", str(PORT), *self._flags)
        self.capture = DpdkCapture(self._folder / "r", device, *flags, wire=self.wire, environment=environment).ready()
        return self

    def __exit__(self, *error: Any) -> None:
        self.capture.__exit__(*error)
        self.wire.__exit__(*error)

    def send(self, count: int) -> None:
        """Frames out of the server's namespace, one every millisecond; wait until they are captured."""
        script = "import socket, sys, time\n"
        script += "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((sys.argv[1], 0))\n"
        script += "for line in sys.stdin: s.send(bytes.fromhex(line)); time.sleep(0.001)\n"
        from scapy.all import IP, TCP, Ether  # noqa: PLC0415 - slow to import

        server, client = self.wire.server, self.wire.client
        ether = Ether(src=server.mac, dst=client.mac) / IP(src=str(server.ipv4), dst=str(client.ipv4))
        lines = "".join(
            bytes(
                ether / TCP(sport=PORT, dport=5, seq=FIRST + 10 * (self._sent + number), flags="A") / b"0123456789"
            ).hex()
            + "\n"
            for number in range(count)
        )
        self._sent += count
        run_inside(server.namespace, ["python3", "-c", script, server.device], lines)
        self.capture.wait_for(Counter.DPDK_PUBLISHED, self._sent)

    def true_ns(self) -> dict[int, int]:
        """By sequence number: when the simulated port received it (CLOCK_MONOTONIC)."""
        return {int(seq): int(at) for seq, at in (line.split() for line in self._log.read_text().splitlines())}

    def converted(self) -> Iterator[tuple[int, int, int]]:
        """Per stamped segment: sequence number, monotonic moment and bound by a fit over the records before it."""
        fit, records = LinearFit(), self.capture.records
        both = np.concatenate([records(Kind.CLOCK), records(Kind.SEGMENT)])
        for record in np.sort(both, order="seq"):
            if record["kind"] == Kind.CLOCK:
                reading = record["reading"]
                fit.add(Reading(int(record["time_ns"]), int(reading["before_ns"]), int(reading["after_ns"])))
            elif record["clock"] == Clock.NIC:
                at = fit.convert(int(record["time_ns"]))
                yield int(record["segment"]["seq"]), at.time_ns, at.bound_ns


def _check(stamped: _Stamped, count: int) -> None:
    true, found = stamped.true_ns(), list(stamped.converted())
    assert len(found) == count
    for seq, at_ns, bound_ns in found:
        # One tick of the simulation's own rounding; a break in the readings may lie between two stamps.
        assert abs(at_ns - true[seq]) <= bound_ns + 100, (seq, at_ns - true[seq], bound_ns)


def test_stamps_of_a_drifting_clock_convert_within_their_bound(fake: Path, tmp_path: Path) -> None:
    with _Stamped(fake, tmp_path, hz=156_257_500, first=10**12) as stamped:
        stamped.send(300)
        _check(stamped, 300)
        segments = stamped.capture.records(Kind.SEGMENT)
        assert set(segments["source"]) == {Source.HW}
        assert (segments["segment"]["seen_ns"] > 0).all()
        assert (segments["segment"]["bound_ns"] > 0).all()
        assert stamped.capture.count(Counter.DPDK_UNSTAMPED) == 0
        assert set(stamped.capture.records(Kind.CLOCK)["clock"]) == {Clock.NIC}
        assert set(stamped.capture.records(Kind.CLOCK)["reading"]["device"]) == set(segments["segment"]["ifindex"])


def test_a_counter_of_32_bits_is_followed_over_its_end(fake: Path, tmp_path: Path) -> None:
    """Also by a loop that stood still while it came round more than once."""
    hz, bits = 4_000_000_000, 32  # it comes round every 1.07 s
    flags = ("--stamp-clock", "rte_eth_read_clock", "--stamp-bits", str(bits))
    with _Stamped(fake, tmp_path, *flags, driver="net_new", hz=hz, bits=bits, first=hz) as stamped:

        def reached(ticks: int) -> bool:
            return int(stamped.capture.records(Kind.CLOCK)["time_ns"][-1]) >= ticks

        stamped.send(20)
        wait_until(lambda: reached(2 << bits), "its coming round")
        stamped.send(20)
        stamped.capture.process.send_signal(signal.SIGSTOP)
        time.sleep(1.8)
        stamped.capture.process.send_signal(signal.SIGCONT)
        stamped.send(20)
        _check(stamped, 60)
        readings = stamped.capture.records(Kind.CLOCK)
        assert not (readings["flags"] & ClockFlag.STEPPED).any()
        between = np.diff(readings["time_ns"])
        assert (between > 0).all()
        assert between.max() > 1.5 * (1 << bits), "it stood still"


def test_a_step_of_the_clock_is_told_and_nothing_is_converted_across_it(fake: Path, tmp_path: Path) -> None:
    step = tmp_path / "step"
    with _Stamped(fake, tmp_path, step=5_000_000_000, step_file=step) as stamped:
        stamped.send(50)
        step.touch()
        stamped.send(1)  # the clock steps when this one comes

        def told() -> bool:
            readings = stamped.capture.records(Kind.CLOCK)
            return bool((readings["flags"] & ClockFlag.STEPPED).any())

        wait_until(told, "the step")
        after = len(stamped.capture.records(Kind.CLOCK))
        wait_until(lambda: len(stamped.capture.records(Kind.CLOCK)) > after + 1, "more readings")
        stamped.send(50)
        true = stamped.true_ns()
        found = list(stamped.converted())
        assert all(abs(at_ns - true[seq]) <= bound_ns + 100 for seq, at_ns, bound_ns in found)
        # What came after the step and before a reading told of it has the poll's stamp.
        assert {FIRST + 10 * number for number in range(101)} - {seq for seq, _, _ in found} == {FIRST + 500}
        assert stamped.capture.count(Counter.DPDK_UNSTAMPED) == 1


def test_a_port_that_says_it_stamps_and_does_not_is_told(fake: Path, tmp_path: Path) -> None:
    with _Stamped(fake, tmp_path, silent=1) as stamped:
        stamped.send(20)
        assert stamped.capture.count(Counter.DPDK_UNSTAMPED) == 20
        assert set(stamped.capture.records(Kind.SEGMENT)["source"]) == {Source.POLL}


def test_a_clock_that_cannot_be_read_leaves_the_poll_s_stamps(fake: Path, tmp_path: Path) -> None:
    with _Stamped(fake, tmp_path, mute=1) as stamped:
        stamped.send(20)
        assert set(stamped.capture.records(Kind.SEGMENT)["source"]) == {Source.POLL}
        assert set(stamped.capture.records(Kind.CLOCK)["clock"]) == {Clock.TSC}
        assert "the clock of mlx5_pci cannot be read" in stamped.capture.text()


def test_hardware_stamps_asked_for_and_not_there_are_refused() -> None:
    said = refused("--device", "net_null0", "--stamps", "hardware", "--memory", "none")
    assert "what the stamps of driver net_null mean is not known" in said
    assert "--stamps auto or poll" in said
