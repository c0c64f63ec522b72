# SPDX-License-Identifier: Apache-2.0
"""Message ends against the server's own account of its bytes: ws, wss 1.2 and 1.3, however the bytes were cut."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path

import numpy as np
import pytest

from feed_server import PING, Peer, Server, frame, make_certificate, server_context, serving
from tickpath.event import RECORD, Counter, Kind, ReadFlag, Transport
from tickpath.probes.feed.connection import tls_context
from tickpath.probes.feed.feed import Feed, FeedSettings
from tickpath.probes.feed.venues import subscribe
from tickpath.recorder import Recorder
from tickpath.ring import RingReader
from tickpath.socket import connect, learn_irs

TRANSPORTS = {"ws": Transport.WS, "TLSv1_2": Transport.WSS12, "TLSv1_3": Transport.WSS13}


def records_of(path: Path) -> np.ndarray:
    out = np.zeros(1 << 17, RECORD)
    with RingReader(path, from_start=True) as reader:
        taken = reader.read(out.view("u1"))
        assert reader.lost == 0
    return out[:taken]


def run_once(server: Server, recorder: Recorder, cafile: Path | None = None) -> None:
    settings = FeedSettings("test", reconnect=False)
    context = tls_context(cafile)
    Feed(subscribe(server.url()), settings, recorder, None, context=context, every_second=lambda: None).run()


def payload_of(rng: random.Random, number: int) -> bytes:
    padding = "x" * rng.choice([0, 1, 60, 130, 300, 2000, 20000, 70000] if number % 50 == 0 else [0, 1, 60, 130, 300])
    now = 1_760_000_000_000 + number
    return f'{{"e":"trade","E":{now},"T":{now - 1},"s":"BTCUSDT","t":{number},"p":"{padding}"}}'.encode()


def cut_at_random(rng: random.Random, messages: int) -> object:
    """A script that sends messages whole, coalesced, split, fragmented, and with pings between and inside."""

    def script(peer: Peer, number: int) -> None:
        peer.accept()
        count = 0
        while count < messages:
            way = rng.randrange(6)
            if way == 0:
                peer.message(payload_of(rng, count))
                count += 1
            elif way == 1:  # several in one write: under TLS they share a record, and its end
                held = [payload_of(rng, count + i) for i in range(rng.randint(2, 5))]
                send_together(peer, held, rng)
                count += len(held)
            elif way == 2:  # one over many writes: records, or segments
                payload = payload_of(rng, count)
                send_pieces(peer, frame(payload), rng)
                peer.note(payload)
                count += 1
            elif way == 3:  # fragments, a ping among them
                payload = payload_of(rng, count)
                cut = rng.randint(0, len(payload))
                peer.write(frame(payload[:cut], 1, fin=False))
                peer.write(frame(b"among", PING))
                peer.write(frame(payload[cut:], 0))
                peer.note(payload)
                count += 1
            elif way == 4:
                peer.write(frame(b"between", PING))
            else:  # a record cut into TCP segments
                payload = payload_of(rng, count)
                sealed = peer.seal(frame(payload))
                cut = rng.randint(0, len(sealed))
                peer.raw(sealed[:cut])
                peer.raw(sealed[cut:])
                peer.note(payload)
                count += 1
        peer.write(frame(b"\x03\xe8done", 8))
        peer.drain()

    return script


def send_together(peer: Peer, held: list[bytes], rng: random.Random) -> None:
    start = peer.sent
    together = b"".join(map(frame, held))
    if peer.tls is not None and len(together) > 16384:
        for payload in held:
            send_pieces(peer, frame(payload), rng)
            peer.note(payload)
        return
    peer.write(together)
    for payload in held:
        start += len(frame(payload))
        peer.ends.append(peer.sent if peer.tls is not None else start)
        peer.lengths.append(len(payload))


def send_pieces(peer: Peer, data: bytes, rng: random.Random) -> None:
    while data:
        size = rng.randint(1, 4000)
        peer.write(data[:size])
        data = data[size:]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_message_end_is_the_servers_own_to_the_byte(transport: str, tmp_path: Path) -> None:
    context, cafile = None, None
    if transport != "ws":
        cafile, key = make_certificate(tmp_path)
        context = server_context(cafile, key, getattr(ssl.TLSVersion, transport))
    rng = random.Random(transport)
    with serving(cut_at_random(rng, 600), context) as server:
        with Recorder(tmp_path, "ends") as recorder:
            run_once(server, recorder, cafile)
            path = recorder.ring.path
        peer = server.peer(0)
        records = records_of(path)
        messages = records[records["kind"] == Kind.MESSAGE]
        assert messages["message"]["end"].tolist() == peer.ends
        assert messages["message"]["length"].tolist() == peer.lengths
        assert messages["message"]["ordinal"].tolist() == list(range(len(peer.ends)))
        reads = records[records["kind"] == Kind.READ]["read"]
        assert reads["from"][0] == 0
        assert (reads["from"][1:] == reads["to"][:-1]).all(), "reads are one unbroken stream"
        assert reads["to"][-1] == records[records["kind"] == Kind.CLOSED]["connection"]["bytes"][0]
        with RingReader(path) as reader:
            (row,) = reader.rows().values()
            assert row["transport"] == TRANSPORTS[transport]
            assert reader.counters()[Counter.MESSAGES] == len(peer.ends)
            assert reader.counters()[Counter.CONNECTS] == 1
            assert reader.counters()[Counter.PARSE_FAILED] == 0


def test_stamps_stand_in_their_order(tmp_path: Path) -> None:
    with serving(cut_at_random(random.Random(1), 100)) as server, Recorder(tmp_path, "order") as recorder:
        run_once(server, recorder)
        records = records_of(recorder.ring.path)
    reads = records[records["kind"] == Kind.READ]
    assert (reads["read"]["asked_ns"] <= reads["time_ns"].astype("u8")).all()
    assert (reads["read"]["sw_ns"][1:] > 0).all(), "the kernel's own stamp comes with every read"
    assert (reads["flags"] & ReadFlag.DRAINED).all()
    last = 0
    for record in records[records["kind"] == Kind.MESSAGE]:
        message = record["message"]
        read = reads[(reads["read"]["from"] < message["end"]) & (message["end"] <= reads["read"]["to"])]
        assert len(read) == 1
        decode_began = record["time_ns"] - message["decode_ns"]
        assert decode_began >= read["time_ns"][0], "decoding cannot begin before the bytes were there"
        assert decode_began >= last, "nor before the message before it was done"
        last = record["time_ns"] + message["parsed_ns"]
        assert message["exchange_ns"] == (1_760_000_000_000 + int(message["ordinal"])) * 1_000_000
        assert message["transaction_ns"] == -1_000_000


def test_the_initial_sequence_number_is_the_kernels(tmp_path: Path) -> None:
    with serving(lambda peer, n: peer.drain()) as server:
        tcp = connect("127.0.0.1", server.port, 5)
        try:
            irs = learn_irs(tcp)
        except PermissionError:
            pytest.skip("TCP_REPAIR needs CAP_NET_ADMIN")
        tcp.sendall(b"still a connection")
        before = learn_irs(tcp)
        assert before == irs
        server.peer(0).raw(b"x" * 1000)
        received = b""
        while len(received) < 1000:
            received += tcp.recv(1000)
        assert learn_irs(tcp) == irs, "bytes that came meanwhile are taken off"
        assert tcp.gettimeout() == 5
        tcp.shutdown(socket.SHUT_WR)
        tcp.close()
