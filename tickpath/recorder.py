# SPDX-License-Identifier: Apache-2.0
"""The records by which a feed handler tells tickpath what it did: for tickpath's own feed and for a team's own client.

A client of your own takes part with a few lines. The stamped socket writes what was read and when; the client adds
when it had each message, and what became of it:

    from time import monotonic_ns
    from tickpath.event import Resolution, Tier, Transport
    from tickpath.recorder import Recorder
    from tickpath.socket import StampedSocket, connect

    with Recorder(Path("/dev/shm/tickpath"), "btcusdt-trade") as recorder:
        tcp = connect("stream.example", 443, timeout_s=10)
        connection = recorder.open_connection(tcp, venue="example", feed="btcusdt-trade", stream="btcusdt@trade")
        sock = StampedSocket(tcp, connection)
        sock.start_tls(ssl.create_default_context(), "stream.example")
        ws = websocket.create_connection("wss://stream.example/ws/btcusdt@trade", socket=sock)
        connection.established(Transport.WSS13)
        while True:
            asked_ns = monotonic_ns()
            payload = ws.recv()
            received_ns = monotonic_ns()
            trade = parse(payload)
            parsed_ns = monotonic_ns()
            publish(trade)
            connection.message(
                sock.end, connection.messages, len(payload), trade.event_time_ns, Resolution.MS, None,
                max(asked_ns, sock.returned_ns), received_ns, parsed_ns, monotonic_ns(), Tier.A,
            )

Everything is written by one thread into a ring in shared memory; nothing here waits for a reader.
"""

from tickpath._recorder import ConnectionRecorder, Recorder

__all__ = ["ConnectionRecorder", "Recorder"]
