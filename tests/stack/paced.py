# SPDX-License-Identifier: Apache-2.0
"""A team's own client: paced.py NAME HOST:PORT. Records into /run/tickpath by tickpath's public library, as
docs/feed.md says, and works longer at one point while it is told to.

Prints its own port once connected. Each line of standard input, `PART SECONDS`, is where it dawdles from now on.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import time
from pathlib import Path
from time import monotonic_ns

import websocket
import zmq

from tickpath.event import Resolution, Tier, Transport
from tickpath.recorder import Recorder
from tickpath.socket import StampedSocket, connect


class Dawdling:
    """Sleeps where it was told to, and nowhere else."""

    def __init__(self) -> None:
        self._part, self._seconds = "", 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            part, seconds = line.split()
            self._part, self._seconds = part, float(seconds)

    def at(self, part: str) -> bool:
        """Whether it is told to dawdle there."""
        return self._part == part

    def pause(self, part: str) -> None:
        """Sleep, if told to do so at this point."""
        if self.at(part):
            time.sleep(self._seconds)


def main() -> None:
    """Until it is killed, or the exchange ends."""
    name, address = sys.argv[1:]
    host, port = address.split(":")
    dawdling = Dawdling()
    publisher = zmq.Context().socket(zmq.PUB)
    publisher.bind(f"inproc://{name}")
    tcp = connect(host, int(port), timeout_s=10)
    with Recorder(Path("/run/tickpath"), name) as recorder:
        connection = recorder.open_connection(tcp, venue="binance-usdm", feed=name, stream="btcusdt@trade")
        sock = StampedSocket(tcp, connection)
        ws = websocket.create_connection(f"ws://{address}/market/ws/btcusdt@trade", socket=sock)
        connection.established(Transport.WS)
        print(tcp.getsockname()[1], flush=True)
        clocks_ns = 0
        while True:
            if dawdling.at("app_busy"):
                select.select([sock], [], [])
                dawdling.pause("app_busy")
            asked_ns = monotonic_ns()
            payload = ws.recv()
            received_ns = monotonic_ns()
            trade = json.loads(payload)
            event_ns = trade["E"] * 1_000_000
            dawdling.pause("cpu")
            parsed_ns = monotonic_ns()
            publisher.send_string(payload)
            dawdling.pause("msk")
            published_ns = monotonic_ns()
            connection.message(
                sock.end,
                connection.messages,
                len(payload),
                event_ns,
                Resolution.MS,
                None,
                max(asked_ns, sock.returned_ns),
                received_ns,
                parsed_ns,
                published_ns,
                Tier.A,
            )
            if published_ns > clocks_ns:
                recorder.record_clocks()
                clocks_ns = published_ns + 1_000_000_000


if __name__ == "__main__":
    main()
