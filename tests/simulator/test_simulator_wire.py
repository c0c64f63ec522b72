# SPDX-License-Identifier: Apache-2.0
"""What a client gets, byte by byte: an independent reading of the stream finds what the simulator's log says."""

from __future__ import annotations

import dataclasses
import gc
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import websocket
from websockets.sync.client import connect

from simulator.naive_wire import Heard, Listener
from tickpath.errors import ConfigError
from tickpath.lab.simulator.config import (
    AtEnd,
    Coalesce,
    EventTimes,
    Faults,
    Garbage,
    KeyUpdate,
    Shape,
    SimulatorConfig,
    Venue,
)
from tickpath.lab.simulator.recording import Recording
from tickpath.lab.simulator.server import Simulator

PUBLIC = "/public/stream?streams=btcusdt@bookTicker/btcusdt@depth"
TLS = [None, "1.2", "1.3"]


def _config(recording: Path, **options: object) -> SimulatorConfig:
    plain = {"port": 0, "replay": recording, "speed": None, "keep_log": True, "linger_ns": 10_000_000_000}
    return SimulatorConfig(**(plain | options))  # type: ignore[arg-type]


def _hear(simulator: Simulator, path: str = PUBLIC, **options: bool) -> Heard:
    return Listener(simulator.port, path, simulator.ca_path, **options).read_all()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def _assert_log_is_exact(simulator: Simulator, heard: Heard) -> None:
    logged = [(entry.begin_offset, entry.end_offset, entry.payload_bytes) for entry in simulator.log]
    assert logged == [(begin, end, len(payload)) for begin, end, payload in heard.messages]
    assert [entry.ordinal for entry in simulator.log] == list(range(len(logged)))
    assert all(entry.sent_ns >= entry.planned_ns for entry in simulator.log)


def _expected(recording: Path, *kinds: str) -> list[bytes]:
    return [
        b'{"stream":"%b","data":%b}' % (message.stream.encode(), message.body)
        for message in Recording.read(recording).messages
        if any(kind in message.stream for kind in kinds)
    ]


SHAPES = [
    Shape(),
    Shape(coalesce=7),
    Shape(coalesce=7, coalesce_into=Coalesce.SEND),
    Shape(split=3),
    Shape(split=5, split_pause_ns=20_000),
    Shape(coalesce=4, split=3),
    Shape(fragments=3),
    Shape(fragments=4, ping_between=True),
    Shape(fragments=3, ping_between=True, coalesce=3, split=2),
    Shape(fragments=2, coalesce=5, coalesce_into=Coalesce.SEND),
]
SHAPES_OF_TLS_1_3 = [
    Shape(key_update=KeyUpdate.NOT_REQUESTED, key_update_every=3),
    Shape(key_update=KeyUpdate.REQUESTED, key_update_every=3),
    Shape(pad_bytes=1024),
    Shape(pad_bytes=4096, coalesce=5, fragments=2, key_update=KeyUpdate.REQUESTED, key_update_every=1),
]


@pytest.mark.parametrize(
    ("tls", "shape"),
    [(tls, shape) for tls in TLS for shape in SHAPES] + [("1.3", shape) for shape in SHAPES_OF_TLS_1_3],
    ids=str,
)
def test_every_byte_and_offset_is_as_logged(recording: Path, tls: str | None, shape: Shape) -> None:
    with Simulator(_config(recording, tls=tls, shape=shape, event_times=EventTimes.ORIGINAL)) as simulator:
        heard = _hear(simulator)
        _await(lambda: simulator.connections[0].closed is not None)
    assert [payload for _, _, payload in heard.messages] == _expected(recording, "bookTicker", "depth")
    _assert_log_is_exact(simulator, heard)
    assert heard.frames[-1] == 0x8
    summary = simulator.connections[0]
    assert summary.bytes == len(heard.stream)
    assert summary.payload_bytes == sum(len(payload) for _, _, payload in heard.messages)
    assert summary.pings == heard.frames.count(0x9)


