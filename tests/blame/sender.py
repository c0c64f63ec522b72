# SPDX-License-Identifier: Apache-2.0
"""The exchange of the blame test, a process of its own: paced messages, and what a stall needs of the sender.

Run as `sender.py ADDRESS PORT MESSAGES GAP_NS STALL STALL_NS COMPETITOR`; begins with a line on standard input, after
one connection was accepted.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from feed_server import Peer, frame

# Before a message leaves the competitor has the reader's processor already; so long after its due time it arrives.
_LEAD_NS = 300_000
_ARRIVES_NS = 80_000
# How long a rest was would be felt in what comes after it: the sender works for so long before each message.
_WARM_NS = 150_000
# What the wire holds back it holds in every message, for so long at least.
_HELD_NS = 200_000
_HOLDS_BACK = {"bn_to_nic": 1, "hol_wait": 2}  # frames before the first message
_OUTSIDE = {"wake", *_HOLDS_BACK}
SINK_PORT = 18066


def stalled(number: int) -> bool:
    """Half of the messages, in pairs: of either kind half come behind one of the same, half behind one of the other."""
    return number % 4 in (1, 2)


def _payload(number: int) -> bytes:
    event_us = time.time_ns() // 1000
    text = (
        f'{{"e":"trade","E":{event_us},"s":"BTCUSDT","t":{number},"p":"60000.10","q":"0.001","T":{event_us},"m":true}}'
    )
    return text.encode()


def _until(moment_ns: int) -> None:
    left_ns = moment_ns - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)


class _Sender:
    def __init__(self, peer: Peer, address: str, stall: str, stall_ns: int, competitor: str) -> None:
        self._peer = peer
        self._stall = stall
        self._stall_ns = stall_ns
        self._sink = (address, SINK_PORT)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if stall == "wake":
            self._told.connect(competitor)

    def begin(self) -> None:
        """The shuttle counts frames: with these before, those that it holds back are the first of each message."""
        for _ in range(_HOLDS_BACK.get(self._stall, 0)):
            self._datagrams.sendto(b"x", self._sink)

    def send(self, number: int, due_ns: int) -> None:
        stall_ns = self._stall_ns if stalled(number) else 0
        # What waits outside of the reader leaves the earlier, so that the reader has as long a rest before each.
        leaves_ns = due_ns - stall_ns if self._stall in _OUTSIDE else due_ns
        if self._stall == "wake":
            _until(leaves_ns - _LEAD_NS)
            self._told.send(str(due_ns + _ARRIVES_NS if stall_ns else 0).encode())
        _until(leaves_ns - _WARM_NS)
        while time.monotonic_ns() < leaves_ns:
            frame(_payload(number))
        data = frame(_payload(number))
        if self._stall == "hol_wait":
            self._peer.raw(data[:40])
            data = data[40:]
        self._peer.raw(data)
        if self._stall in _HOLDS_BACK:
            # The frame behind it sets free what the shuttle holds back.
            _until(due_ns + _HELD_NS)
            self._datagrams.sendto(b"x", self._sink)


def main() -> None:
    """Serve one client."""
    address, port, messages, gap_ns, stall, stall_ns, competitor = sys.argv[1:]
    with socket.create_server((address, int(port))) as listening:
        print("listening", flush=True)
        sock, (client, _) = listening.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(sock)
    peer.accept()
    sys.stdin.readline()
    sender = _Sender(peer, client, stall, int(stall_ns), competitor)
    sender.begin()
    began_ns = time.monotonic_ns() + int(gap_ns)
    for number in range(int(messages)):
        sender.send(number, began_ns + number * int(gap_ns))
    _until(time.monotonic_ns() + 50_000_000)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
