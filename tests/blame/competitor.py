# SPDX-License-Identifier: Apache-2.0
"""Takes a processor at real-time priority: `competitor.py SOCKET` until the moment that each datagram names.

`competitor.py` alone takes it for good, at the lowest such priority: nothing of the host's other work runs there then.
"""

from __future__ import annotations

import os
import socket
import sys
import time


def _run_ahead(priority: int) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    print("ready", flush=True)


def _spin(until_ns: int) -> None:
    # The same in both, for the other processor may share a core with this one, and feel what runs here.
    while time.monotonic_ns() < until_ns:
        pass


def main() -> None:
    """Until it is killed."""
    if len(sys.argv) == 1:
        _run_ahead(1)
        _spin(sys.maxsize)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        asked.bind(sys.argv[1])
        _run_ahead(10)
        while True:
            _spin(int(asked.recv(64)))


if __name__ == "__main__":
    main()