def test_default_is_a_record_and_a_frame_per_message(recording: Path) -> None:
    with Simulator(_config(recording, tls="1.3", messages=50)) as simulator:
        heard = _hear(simulator)
    small = [entry for entry in simulator.log if entry.payload_bytes < 16_000]
    assert len({entry.end_offset for entry in small}) == len(small)
    assert heard.frames == [0x1] * 50 + [0x8]


def test_coalesced_messages_share_a_record(recording: Path) -> None:
    with Simulator(_config(recording, tls="1.3", messages=50, shape=Shape(coalesce=5))) as simulator:
        heard = _hear(simulator, "/public/ws/btcusdt@bookTicker")
    assert len(heard.messages) == 50
    assert len({entry.end_offset for entry in simulator.log}) == 10


def test_one_send_of_many_records(recording: Path) -> None:
    shape = Shape(coalesce=5, coalesce_into=Coalesce.SEND)
    with Simulator(_config(recording, tls="1.2", messages=50, shape=shape)) as simulator:
        _hear(simulator, "/public/ws/btcusdt@bookTicker")
    assert len({entry.end_offset for entry in simulator.log}) == 50
    assert len({entry.sent_ns for entry in simulator.log}) == 10


@pytest.mark.parametrize("tls", TLS)
def test_split_messages_arrive_in_parts(recording: Path, tls: str | None) -> None:
    shape = Shape(split=4, split_pause_ns=5_000_000)
    with Simulator(_config(recording, tls=tls, messages=40, shape=shape)) as simulator:
        heard = _hear(simulator, "/public/ws/btcusdt@bookTicker")
    # Without pauses they come in a few; with them a slow reader may still find many parts at once.
    assert len(heard.chunks) > 45
    if tls:
        assert len(heard.records) >= 160


def test_padding_hides_the_length(recording: Path) -> None:
    with Simulator(_config(recording, tls="1.3", messages=20, shape=Shape(pad_bytes=512))) as simulator:
        _hear(simulator, "/public/ws/btcusdt@bookTicker")
    # 5 bytes of header and 16 of tag around the padded text (RFC 8446, 5.2).
    assert {entry.end_offset - entry.begin_offset for entry in simulator.log} == {512 + 21}


