# SPDX-License-Identifier: Apache-2.0
"""The bench's process that EAL lives in: takes one step of the DPDK loop's work after another, told line by line."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import msgspec

from tickpath.dpdk_capture import eal
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import parse
from tickpath.event import Counter
from tickpath.lab.bench._dpdk_bench import Pace, fill, run
from tickpath.ring import RingReader, RingWriter
from tickpath.selector import Selector

_PORT = 443
_ROWS = 64
# The first readings of the clock, a connection and its first segment: the loop polls.
_FIRST_RECORDS = 6


class Order(msgspec.Struct):
    """`step`: burst, stamp, parse or publish; `frames_per_s` 0: as fast as it goes; `connections`: in turns."""

    step: str
    duration_ns: int
    frames_per_s: float = 0.0
    connections: int = 1


class Result(msgspec.Struct):
    """Frames, CPU time of the loop; where paced, quantiles of the residence and bursts that left frames waiting."""

    frames: int
    cpu_ns: int
    p50_ns: int = 0
    p99_ns: int = 0
    p999_ns: int = 0
    late: int = 0


def frame(connection: int) -> bytes:
    """64 bytes: a segment of the watched port with 10 bytes of payload, its checksum right."""
    header = bytes.fromhex("020000000001 020000000002 0800 45000032 00000000 4006 0000 0a000001 0a000002")
    ports = bytes.fromhex("01bb") + (40_000 + connection).to_bytes(2)
    segment = ports + bytes.fromhex("00000001 00000000 5010 ffff 0000 0000") + b"0123456789"
    pseudo = header[26:34] + bytes([0, 6, 0, len(segment)])
    total = sum(int.from_bytes((pseudo + segment)[i : i + 2]) for i in range(0, len(pseudo + segment), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header + segment[:16] + (0xFFFF - total).to_bytes(2) + segment[18:]


class _Bench:
    def __init__(self, folder: Path, core: int) -> None:
        config = DpdkConfig(device="net_null0,size=64", memory="none", burst=32)
        device = parse(config.device)
        eal.start(config, device, core)
        self._native = eal.library()
        self._folder = folder
        self._core = core
        self._port = self._native.Port(
            device.name,
            queues=1,
            tx_queues=0,
            descriptors=1024,
            buffers=8191,
            mtu=1500,
            promiscuous=False,
            stamps=False,
        )

    def take(self, order: Order) -> Result:
        fill("tickpath-0", [frame(connection) for connection in range(order.connections)])
        if order.step == "publish":
            return self._publish(order)
        found: list[Result] = []

        def step() -> None:
            self._own_the_core()
            found.append(Result(*run(self._port.name, order.step, order.duration_ns)))

        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        return found[0]

    def _own_the_core(self) -> None:
        """The calling thread alone, and before all other work there, as it would be."""
        os.sched_setaffinity(0, {self._core})
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

    def _publish(self, order: Order) -> Result:
        """The capture's own loop, whole."""
        spent: list[int] = []
        with RingWriter(self._folder, "dpdk-bench-0", "wire", rows=_ROWS) as ring, RingReader(ring.path) as reader:
            before = reader.counters()[Counter.DPDK_RECEIVED]
            loop = self._native.Loop(
                self._port, ring, [Selector(_PORT)], queue=0, burst=32, idle_sleep_us=0, rows=_ROWS
            )

            def poll() -> None:
                self._own_the_core()
                began_ns = time.thread_time_ns()
                loop.run()
                spent.append(time.thread_time_ns() - began_ns)

            thread = threading.Thread(target=poll)
            first = ring.head
            thread.start()
            while ring.head < first + _FIRST_RECORDS:
                time.sleep(0.001)
            pace = Pace(self._port.name, order.frames_per_s) if order.frames_per_s else None
            time.sleep(order.duration_ns / 1e9)
            loop.stop()
            thread.join()
            frames = reader.counters()[Counter.DPDK_RECEIVED] - before
        result = Result(frames, spent[0])
        if pace:
            pace.end()
            result.p50_ns, result.p99_ns, result.p999_ns = (pace.quantile_ns(q) for q in (0.5, 0.99, 0.999))
            result.late = pace.late
        return result


def main() -> None:
    """Until standard input ends: one Order a line in, one Result a line out. Arguments: folder, core."""
    folder, core = Path(sys.argv[1]), int(sys.argv[2])
    bench = _Bench(folder, core)
    for line in sys.stdin:
        sys.stdout.write(msgspec.json.encode(bench.take(msgspec.json.decode(line, type=Order))).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
