# SPDX-License-Identifier: Apache-2.0
"""The feed in operation: what it counts, publishes and survives, and how each failure reads."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from feed_server import CLOSE, PING, PONG, Peer, Server, frame, make_certificate, server_context, serving
from ports import held_port
from tickpath.clock import StepWatch
from tickpath.errors import TickpathError
from tickpath.event import RECORD, Clock, Counter, Kind, MessageFlag, RowState
from tickpath.probes.feed import session
from tickpath.probes.feed.connection import ConnectError, ConnectSettings, tls_context
from tickpath.probes.feed.feed import Backoff, Feed, FeedSettings
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.subscribe import decode
from tickpath.probes.feed.venues import subscribe
from tickpath.recorder import Recorder
from tickpath.ring import RingReader


def trade(number: int) -> bytes:
    return (
        f'{{"e":"trade","E":{1_760_000_000_000 + number},"T":{1_760_000_000_000},"s":"BTCUSDT","t":{number}}}'.encode()
    )


def make(
    server: Server,
    recorder: Recorder,
    *,
    publisher: Publisher | None = None,
    every_second: Callable[[], None] = lambda: None,
    cafile: Path | None = None,
    connect: ConnectSettings | None = None,
    **settings: object,
) -> Feed:
    defaults = {"reconnect": False, "backoff_first_s": 0.01, "backoff_longest_s": 0.02}
    return Feed(
        subscribe(server.url()),
        FeedSettings("test", connect=connect or ConnectSettings(timeout_s=5), **(defaults | settings)),  # type: ignore[arg-type]
        recorder,
        publisher,
        context=tls_context(cafile),
        every_second=every_second,
    )


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(tmp_path, "test") as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent connection is looked at more often: no signal wakes a feed that runs in a thread."""
    monkeypatch.setattr(session, "TICK_S", 0.05)


def counters(recorder: Recorder) -> dict[Counter, int]:
    with RingReader(recorder.ring.path) as reader:
        return {counter: n for counter, n in reader.counters().items() if n}


def records(recorder: Recorder, kind: Kind) -> np.ndarray:
    out = np.zeros(1 << 16, RECORD)
    with RingReader(recorder.ring.path, from_start=True) as reader:
        out = out[: reader.read(out.view("u1"))]
    return out[out["kind"] == kind]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.005)


@contextmanager
def running(feed: Feed) -> Iterator[None]:
    """The feed in a thread, stopped at the end as a signal handler would."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            feed.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        feed.stop()
        thread.join(60)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_control_frames_and_replies_are_counted_and_are_no_messages(recorder: Recorder) -> None:
    answered: list[bytes] = []

    def script(peer: Peer, number: int) -> None:
        peer.accept()
        peer.message(b'{"result":null,"id":1}')
        peer.write(frame(b"are you there", PING))
        peer.write(frame(b"unasked", PONG))
        peer.message(trade(1))
        while not answered:
            answered.append(peer.read())
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    with serving(script) as server:
        make(server, recorder).run()
    assert answered[0][0] == 0x80 | PONG
    assert len(answered[0]) == 2 + 4 + len(b"are you there")
    assert counters(recorder) == {
        Counter.MESSAGES: 1,
        Counter.CONNECTS: 1,
        Counter.CONTROL_FRAMES: 3,
        Counter.REPLIES: 1,
    }
    assert records(recorder, Kind.MESSAGE)["message"]["ordinal"].tolist() == [0]


def test_a_message_that_is_no_json_is_counted_and_still_a_message(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        for payload in (trade(1), b'{"e":"trade","E":', b"\xff\xfe", b"", trade(2)):
            peer.message(payload)
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    publisher = Publisher("tcp://127.0.0.1:*", 100)
    with subscriber(publisher) as take, serving(script) as server:
        make(server, recorder, publisher=publisher).run()
        frames = [take() for _ in range(5)]
        ends = server.peer(0).ends
    publisher.close()
    assert counters(recorder)[Counter.MESSAGES] == 5
    assert counters(recorder)[Counter.PARSE_FAILED] == 3
    messages = records(recorder, Kind.MESSAGE)
    parsed = [bool(flags & MessageFlag.HAS_PARSED) for flags in messages["flags"]]
    assert parsed == [True, False, False, False, True]
    assert messages["message"]["end"].tolist() == ends
    assert [payload for _, payload, _ in frames] == [trade(1), b'{"e":"trade","E":', b"\xff\xfe", b"", trade(2)]


def await_subscription(publisher: Publisher, socket: zmq.Socket[bytes]) -> None:
    """Until what is published reaches this subscriber: nothing is kept for one that is still to come."""

    def arrived() -> bool:
        publisher.send(b"trial", b"", b"")
        return socket.poll(10) > 0

    until(arrived)


@contextmanager
def subscriber(publisher: Publisher) -> Iterator[Callable[[], list[bytes]]]:
    """A subscriber that has been seen to get what is published."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.setsockopt(zmq.RCVTIMEO, 30_000)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(publisher.address)
        await_subscription(publisher, socket)
        publisher.send(b"last trial", b"", b"")
        while socket.recv_multipart()[0] != b"last trial":
            pass
        yield socket.recv_multipart
    finally:
        socket.close(linger=0)
        context.term()


