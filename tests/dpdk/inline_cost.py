# SPDX-License-Identifier: Apache-2.0
"""What inline adds: round trips and bulk over one truth wire, by the kernel alone and by DPDK and TAP, in alternation.

    sudo .venv/bin/python -P tests/dpdk/inline_cost.py

The device of the wire is a TAP whose frames net_af_packet takes out of the kernel: a NIC of DPDK's own costs less to
poll. Ratios of one run on one machine mean something, times do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dpdk.inlining import PORT, Capture, addressed, given_up
from tickpath.lab.shuttle import TruthWire
from traffic import connection, noise, transfer

_TRIPS, _TRIP_BYTES, _BULK_BYTES = 3000, 300, 30_000_000


def _round_trips_ns(wire: TruthWire) -> list[int]:
    taken = []
    with connection(wire, port=PORT) as (server, client):
        payload = bytes(_TRIP_BYTES)
        for _ in range(_TRIPS):
            began = time.perf_counter_ns()
            client.sendall(payload)
            server.sendall(server.recv(_TRIP_BYTES))
            client.recv(_TRIP_BYTES)
            taken.append(time.perf_counter_ns() - began)
    return sorted(taken)


def _bytes_per_s(wire: TruthWire, *, down: bool) -> float:
    data = noise(_BULK_BYTES)
    with connection(wire, port=PORT) as (server, client):
        began = time.perf_counter_ns()
        transfer(*((server, client) if down else (client, server)), data)
        return _BULK_BYTES * 1e9 / (time.perf_counter_ns() - began)


def _measured(wire: TruthWire) -> dict[str, float]:
    trips = _round_trips_ns(wire)
    return {
        "round trip P50, us": trips[_TRIPS // 2] / 1000,
        "round trip P99, us": trips[_TRIPS * 99 // 100] / 1000,
        "to us, MB/s": _bytes_per_s(wire, down=True) / 1e6,
        "from us, MB/s": _bytes_per_s(wire, down=False) / 1e6,
    }


def _inline(folder: Path, idle_sleep_us: int) -> dict[str, float]:
    with given_up() as wire, Capture(wire, folder, idle_sleep_us=idle_sleep_us):
        addressed(wire)
        return _measured(wire)


def _direct() -> dict[str, float]:
    with TruthWire() as wire:
        return _measured(wire)


def main() -> int:
    """Measure in pairs, print medians and the median of the pairs' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--idle-sleep-us", type=int, default=0)
    arguments = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="tickpath-inline-") as folder:
        for number in range(arguments.pairs):
            pairs.append((_direct(), _inline(Path(folder) / str(number), arguments.idle_sleep_us)))
    print(f"{'':<22}{'direct':>10}{'inline':>10}{'inline/direct':>16}")
    for name in pairs[0][0]:
        direct = statistics.median(pair[0][name] for pair in pairs)
        inline = statistics.median(pair[1][name] for pair in pairs)
        ratio = statistics.median(pair[1][name] / pair[0][name] for pair in pairs)
        print(f"{name:<22}{direct:>10.1f}{inline:>10.1f}{ratio:>16.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