def test_requested_key_updates_are_answered(recording: Path) -> None:
    # The client's answer is sealed with its new key: had the server missed it, Close could not be read.
    shape = Shape(key_update=KeyUpdate.REQUESTED, key_update_every=10)
    with Simulator(_config(recording, tls="1.3", shape=shape)) as simulator:
        heard = _hear(simulator)
        _await(lambda: simulator.connections[0].closed is not None)
    assert not heard.broken
    assert simulator.connections[0].closed == "the replay ended"


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("path", [PUBLIC, "/public/ws/btcusdt@bookTicker"])
def test_websocket_client_reads_everything(recording: Path, tls: str | None, path: str) -> None:
    with Simulator(_config(recording, tls=tls, event_times=EventTimes.ORIGINAL)) as simulator:
        options = {"ca_certs": str(simulator.ca_path)} if tls else {}
        client = websocket.create_connection(simulator.url + path, sslopt=options, timeout=30)
        messages = []
        while (frame := client.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
            messages.append(frame[1])
        client.close()
    if path == PUBLIC:
        assert messages == _expected(recording, "bookTicker", "depth")
    else:
        wanted = [m.body for m in Recording.read(recording).messages if "bookTicker" in m.stream]
        assert messages == wanted
    assert simulator.sent == len(messages)


@pytest.mark.parametrize("shape", [Shape(), Shape(fragments=3, ping_between=True), Shape(coalesce=3, split=4)], ids=str)
def test_websockets_reads_everything(recording: Path, shape: Shape) -> None:
    config = _config(recording, shape=shape, event_times=EventTimes.ORIGINAL)
    with Simulator(config) as simulator, connect(simulator.url + PUBLIC, compression=None) as client:
        messages = [message.encode() if isinstance(message, str) else message for message in client]
        assert client.close_code == 1000
    assert messages == _expected(recording, "bookTicker", "depth")


def test_compression_is_not_offered(recording: Path) -> None:
    with Simulator(_config(recording)) as simulator, connect(simulator.url + PUBLIC) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        assert list(client)


def test_pings_are_sent_and_pongs_checked(recording: Path) -> None:
    # Three intervals are given to answer a ping in: more than this thread may have to wait for its turn.
    config = _config(recording, at_end=AtEnd.HOLD, ping_interval_ns=300_000_000)
    with Simulator(config) as simulator:
        listener = Listener(simulator.port, PUBLIC)
        while simulator.connections == [] or simulator.connections[0].pongs < 3:
            assert listener.read_some()
        assert simulator.connections[0].unknown_pongs == 0
        listener.close()


def test_unanswered_pings_end_the_connection(recording: Path) -> None:
    config = _config(recording, at_end=AtEnd.HOLD, ping_interval_ns=20_000_000)
    with Simulator(config) as simulator:
        heard = _hear(simulator, pong=False)
        _await(lambda: simulator.connections[0].closed is not None)
        assert simulator.connections[0].closed == "pings stayed unanswered"
    assert heard.frames[-1] == 0x8


def test_subscriptions_by_request(recording: Path) -> None:
    with Simulator(_config(recording, at_end=AtEnd.HOLD)) as simulator:
        listener = Listener(simulator.port, "/market/ws")
        listener.request('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":7}')
        heard = listener.read_messages(1)
        assert heard.messages[0][2] == b'{"result":null,"id":7}'
        wanted = sum("trade" in message.stream for message in Recording.read(recording).messages)
        listener.read_messages(1 + wanted)
        listener.request("nonsense")
        listener.read_messages(2 + wanted)
        assert json.loads(heard.messages[-1][2])["error"]["code"] == 3
        assert simulator.connections[0].requests == 2
        assert simulator.sent == wanted
        listener.close()
        listener.read_all()
        _await(lambda: simulator.connections[0].closed == "the client closed with 1000")


def test_unsubscribed_streams_stop(recording: Path) -> None:
    with Simulator(_config(recording, speed=1)) as simulator:
        listener = Listener(simulator.port, "/public/ws/btcusdt@bookTicker")
        listener.read_messages(3)
        listener.request('{"method":"UNSUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}')
        heard = listener.read_all()
    acknowledged = next(at for at, message in enumerate(heard.messages) if b"result" in message[2])
    assert acknowledged == len(heard.messages) - 1


@pytest.mark.parametrize(
    ("path", "status"), [("/ws/btcusdt@trade", b"410"), ("/nowhere", b"404"), ("/public/nowhere", b"404")]
)
@pytest.mark.parametrize("tls", [None, "1.3"])
def test_wrong_paths_are_http_errors(recording: Path, path: str, status: bytes, tls: str | None) -> None:
    with Simulator(_config(recording, tls=tls)) as simulator:
        heard = _hear(simulator, path)
    assert heard.response.startswith(b"HTTP/1.1 " + status)
    assert simulator.sent == 0


@pytest.mark.parametrize("status", [403, 429, 451])
def test_handshakes_can_be_refused(recording: Path, status: int) -> None:
    with Simulator(_config(recording, faults=Faults(refuse_status=status))) as simulator:
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            websocket.create_connection(simulator.url + PUBLIC, timeout=30)
        assert caught.value.status_code == status


@pytest.mark.parametrize("tls", TLS)
def test_a_reset_comes_after_its_messages(recording: Path, tls: str | None) -> None:
    with Simulator(_config(recording, tls=tls, faults=Faults(abort_after=20))) as simulator:
        heard = _hear(simulator)
        _await(lambda: simulator.connections[0].closed is not None)
    assert heard.reset
    assert len(heard.messages) == 20
    _assert_log_is_exact(simulator, heard)


@pytest.mark.parametrize(
    ("tls", "garbage"),
    [(None, Garbage.FRAME), ("1.2", Garbage.FRAME), ("1.3", Garbage.FRAME), ("1.2", Garbage.TLS), ("1.3", Garbage.TLS)],
)
def test_garbage_comes_after_its_messages(recording: Path, tls: str | None, garbage: Garbage) -> None:
    with Simulator(_config(recording, tls=tls, faults=Faults(garbage_after=20, garbage=garbage))) as simulator:
        heard = _hear(simulator)
    assert heard.broken
    assert len(heard.messages) == 20
    _assert_log_is_exact(simulator, heard)


def test_garbage_json_is_one_message_among_good_ones(recording: Path) -> None:
    faults = Faults(garbage_after=20, garbage=Garbage.JSON)
    with Simulator(_config(recording, faults=faults)) as simulator:
        heard = _hear(simulator)
    bad = []
    for at, (_, _, payload) in enumerate(heard.messages):
        try:
            json.loads(payload)
        except ValueError:
            bad.append(at)
    assert bad == [20]
    assert len(heard.messages) == len(_expected(recording, "bookTicker", "depth")) + 1
    _assert_log_is_exact(simulator, heard)


@pytest.mark.parametrize("tls", TLS)
def test_a_huge_message_comes_first(recording: Path, tls: str | None) -> None:
    with Simulator(_config(recording, tls=tls, messages=3, faults=Faults(huge_bytes=3_000_000))) as simulator:
        heard = _hear(simulator)
    assert [len(payload) for _, _, payload in heard.messages][:1] == [3_000_000]
    assert json.loads(heard.messages[0][2])["e"] == "trade"
    assert len(heard.messages) == 3
    _assert_log_is_exact(simulator, heard)


def test_a_silent_exchange_sends_nothing(recording: Path) -> None:
    with Simulator(_config(recording, faults=Faults(silent=True), ping_interval_ns=300_000_000)) as simulator:
        listener = Listener(simulator.port, PUBLIC)
        while listener.heard.frames.count(0x9) < 2:
            assert listener.read_some()
        assert listener.heard.messages == []
        listener.close()


def test_event_times_are_now(recording: Path) -> None:
    with Simulator(_config(recording, messages=30, exchange_delay_ns=5_000_000)) as simulator:
        before_ns = time.time_ns()
        heard = _hear(simulator)
        after_ns = time.time_ns()
    for entry, (_, _, payload) in zip(simulator.log, heard.messages, strict=True):
        data = json.loads(payload)["data"]
        assert before_ns - 6_000_000 <= data["E"] * 1_000_000 <= after_ns - 5_000_000
        assert entry.payload_bytes == len(payload)


def test_kept_event_times_show_the_recorders_skew(real_data: Path) -> None:
    config = _config(real_data / "binance-usdm-btcusdt-20240808.ws.gz", messages=50, event_times=EventTimes.RECORDED)
    with Simulator(config) as simulator:
        heard = _hear(simulator)
    for entry, (_, _, payload) in zip(simulator.log, heard.messages, strict=True):
        if b'"stream"' not in payload:
            continue  # the REST snapshot that the recorder put in between
        # Received "before" it happened: the recorder's clock was 1.27 s behind.
        ahead_ns = json.loads(payload)["data"]["E"] * 1_000_000 - (time.time_ns() - time.monotonic_ns() + entry.sent_ns)
        assert 1_150_000_000 < ahead_ns < 1_300_000_000


def test_the_pace_is_the_recordings(recording: Path) -> None:
    with Simulator(_config(recording, speed=4, event_times=EventTimes.ORIGINAL)) as simulator:
        heard = _hear(simulator)
    messages = [m for m in Recording.read(recording).messages if "trade" not in m.stream]
    assert len(heard.messages) == len(messages)
    first = simulator.log[0]
    for entry, message in zip(simulator.log, messages, strict=True):
        # Exact: the plan is integer arithmetic.
        assert abs((entry.planned_ns - first.planned_ns) - (message.time_ns - messages[0].time_ns) / 4) <= 1
        assert entry.sent_ns >= entry.planned_ns


def test_each_connection_gets_the_whole_replay(recording: Path) -> None:
    with Simulator(_config(recording)) as simulator:
        first, second = _hear(simulator), _hear(simulator)
    assert len(first.messages) == len(second.messages) == len(_expected(recording, "bookTicker", "depth"))
    assert simulator.sent == 2 * len(first.messages)


def test_a_shared_clock_keeps_two_connections_together(recording: Path) -> None:
    with Simulator(_config(recording, speed=1, shared_clock=True)) as simulator:
        public = Listener(simulator.port, "/public/ws/btcusdt@bookTicker")
        public.read_messages(5)
        market = Listener(simulator.port, "/market/ws/btcusdt@trade")
        public.read_all()
        market.read_all()
    recorded = Recording.read(recording).messages
    origins = set()
    for number, kind in enumerate(("bookTicker", "trade")):
        of_kind = [message.time_ns for message in recorded if kind in message.stream]
        planned = [entry.planned_ns for entry in simulator.log if entry.connection == number]
        assert planned
        origins |= {plan - time_ns for plan, time_ns in zip(planned, of_kind[-len(planned) :], strict=True)}
    assert len(origins) == 1


def test_a_stop_closes_gracefully(recording: Path) -> None:
    simulator = Simulator(_config(recording, speed=1, at_end=AtEnd.HOLD)).start()
    listener = Listener(simulator.port, PUBLIC)
    listener.read_messages(3)
    stopper = threading.Thread(target=simulator.stop)
    stopper.start()
    heard = listener.read_all()
    stopper.join()
    assert heard.frames[-1] == 0x8
    _assert_log_is_exact(simulator, heard)
    assert simulator.connections[0].closed == "the simulator stops"


def test_a_client_that_stops_reading_does_not_hold_up_the_stop(recording: Path) -> None:
    # More than any kernel buffers: what is left of it cannot slip out after all while the simulator stops.
    faults = Faults(huge_bytes=64 << 20)
    config = SimulatorConfig(port=0, speed=None, keep_log=True, linger_ns=200_000_000, faults=faults)
    with Simulator(config) as simulator:
        listener = Listener(simulator.port, PUBLIC)
        last = (-1, 0.0)

        def stuck() -> bool:
            nonlocal last
            now = (simulator.connections[0].bytes if simulator.connections else 0, time.monotonic())
            if now[0] != last[0]:
                last = now
            return now[0] > 0 and now[1] - last[1] > 1.0

        _await(stuck)
    assert listener is not None  # it is open to the end: a client that is gone ends otherwise
    assert simulator.connections[0].closed == "the simulator stops; the client took no more bytes"
    # What the kernel took of a message that is not whole is no message.
    assert all(entry.end_offset <= simulator.connections[0].bytes for entry in simulator.log)
    listener.sock.close()


def test_generated_messages_need_no_file() -> None:
    with Simulator(SimulatorConfig(port=0, speed=None, messages=500, keep_log=True)) as simulator:
        heard = _hear(simulator)
    assert len(heard.messages) == 500
    _assert_log_is_exact(simulator, heard)


def test_coinbase_is_replayed_after_its_subscribe(real_data: Path) -> None:
    config = _config(real_data / "coinbase-20210417.ws.txt", event_times=EventTimes.ORIGINAL)
    with Simulator(config) as simulator:
        listener = Listener(simulator.port, "/")
        listener.request('{"type":"subscribe","product_ids":["BAND-GBP"],"channels":["level2"]}')
        heard = listener.read_all()
    assert [payload for _, _, payload in heard.messages] == [
        message.body for message in Recording.read(real_data / "coinbase-20210417.ws.txt").messages
    ]


@pytest.mark.parametrize("tls", [None, "1.3"])
def test_a_real_recording_goes_over_the_wire_unharmed(real_data: Path, tls: str | None) -> None:
    path = real_data / "binance-coinm-20210722.ws.txt"
    messages = Recording.read(path).messages
    wanted = [b'{"stream":"%b","data":%b}' % (m.stream.encode(), m.body) for m in messages]
    with Simulator(_config(path, tls=tls, event_times=EventTimes.ORIGINAL)) as simulator:
        heard = _hear(simulator, "/stream?streams=" + "/".join({message.stream for message in messages}))
    assert [payload for _, _, payload in heard.messages] == wanted
    # As recorded, to the byte.
    lines = path.read_bytes().splitlines()[1:]
    assert [line.partition(b": ")[2] for line in lines] == wanted
    _assert_log_is_exact(simulator, heard)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": Shape(pad_bytes=512)}, "TLS 1.3"),
        ({"tls": "1.2", "shape": Shape(key_update=KeyUpdate.REQUESTED)}, "TLS 1.3"),
        ({"speed": 0}, "speed"),
        ({"port": 70000}, "port"),
        ({"messages": 0}, "messages"),
        ({"tls": "1.1"}, "1.2 and 1.3"),
    ],
)
def test_contradictions_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(SimulatorConfig(venue=Venue.USDM), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tls", [None, "1.3"])
@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\x00" * 100,
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /public/ws HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ],
)
def test_what_is_no_handshake_ends_its_connection_alone(recording: Path, tls: str | None, noise: bytes) -> None:
    with Simulator(_config(recording, tls=tls, messages=5)) as simulator:
        with socket.create_connection(("127.0.0.1", simulator.port), timeout=30) as sock:
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
        _await(lambda: simulator.connections[0].closed is not None)
        assert len(_hear(simulator).messages) == 5


