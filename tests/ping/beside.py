# SPDX-License-Identifier: Apache-2.0
"""Four pingers on one path in one run: tickpath's, the system's ping, fping, and a naive one; and the shuttle's truth.

Each has a payload of its own length, by which the shuttle's log tells their frames apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pinging import COMMAND, Truth, dropped, sent, truths
from tickpath.lab.shuttle import ALWAYS, Faults, TruthWire, When, WireConfig
from traffic import settled, wait_until

ALLOWED_S = 0.5
# Ethernet, IPv4 and ICMP headers.
_HEADERS_BYTES = 14 + 20 + 8
_NAIVE = Path(__file__).parent / "naive.py"


@dataclass
class Said:
    """What a pinger said: RTTs by number of the ping, and counts; None where it has no word for it."""

    rtt_ns: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    late: int | None = None
    double: int | None = None
    late_seqs: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Pinger:
    """How one is started, and how its words are read."""

    name: str
    size: int
    command: Callable[[str, int, float], list[str]]
    read: Callable[[str, int], Said]


@dataclass(frozen=True)
class Beside:
    """One pinger's words, and the truth of its frames."""

    pinger: Pinger
    said: Said
    held: dict[int, Truth]
    gone: list[int]

    @property
    def late(self) -> set[int]:
        """Pings whose answer was held back for longer than allowed."""
        return {seq for seq, truth in self.held.items() if truth.held_ns > ALLOWED_S * 1e9}

    @property
    def copies(self) -> int:
        """Answers beyond the first."""
        return sum(truth.copies for truth in self.held.values())

    def over_ns(self, q: float) -> float:
        """A quantile of RTT minus what the shuttle held, of the answers in time."""
        over = [rtt - self.held[seq].held_ns for seq, rtt in self.said.rtt_ns.items() if seq not in self.late]
        return float(np.quantile(over, q)) if over else float("nan")

    def rtt_quantile_ns(self, q: float) -> float:
        """A quantile of what it said, of the answers in time."""
        rtts = [rtt for seq, rtt in self.said.rtt_ns.items() if seq not in self.late]
        return float(np.quantile(rtts, q)) if rtts else float("nan")

    def held_quantile_ns(self, q: float) -> float:
        """A quantile of the truth."""
        held = [truth.held_ns for seq, truth in self.held.items() if seq not in self.late]
        return float(np.quantile(held, q)) if held else float("nan")


def _read_tickpath(text: str, _count: int) -> Said:
    lines = [json.loads(line) for line in text.splitlines()]
    outcomes, totals = lines[:-1], lines[-1]
    said = Said(lost=totals["lost"], late=totals["late"], double=totals["duplicates"])
    said.rtt_ns = {one["seq"]: one["rtt_ns"] for one in outcomes if one["result"] in ("reply", "late")}
    said.late_seqs = frozenset(one["seq"] for one in outcomes if one["result"] == "late")
    return said


def _read_ping(text: str, count: int) -> Said:
    said = Said(double=text.count("(DUP!)"))
    for seq, ms in re.findall(r"icmp_seq=(\d+) ttl=\d+ time=([\d.]+) ms", text):
        said.rtt_ns.setdefault(int(seq), round(float(ms) * 1e6))
    said.lost = count - len(said.rtt_ns)
    return said


def _read_fping(text: str, count: int) -> Said:
    said = Said()
    for seq, ms in re.findall(r"\[(\d+)\], \d+ bytes, ([\d.]+) ms \(", text):
        said.rtt_ns.setdefault(int(seq) + 1, round(float(ms) * 1e6))
    said.lost = count - len(said.rtt_ns)
    return said


def _read_naive(text: str, count: int) -> Said:
    said = Said(rtt_ns={int(seq): int(ns) for seq, ns in (line.split() for line in text.splitlines())})
    said.lost = count - len(said.rtt_ns)
    return said


