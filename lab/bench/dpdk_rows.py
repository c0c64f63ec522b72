# SPDX-License-Identifier: Apache-2.0
"""The DPDK loop, step by step, beside dpdk-testpmd, which receives and does nothing, on the same virtual device."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from tickpath.errors import NotHereError, RingError, TickpathError
from tickpath.lab.bench.dpdk_child import Order, Result
from tickpath.lab.bench.host import for_a_loop, private_bytes
from tickpath.lab.bench.measure import Effort, alternate, repeat
from tickpath.lab.bench.row import Group, Row, Settings, Verdict
from tickpath.ring import RingReader

_PAST = "dpdk-testpmd rxonly, same device"
_LOADS = (50, 90)
_CONNECTIONS = (8, 64)
_QUANTILES = ("p50", "p99", "p999")
_TITLES = (
    Row(name="dpdk_burst", what="DPDK: receive and free, 64 B, net_null, CPU", unit="ns"),
    Row(name="dpdk_stamp", what="DPDK: + stamp", unit="ns"),
    Row(name="dpdk_parse", what="DPDK: + parse", unit="ns"),
    Row(name="dpdk_publish", what="DPDK: + publish: the capture's own loop", unit="ns"),
    Row(name="dpdk_rate", what="DPDK: the same per owned core", unit="Mpps", bar=">= 0.6x, >= 10"),
    Row(name="dpdk_rate_read", what="DPDK: the same while a reader reads the ring", unit="Mpps", bar=">= 0.6x, >= 10"),
    *(
        Row(name=f"dpdk_rate_{count}", what=f"DPDK: the same, {count} connections in turns", unit="Mpps")
        for count in _CONNECTIONS
    ),
    *(
        Row(name=f"dpdk_residence_{quantile}_{load}", what=f"DPDK: due to done at {load} % load, {said}", unit="us")
        for load in _LOADS
        for quantile, said in zip(_QUANTILES, ("P50", "P99", "P99.9"), strict=True)
    ),
    Row(name="dpdk_memory", what="DPDK: private memory of the process, 8,191 buffers", unit="MB"),
)
_BAR_MPPS, _BAR_RATIO = 10.0, 0.6


class _Child:
    """dpdk_child in a process."""

    def __init__(self, folder: Path, core: int) -> None:
        argv = [sys.executable, "-P", "-m", "tickpath.lab.bench.dpdk_child", str(folder), str(core)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, step: str, duration_ns: int, frames_per_s: float = 0.0, connections: int = 1) -> Result:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(
            msgspec.json.encode(Order(step, duration_ns, frames_per_s, connections)).decode() + "\n"
        )
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise TickpathError("the bench's DPDK process ended")
        return msgspec.json.decode(line, type=Result)

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(20)


class _Testpmd:
    """dpdk-testpmd, receiving alone, on one core; started and stopped by its own commands."""

    def __init__(self, program: str, core: int, other: int) -> None:
        given = ["-l", f"{other},{core}", "--no-huge", "-m", "64", "--no-pci", "--vdev", "net_null0,size=64"]
        prefix = f"tickpath-bench-{os.getpid()}"
        # EAL's own folder stays behind when it ends.
        self._left = Path("/var/run/dpdk", prefix)
        given += ["--file-prefix", prefix, "--no-telemetry", "--", "-i"]
        given += ["--forward-mode=rxonly", "--burst=32", "--total-num-mbufs=8191", "--no-flush-rx"]
        self._process = subprocess.Popen(
            # Else what it says stays in its buffer, behind the prompts that do not.
            ["stdbuf", "-oL", program, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._until("testpmd> ")
        self._worker = next(
            thread
            for thread in Path(f"/proc/{self._process.pid}/task").iterdir()
            if "worker" in (thread / "comm").read_text()
        )
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(int(self._worker.name), os.SCHED_FIFO, os.sched_param(1))

    def _say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _until(self, words: str) -> str:
        assert self._process.stdout
        said = ""
        while not said.endswith(words):
            more = self._process.stdout.read(1)
            if not more:
                raise TickpathError(f"dpdk-testpmd ended: {' '.join(said.split()[-20:])}")
            said += more
        return said

    def _worker_ns(self) -> int:
        return int((self._worker / "schedstat").read_text().split()[0])

    def ns_per_frame(self, duration_ns: int) -> float:
        before = self._worker_ns()
        self._say("start")
        self._until("testpmd> ")
        time.sleep(duration_ns / 1e9)
        self._say("stop")
        said = self._until("testpmd> ")
        spent = self._worker_ns() - before
        received = re.search(r"RX-packets: (\d+)", said)
        if not received or int(received[1]) == 0:
            raise TickpathError("dpdk-testpmd received nothing")
        return spent / int(received[1])

    def close(self) -> None:
        self._say("quit")
        assert self._process.stdout
        self._process.stdout.read()
        self._process.wait(20)
        shutil.rmtree(self._left, ignore_errors=True)


@contextlib.contextmanager
def _reader(folder: Path, core: int) -> Iterator[None]:
    """A process that reads the ring as the exporter would: every millisecond, all that came."""
    argv = [sys.executable, "-P", "-m", "tickpath.lab.bench.dpdk_rows", str(folder / "dpdk-bench-0.ring"), str(core)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def _read(path: Path, core: int) -> None:
    os.sched_setaffinity(0, {core})
    out = bytearray(64 * 4096)
    sys.stdout.write("\n")
    sys.stdout.flush()
    while True:
        with contextlib.suppress(RingError), RingReader(path) as reader:
            while True:
                while reader.read(memoryview(out)):
                    pass
                time.sleep(0.001)


def _mpps(ns_per_frame: Callable[[], float]) -> float:
    return 1e3 / ns_per_frame()


def _rates(row: Row, rest: Effort, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    pairs = alternate(partial(_mpps, ours), partial(_mpps, theirs), rest)
    row.compared(pairs, _PAST)
    row.judge((row.value or 0) >= _BAR_MPPS and (row.ratio or 0) >= _BAR_RATIO)
    if row.verdict is Verdict.FAIL and (row.ratio or 0) >= _BAR_RATIO and (row.yardstick_value or 0) < _BAR_MPPS:
        row.verdict = Verdict.HOST
        row.note = "testpmd does not receive as many here either"


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    allowed = for_a_loop("tickpath.lab.bench._dpdk_bench")
    program = shutil.which("dpdk-testpmd")
    if not program:
        raise NotHereError("dpdk-testpmd is not here (Debian: dpdk-dev)")
    core, other = allowed[-1], allowed[0]
    duration_ns = 30_000_000 if settings.quick else 200_000_000
    effort = settings.effort(least=6, most=20, budget_s=4, width=0.03)
    with contextlib.ExitStack() as stack:
        child = _Child(settings.folder, core)
        stack.callback(child.close)
        testpmd = _Testpmd(program, core, other)
        stack.callback(testpmd.close)
        theirs = partial(testpmd.ns_per_frame, duration_ns)

        def cost(step: str, connections: int = 1) -> float:
            result = child.take(step, duration_ns, connections=connections)
            return result.cpu_ns / result.frames

        for step in ("burst", "stamp", "parse", "publish"):
            rows[f"dpdk_{step}"].compared(alternate(partial(cost, step), theirs, effort), _PAST)
        _rates(rows["dpdk_rate"], effort, partial(cost, "publish"), theirs)
        with _reader(settings.folder, other):
            _rates(rows["dpdk_rate_read"], effort, partial(cost, "publish"), theirs)
        for count in _CONNECTIONS:
            rows[f"dpdk_rate_{count}"].compared(
                alternate(partial(_mpps, partial(cost, "publish", count)), partial(_mpps, theirs), effort), _PAST
            )
        capacity_per_s = 1e6 * (rows["dpdk_rate"].value or 1)
        for load in _LOADS:
            rate = capacity_per_s * load / 100
            runs = [child.take("publish", 2 * duration_ns, rate) for _ in range(1 if settings.quick else 7)]
            for quantile in _QUANTILES:
                rows[f"dpdk_residence_{quantile}_{load}"].measured([getattr(r, f"{quantile}_ns") / 1e3 for r in runs])
        rows["dpdk_memory"].measured(repeat(lambda: private_bytes(child.pid) / 1e6, Effort(1, 1, 0)))


GROUP = Group("dpdk", _TITLES, _run)

if __name__ == "__main__":
    _read(Path(sys.argv[1]), int(sys.argv[2]))