def test_what_is_published_is_the_message_and_its_record(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        for i in range(20):
            peer.message(trade(i))
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    publisher = Publisher("tcp://127.0.0.1:*", 100)
    with subscriber(publisher) as take, serving(script) as server:
        make(server, recorder, publisher=publisher).run()
        frames = [take() for _ in range(20)]
        ends = server.peer(0).ends
    publisher.close()
    messages = records(recorder, Kind.MESSAGE)
    assert (messages["flags"] & MessageFlag.HAS_PUBLISHED).all()
    for number, (topic, payload, record) in enumerate(frames):
        assert topic == b"binance-usdm/btcusdt@trade"
        assert payload == trade(number)
        published = decode(topic, payload, record)
        assert published is not None
        assert (published.ordinal, published.end) == (number, ends[number])
        assert published.received_ns == messages["time_ns"][number]
        assert published.exchange_ns == (1_760_000_000_000 + number) * 1_000_000
        (sent,) = np.frombuffer(record, RECORD)
        assert not sent["flags"] & MessageFlag.HAS_PUBLISHED
        assert sent["message"]["published_ns"] == 0


def test_what_a_full_queue_refuses_is_counted(recorder: Recorder) -> None:
    total = 3000

    def script(peer: Peer, number: int) -> None:
        peer.accept()
        for i in range(total):
            peer.message(trade(i).replace(b"BTCUSDT", b"x" * 20_000))
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    publisher = Publisher("tcp://127.0.0.1:*", 2)
    context = zmq.Context()
    lazy = context.socket(zmq.SUB)  # takes little in, and is never read until the end
    lazy.setsockopt(zmq.RCVHWM, 2)
    lazy.setsockopt(zmq.RCVBUF, 4096)
    lazy.setsockopt(zmq.SUBSCRIBE, b"")
    lazy.connect(publisher.address)
    got = 0

    def take() -> int:
        nonlocal got
        while lazy.poll(10):
            got += lazy.recv_multipart()[0] != b"trial"
        return got

    try:
        await_subscription(publisher, lazy)
        with serving(script) as server:
            make(server, recorder, publisher=publisher).run()
        dropped = counters(recorder)[Counter.PUBLISH_DROPPED]
        until(lambda: take() >= total - dropped)
        assert lazy.poll(100) == 0
    finally:
        lazy.close(linger=0)
        context.term()
        publisher.close()
    assert dropped > 0
    messages = records(recorder, Kind.MESSAGE)
    unpublished = np.count_nonzero((messages["flags"] & MessageFlag.HAS_PUBLISHED) == 0)
    assert unpublished == dropped
    assert got + dropped == total, "what was not dropped arrived"


def test_gaps_are_counted(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        for i in (1, 2, 4, 5, 9):
            peer.message(trade(i))
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    with serving(script) as server:
        make(server, recorder).run()
    assert counters(recorder)[Counter.FEED_GAPS] == 2


@pytest.mark.usefixtures("hasty")
def test_each_connection_has_a_row_and_ordinals_of_its_own(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        for i in range(number + 1):
            peer.message(trade(i))
        if number == 0:
            return  # closed without a word
        if number == 1:
            peer.write(frame(b"\x03\xe9", CLOSE))
            return
        if number == 2:
            peer.raw(b"\xf3\x00")  # reserved bits: no frame
        peer.drain()

    with serving(script) as server:
        feed = make(server, recorder, reconnect=True)
        with running(feed):
            until(lambda: len(server.peers) >= 4 and counters(recorder).get(Counter.MESSAGES, 0) >= 10)
    messages = records(recorder, Kind.MESSAGE)
    rows = list(dict.fromkeys(messages["row"].tolist()))
    assert len(rows) == 4
    for number, row in enumerate(rows):
        mine = messages[messages["row"] == row]["message"]
        assert mine["ordinal"].tolist() == list(range(number + 1))
        assert mine["end"].tolist() == server.peers[number].ends
    with RingReader(recorder.ring.path) as reader:
        known = [reader.row(row) for row in rows]
        assert [row["reconnects"] for row in known if row is not None] == [0, 1, 2, 3]
        assert {row["state"] for row in known if row is not None} == {RowState.CLOSED}
    assert counters(recorder)[Counter.CONNECTS] == 4
    assert counters(recorder)[Counter.PROTOCOL_ERRORS] == 1
    assert len(records(recorder, Kind.CLOSED)) == 4


@pytest.mark.usefixtures("hasty")
def test_a_first_connection_that_fails_is_tried_again(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        if number < 2:
            peer.accept(b"503 Service Unavailable")
            return
        peer.accept()
        peer.message(trade(1))
        peer.drain()

    with serving(script) as server, running(make(server, recorder, reconnect=True)):
        until(lambda: counters(recorder).get(Counter.MESSAGES, 0) == 1)
    assert counters(recorder)[Counter.CONNECT_FAILED] == 2
    assert counters(recorder)[Counter.CONNECTS] == 1
    assert len(records(recorder, Kind.CLOSED)) == 3, "a refused attempt has an end too"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (b"403 Forbidden", "403: Binance's firewall"),
        (b"429 Too Many Requests\r\nRetry-After: 7", "429: Binance's rate limit"),
        (b"451 Unavailable", "451: Binance does not serve"),
        (b"404 Not Found", "404: is this URL"),
        (b"302 Found\r\nLocation: wss://elsewhere/", "elsewhere"),
        (b"banana", "no WebSocket server"),
    ],
)
def test_a_refusal_at_the_handshake_is_one_line(status: bytes, words: str, recorder: Recorder) -> None:
    with serving(lambda peer, number: peer.accept(status)) as server, pytest.raises(ConnectError) as caught:
        make(server, recorder).run()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if b"Retry-After" in status:
        assert caught.value.retry_after_s == 7
    assert counters(recorder) == {Counter.CONNECT_FAILED: 1}


def test_what_will_not_change_ends_even_a_feed_that_reconnects(recorder: Recorder) -> None:
    with serving(lambda peer, number: peer.accept(b"451 Unavailable")) as server, pytest.raises(ConnectError):
        make(server, recorder, reconnect=True).run()


def test_a_held_port_is_one_line(recorder: Recorder) -> None:
    refused = "cannot connect to 127.0.0.1:{}: Connection refused"
    with held_port() as port, pytest.raises(ConnectError, match=refused.format(port)):
        Feed(
            subscribe(f"ws://127.0.0.1:{port}/ws/a@trade"),
            FeedSettings("test", reconnect=False),
            recorder,
            None,
            context=tls_context(None),
            every_second=lambda: None,
        ).run()


def test_a_server_that_never_answers_is_given_up(recorder: Recorder) -> None:
    with (
        serving(lambda peer, number: peer.drain()) as server,
        pytest.raises(ConnectError, match="did not answer in time"),
    ):
        make(server, recorder, connect=ConnectSettings(timeout_s=0.2)).run()


def test_a_host_without_an_address_is_one_line(recorder: Recorder) -> None:
    feed = Feed(
        subscribe("ws://no-such-host.invalid/ws/a@trade"),
        FeedSettings("test", reconnect=False),
        recorder,
        None,
        context=tls_context(None),
        every_second=lambda: None,
    )
    with pytest.raises(ConnectError, match=r"no-such-host.invalid cannot be resolved"):
        feed.run()


@pytest.mark.parametrize("case", ["unknown authority", "other name", "no tls", "old tls"])
def test_tls_that_fails_is_one_line(case: str, tmp_path: Path, recorder: Recorder) -> None:
    certificate, key = make_certificate(tmp_path, "other.example" if case == "other name" else "127.0.0.1")
    version = ssl.TLSVersion.TLSv1_2
    context = server_context(certificate, key, version)
    trusted = tls_context(None if case == "unknown authority" else certificate)
    words = {
        "unknown authority": "not accepted: self-signed certificate; an authority of your own is named with --cafile",
        "other name": "not accepted: IP address mismatch",
        "no tls": "no WebSocket server, or refused: not TLS: at stream offset 0",
        "old tls": "TLS with 127.0.0.1",
    }[case]
    if case == "old tls":
        trusted.minimum_version = ssl.TLSVersion.TLSv1_3

    def script(peer: Peer, number: int) -> None:
        if case == "no tls":
            peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.drain()

    with serving(script, None if case == "no tls" else context) as server, pytest.raises(ConnectError) as caught:
        Feed(
            subscribe(server.url().replace("ws://", "wss://")),
            FeedSettings("test", reconnect=False),
            recorder,
            None,
            context=trusted,
            every_second=lambda: None,
        ).run()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_message_too_long_ends_the_connection(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        peer.message(trade(1))
        if number == 0:
            peer.raw(b"\x81\x7f" + (100 * 1024 * 1024).to_bytes(8, "big") + b"{")
        else:
            for _ in range(3):
                peer.write(frame(b"x" * 4000, 1 if _ == 0 else 0, fin=False))
        peer.drain()

    with serving(script) as server:
        for _ in range(2):
            make(server, recorder, connect=ConnectSettings(timeout_s=5, max_message_bytes=10_000)).run()
    assert counters(recorder)[Counter.PROTOCOL_ERRORS] == 2
    assert counters(recorder)[Counter.MESSAGES] == 2


@pytest.mark.usefixtures("hasty")
def test_a_silent_connection_is_given_up(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept(then=trade(1))
        peer.drain()

    with serving(script) as server:
        began = time.monotonic()
        make(server, recorder, idle_timeout_s=0.3).run()
        assert time.monotonic() - began >= 0.3
    assert counters(recorder)[Counter.MESSAGES] == 1


@pytest.mark.usefixtures("hasty")
def test_stop_says_goodbye_and_closes_the_row(recorder: Recorder) -> None:
    goodbye: list[bytes] = []

    def script(peer: Peer, number: int) -> None:
        peer.accept()
        peer.message(trade(1))
        goodbye.append(peer.read())
        peer.write(frame(b"\x03\xe8", CLOSE))
        peer.drain()

    with serving(script) as server:
        with running(make(server, recorder, reconnect=True)):
            until(lambda: counters(recorder).get(Counter.MESSAGES, 0) == 1)
        until(lambda: bool(goodbye))
    assert goodbye[0][0] == 0x80 | CLOSE
    (closed,) = records(recorder, Kind.CLOSED)
    assert closed["connection"]["messages"] == 1
    assert len(server.peers) == 1


def test_clock_records_are_written_while_messages_come_and_while_none_do(recorder: Recorder) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.accept()
        peer.message(trade(1))
        peer.drain()

    with StepWatch() as watch, serving(script) as server:
        feed = make(server, recorder, every_second=lambda: recorder.record_clocks(watch))
        with running(feed):
            until(lambda: np.count_nonzero(records(recorder, Kind.CLOCK)["clock"] == Clock.REALTIME) >= 3)


def test_an_address_in_use_is_one_line() -> None:
    first = Publisher("tcp://127.0.0.1:*", 10)
    try:
        with pytest.raises(TickpathError, match="is in use: name another with --publish"):
            Publisher(first.address, 10)
        with pytest.raises(TickpathError, match="cannot publish at"):
            Publisher("nonsense", 10)
    finally:
        first.close()


def test_delays_double_to_their_limit_and_begin_again() -> None:
    backoff = Backoff(0.5, 4)
    steps = [backoff.next_s() for _ in range(6)]
    for delay, step in zip(steps, (0.5, 1, 2, 4, 4, 4), strict=True):
        assert step / 2 <= delay <= step
    backoff.reset()
    assert backoff.next_s() <= 0.5
