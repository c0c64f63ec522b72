# SPDX-License-Identifier: Apache-2.0
"""Venues: which URLs they take, what event times and sequence numbers mean, on made-up and on recorded messages."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickpath.errors import ConfigError, InputError
from tickpath.event import Resolution
from tickpath.probes.feed.venues import subscribe
from tickpath.probes.feed.venues.venue import Content, Reader

DATA = Path(__file__).parents[2].parent / "shared" / "data"
E = 1_760_000_000_123


def reader(url: str) -> Reader:
    return subscribe(url).reader()


def read(made: Reader, **fields: object) -> Reader:
    made.read(json.dumps(fields).encode())
    return made


@pytest.mark.parametrize(
    ("url", "venue", "streams"),
    [
        ("wss://fstream.binance.com/public/ws/btcusdt@depth", "binance-usdm", ("btcusdt@depth",)),
        ("wss://fstream.binance.com/market/stream?streams=a@trade/b@trade", "binance-usdm", ("a@trade", "b@trade")),
        ("wss://fstream.binance.com/private/ws/SeCrEtListenKey", "binance-usdm", ("private",)),
        ("wss://stream.binancefuture.com/ws/btcusdt@trade", "binance-usdm", ("btcusdt@trade",)),
        ("wss://dstream.binance.com/stream?streams=btcusd_perp@depth", "binance-coinm", ("btcusd_perp@depth",)),
        ("wss://stream.binance.com:9443/ws/btcusdt@trade", "binance-spot", ("btcusdt@trade",)),
        ("wss://data-stream.binance.vision/stream?streams=btcusdt@trade", "binance-spot", ("btcusdt@trade",)),
        ("ws://127.0.0.1:1/market/ws/btcusdt@trade", "binance-usdm", ("btcusdt@trade",)),
        ("ws://127.0.0.1:1/ws/btcusd_perp@trade", "binance-coinm", ("btcusd_perp@trade",)),
        ("ws://127.0.0.1:1/stream?streams=btcusdt@trade", "binance-spot", ("btcusdt@trade",)),
        ("ws://[::1]:1/stream?streams=btcusdt@trade", "binance-spot", ("btcusdt@trade",)),
        ("wss://ws-feed.example/level2", "generic", ("level2",)),
        ("wss://ws-feed.example", "generic", ("ws-feed.example",)),
    ],
)
def test_a_url_tells_its_venue_and_streams(url: str, venue: str, streams: tuple[str, ...]) -> None:
    subscription = subscribe(url)
    assert (subscription.venue, subscription.streams) == (venue, streams)


@pytest.mark.parametrize(
    ("url", "successors"),
    [
        ("wss://fstream.binance.com/ws/btcusdt@depth", ["wss://fstream.binance.com/public/ws/btcusdt@depth"]),
        (
            "wss://fstream.binance.com/stream?streams=btcusdt@bookTicker/btcusdt@aggTrade/btcusdt@depth5",
            [
                "wss://fstream.binance.com/public/stream?streams=btcusdt@bookTicker/btcusdt@depth5",
                "wss://fstream.binance.com/market/stream?streams=btcusdt@aggTrade",
                "two connections",
            ],
        ),
        ("wss://fstream.binance.com/ws", ["/public/ws/<stream>", "/market/ws/<stream>"]),
    ],
)
def test_a_retired_url_names_its_successor_in_one_line(url: str, successors: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        subscribe(url)
    said = str(caught.value)
    assert "\n" not in said
    assert all(successor in said for successor in successors), said


@pytest.mark.parametrize(
    "url",
    [
        "http://stream.binance.com/ws/a@trade",
        "wss:///ws/a@trade",
        "wss://stream.binance.com:99999/ws/a@trade",
        "wss://[::1/ws/a@trade",
        "wss://stream.binance.com/other",
        "wss://stream.binance.com/ws",
        "wss://stream.binance.com/stream?streams=",
        "wss://fstream.binance.com/elsewhere/ws/a@trade",
        "wss://user:secret@stream.binance.com/ws/a@trade",
        "wss://stream.binance.com/ws/a@trade\r\nX: y",
        "stream.binance.com/ws/a@trade",
        "",
    ],
)
def test_a_url_that_cannot_be_is_one_line(url: str) -> None:
    with pytest.raises(InputError) as caught:
        subscribe(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_venue_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"generic.*|binance-spot"):
        subscribe("wss://stream.binance.com/ws/a@trade", "binanse")


def test_streams_asked_for_after_connecting_are_the_subscriptions_too() -> None:
    subscription = subscribe("wss://stream.binance.com/ws", None, ("a@trade", "b@trade"))
    assert subscription.streams == ("a@trade", "b@trade")
    assert json.loads(subscription.greetings[0]) == {"method": "SUBSCRIBE", "params": ["a@trade", "b@trade"], "id": 1}


def test_a_misplaced_stream_is_warned_of() -> None:
    (warning,) = subscribe("wss://fstream.binance.com/public/ws/btcusdt@trade").warnings
    assert "/market" in warning


@pytest.mark.parametrize(
    ("status", "word"), [(403, "firewall"), (418, "banned"), (429, "rate limit"), (451, "country")]
)
def test_refusals_are_explained(status: int, word: str) -> None:
    said = subscribe("wss://stream.binance.com/ws/a@trade").refusal(status)
    assert said is not None
    assert word in said


def test_event_and_transaction_time_are_nanoseconds() -> None:
    got = read(reader("ws://h/market/ws/btcusdt@trade"), e="trade", E=E, T=E - 2, s="BTCUSDT", t=1)
    assert (got.exchange_ns, got.transaction_ns) == (E * 1_000_000, (E - 2) * 1_000_000)
    assert got.resolution == Resolution.MS
    assert got.topic == b"binance-usdm/btcusdt@trade"


def test_spot_gives_microseconds_when_asked_in_the_url() -> None:
    made = reader("ws://h/ws/btcusdt@trade?timeUnit=MICROSECOND")
    got = read(made, e="trade", E=E * 1000 + 7, T=E * 1000, s="BTCUSDT", t=1)
    assert got.exchange_ns == (E * 1000 + 7) * 1000
    assert got.resolution == Resolution.US


def test_streams_without_an_event_time_have_none() -> None:
    made = reader("ws://h/stream?streams=btcusdt@bookTicker/btcusdt@depth5")
    got = read(made, stream="btcusdt@bookTicker", data={"u": 1, "s": "BTCUSDT"})
    assert got.exchange_ns is None
    assert got.content is Content.EVENT
    got = read(made, stream="btcusdt@depth5", data={"lastUpdateId": 1, "bids": []})
    assert got.exchange_ns is None
    assert got.topic == b"binance-spot/btcusdt@depth5"


def test_the_t_of_a_mark_price_is_no_transaction_time() -> None:
    got = read(reader("ws://h/market/ws/btcusdt@markPrice"), e="markPriceUpdate", E=E, s="BTCUSDT", T=E + 10**7)
    assert got.exchange_ns == E * 1_000_000
    assert got.transaction_ns is None


@pytest.mark.parametrize("at", ["1760000000123", 1.76e12, True, -5, 0, 17, 2**63, [], {}, None])
def test_an_event_time_that_is_none_is_refused_not_guessed(at: object) -> None:
    made = reader("ws://h/market/ws/btcusdt@trade")
    with pytest.raises(ValueError, match="no time"):
        read(made, e="trade", E=at, T=E, s="BTCUSDT", t=1)
    assert made.exchange_ns is None


def test_trades_count_up_by_one() -> None:
    made = reader("ws://h/market/ws/btcusdt@trade")
    for number, gap in ((5, False), (6, False), (8, True), (9, False), (9, True)):
        assert bool(read(made, e="trade", E=E, T=E, s="BTCUSDT", t=number).gap) == gap


def test_spot_depth_goes_on_at_the_next_id() -> None:
    made = reader("ws://h/stream?streams=btcusdt@depth@100ms")
    for first, last, gap in ((5, 9, False), (10, 10, False), (12, 13, True), (14, 20, False)):
        assert bool(read(made, stream="btcusdt@depth@100ms", data={"E": E, "U": first, "u": last}).gap) == gap


def test_futures_depth_names_its_predecessor() -> None:
    made = reader("ws://h/public/stream?streams=btcusdt@depth@0ms")
    for before, last, gap in ((5, 9, False), (9, 30, False), (29, 40, True), (40, 41, False)):
        data = {"E": E, "T": E, "U": 1, "u": last, "pu": before}
        assert bool(read(made, stream="btcusdt@depth@0ms", data=data).gap) == gap


def test_two_streams_of_one_kind_do_not_look_torn_on_a_raw_connection() -> None:
    made = reader("ws://h/public/ws/btcusdt@depth/btcusdt@depth@500ms")
    for before, last in ((1, 2), (1, 2), (2, 3)):
        event = {"e": "depthUpdate", "E": E, "T": E, "s": "BTCUSDT", "U": 1, "u": last, "pu": before}
        assert read(made, **event).gap is None


def test_symbols_of_a_raw_connection_are_told_apart() -> None:
    made = reader("ws://h/market/ws/btcusdt@trade/ethusdt@trade")
    assert read(made, e="trade", E=E, T=E, s="BTCUSDT", t=1).topic == b"binance-usdm/btcusdt@trade"
    assert read(made, e="trade", E=E, T=E, s="ETHUSDT", t=90).gap is None
    assert made.topic == b"binance-usdm/ethusdt@trade"
    assert read(made, e="trade", E=E, T=E, s="BTCUSDT", t=2).gap is None


def test_a_reply_is_no_message_and_its_error_is_kept() -> None:
    made = reader("ws://h/market/ws/btcusdt@trade")
    assert read(made, result=None, id=1).content is Content.REPLY
    assert made.reply_error is None
    refused = read(made, error={"code": 2, "msg": "Invalid request"}, id=1)
    assert refused.content is Content.REPLY
    assert "Invalid request" in str(refused.reply_error)
    assert read(made, e="trade", E=E, T=E, s="BTCUSDT", t=1).content is Content.EVENT


@pytest.mark.parametrize("form", [{"e": "serverShutdown", "E": E}, {"event": {"e": "serverShutdown", "E": E}}])
def test_a_shutdown_is_announced(form: dict[str, object]) -> None:
    assert read(reader("ws://h/ws/btcusdt@trade"), **form).content is Content.SHUTDOWN
    made = reader("ws://h/stream?streams=btcusdt@trade")
    assert read(made, stream="btcusdt@trade", data={"e": "serverShutdown", "E": E}).content is Content.SHUTDOWN


KEY = st.sampled_from(
    ["stream", "data", "e", "E", "T", "s", "t", "u", "U", "pu", "id", "result", "error", "event", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=6),
    max_leaves=12,
)


@settings(deadline=None)
@example(b"-9223372036854775809")
@example(b'{"E":123456789012345678901234567890}')
@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)))
def test_no_message_does_more_than_raise_value_error(payload: bytes) -> None:
    for url in ("ws://h/market/ws/btcusdt@trade", "ws://h/public/stream?streams=x@depth/y@depth", "ws://h/any"):
        made = reader(url)
        for _ in range(2):
            try:
                made.read(payload)
            except ValueError:
                continue
            assert made.exchange_ns is None or 0 < made.exchange_ns < 2**63
            assert made.transaction_ns is None or 0 < made.transaction_ns < 2**63
        made.read(b'{"e":"trade"}')  # no proxy of the document before holds the parser


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not there")
@pytest.mark.parametrize(
    ("file", "url", "without"),
    [
        ("binance-usdm-btcusdt-20240808.ws.gz", "ws://h/market/stream?streams=x@trade", set()),
        ("binance-spot-btcusdt-20240808.ws.gz", "ws://h/stream?streams=x@trade", {b"binance-spot/btcusdt@bookTicker"}),
    ],
)
def test_recorded_feeds_have_times_and_no_gaps(file: str, url: str, without: set[bytes]) -> None:
    made = reader(url)
    topics: Counter[bytes] = Counter()
    timeless: set[bytes] = set()
    with gzip.open(DATA / file) as lines:
        for number, line in enumerate(lines):
            if number == 20_000:
                break
            made.read(line.rstrip(b"\n").partition(b" ")[2])
            assert made.gap is None
            topics[made.topic] += 1
            if made.exchange_ns is None:
                timeless.add(made.topic)
    assert len(topics) >= 3
    # The one REST snapshot in each recording names no stream and goes by the URL's.
    assert timeless - {b"binance-spot/x@trade", b"binance-usdm/x@trade"} == without