PINGERS = (
    Pinger(
        "tickpath ping",
        56,
        lambda address, count, interval_s: [
            *[*COMMAND, address, "--json", "-c", str(count), "-i", str(interval_s), "-W", str(ALLOWED_S)],
            *["-s", "56", "--linger", "600"],
        ],
        _read_tickpath,
    ),
    Pinger(
        "ping",
        57,
        lambda address, count, interval_s: [
            *["ping", "-n", "-c", str(count), "-i", str(interval_s), "-W", "1", "-s", "57", address]
        ],
        _read_ping,
    ),
    Pinger(
        "fping",
        58,
        lambda address, count, interval_s: [
            *["fping", "-c", str(count), "-p", str(round(interval_s * 1000)), "-t", str(round(ALLOWED_S * 1000))],
            *["-b", "58", address],
        ],
        _read_fping,
    ),
    Pinger(
        "naive (Python)",
        59,
        lambda address, count, interval_s: [
            *[sys.executable, str(_NAIVE), address, str(count), str(interval_s), str(ALLOWED_S), "59"]
        ],
        _read_naive,
    ),
)


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in made:
            one.kill()
            one.wait()


def compare(count: int, interval_s: float, loops: int, seed: int = 7) -> list[Beside]:
    """All four at once, beside so many busy loops."""
    harm = Faults(
        only_payload=False,
        delay=ALWAYS,
        delay_ns=1_000_000,
        drop=When(probability=0.02),
        duplicate=When(probability=0.02),
        swap=When(probability=0.01),
        swap_by=1000,
        swap_wait_ns=round(1.6e9 * ALLOWED_S),
    )
    with TruthWire(WireConfig(to_client=harm, seed=seed)) as wire, busy(loops):
        # The path is not to wait for the processors that the pingers wait for.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(wire.pid, os.SCHED_FIFO, os.sched_param(10))
        address = str(wire.server.ipv4)
        children = [
            wire.run_in(
                wire.client,
                pinger.command(address, count, interval_s),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if pinger.name == "fping" else subprocess.DEVNULL,
                text=True,
            )
            for pinger in PINGERS
        ]
        others = [child.communicate(timeout=300)[0] for child in children[1:]]
        wait_until(lambda: sent(wire.log()) >= len(PINGERS) * count, "all pings on the wire", 300)
        # Longer than anything is held back: what comes, has come.
        settled(wire, 2 * ALLOWED_S)
        children[0].terminate()
        said = [children[0].communicate(timeout=60)[0], *others]
        log = wire.log()
    made = []
    for pinger, text in zip(PINGERS, said, strict=True):
        mine = log[log["length"] == _HEADERS_BYTES + pinger.size].copy()
        # Numbered among its own alone.
        for direction in set(mine["direction"].tolist()):
            place = mine["direction"] == direction
            mine["number"][place] = np.unique(mine["number"][place], return_inverse=True)[1] + 1
        made.append(Beside(pinger, pinger.read(text, count), truths(mine), dropped(mine)))
    return made


def wrong(of: Beside, count: int) -> list[str]:
    """What tickpath said that the shuttle's log contradicts; counted exactly, to the ping."""
    said, found = of.said, []
    lost = set(range(1, count + 1)) - (set(said.rtt_ns) - said.late_seqs)
    if lost - said.late_seqs != set(of.gone):
        found.append("never answered")
    # An answer that the shuttle gave in time may have been stamped too late on a host that stalls.
    if not of.late <= said.late_seqs or said.late != len(said.late_seqs) or said.lost != len(lost):
        found.append("late")
    if said.double != of.copies:
        found.append("double")
    if any(rtt < of.held[seq].held_ns for seq, rtt in said.rtt_ns.items()):
        found.append("an RTT below what the shuttle held")
    return found


def counts(of: Beside) -> Counter[str]:
    """The truth in three figures."""
    return Counter(gone=len(of.gone), late=len(of.late), double=of.copies)
