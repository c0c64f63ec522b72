# SPDX-License-Identifier: Apache-2.0
"""A pinger as one writes it in an afternoon: the application's clock around send and receive, one ping at a time.

Usage: naive.py ADDRESS COUNT INTERVAL_S TIMEOUT_S BYTES; prints per answer its number from 1 and its RTT in ns.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def main() -> None:
    """Ping."""
    address, count, interval_s, timeout_s, size = sys.argv[1], *map(float, sys.argv[2:6])
    identity = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        for seq in range(1, int(count) + 1):
            body = struct.pack("!HH", identity, seq) + bytes(int(size))
            request = struct.pack("!BBH", 8, 0, _checksum(struct.pack("!BBH", 8, 0, 0) + body)) + body
            sent_ns = time.perf_counter_ns()
            echo.sendto(request, (address, 0))
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0 and select.select([echo], [], [], left)[0]:
                got = echo.recv(65536)
                took_ns = time.perf_counter_ns() - sent_ns
                if got[20] == 0 and struct.unpack("!HH", got[24:28]) == (identity, seq):
                    print(seq, took_ns)
                    break
            time.sleep(interval_s)


if __name__ == "__main__":
    main()