def test_a_client_that_trusts_nobody_is_told_apart(recording: Path) -> None:
    with Simulator(_config(recording, tls="1.3")) as simulator:
        with pytest.raises(ssl.SSLCertVerificationError):
            websocket.create_connection(simulator.url + PUBLIC, timeout=30)
        _await(lambda: simulator.connections[0].closed is not None)
        assert "TLS" in (simulator.connections[0].closed or "")


def test_an_unmasked_frame_is_a_protocol_error(recording: Path) -> None:
    with Simulator(_config(recording, at_end=AtEnd.HOLD)) as simulator:
        listener = Listener(simulator.port, "/public/ws")
        while not listener.heard.response:
            listener.read_some()
        listener.send(b"\x81\x02hi")
        heard = listener.read_all()
        _await(lambda: simulator.connections[0].closed is not None)
        assert "broke the protocol" in (simulator.connections[0].closed or "")
    assert heard.frames == [0x8]


@pytest.mark.parametrize("kind", KeyUpdate)
def test_key_updates_are_records_of_their_own(recording: Path, kind: KeyUpdate) -> None:
    def records(shape: Shape) -> int:
        with Simulator(_config(recording, tls="1.3", messages=50, shape=shape)) as simulator:
            heard = _hear(simulator, "/public/ws/btcusdt@bookTicker")
        at = count = 0
        while at < len(heard.stream):
            at += 5 + int.from_bytes(heard.stream[at + 3 : at + 5], "big")
            count += 1
        return count

    assert records(Shape(key_update=kind, key_update_every=10)) == records(Shape()) + 5


def test_a_log_that_cannot_be_written_is_counted(recording: Path) -> None:
    with Simulator(_config(recording, messages=20, log=Path("/dev/full"))) as simulator:
        assert len(_hear(simulator).messages) == 20
    assert simulator.summary().log_lost == 20


def test_nothing_is_left_behind(recording: Path) -> None:
    gc.collect()  # what other tests left to it must not go meanwhile
    before = set(Path("/proc/self/fd").iterdir()), threading.active_count()
    with Simulator(_config(recording, tls="1.3", messages=5)) as simulator:
        ca = simulator.ca_path
        _hear(simulator)
    assert ca is not None
    assert not ca.exists()
    assert (set(Path("/proc/self/fd").iterdir()), threading.active_count()) == before
