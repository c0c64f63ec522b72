# SPDX-License-Identifier: Apache-2.0
"""Recordings are read in each of their forms, and what is malformed is a counted skip."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tickpath.errors import InputError
from tickpath.lab.simulator.config import EventTimes, Venue
from tickpath.lab.simulator.message import find_times, stamped
from tickpath.lab.simulator.recording import Recording, parse_line

TRADE = b'{"e":"trade","E":1723161256322,"T":1723161256320,"s":"BTCUSDT","t":5,"p":"1.0"}'


def test_nanosecond_form_keeps_time_and_bytes() -> None:
    message = parse_line(b'1723161255088176367 {"stream":"btcusdt@trade","data":%b}\n' % TRADE)
    assert message is not None
    assert message.time_ns == 1723161255088176367
    assert message.stream == "btcusdt@trade"
    assert message.body == TRADE


def test_seconds_form_loses_nothing_to_floats() -> None:
    message = parse_line(b"1626916403.8469708: " + TRADE)
    assert message is not None
    assert message.time_ns == 1626916403_846970800


def test_seconds_without_fraction() -> None:
    message = parse_line(b"1626916403: " + TRADE)
    assert message is not None
    assert message.time_ns == 1626916403_000000000


@pytest.mark.parametrize(
    ("body", "stream"),
    [
        (b'{"e":"trade","s":"BTCUSDT"}', "btcusdt@trade"),
        (b'{"e":"depthUpdate","s":"BTCUSDT"}', "btcusdt@depth"),
        (b'{"u":4,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}', "btcusdt@bookTicker"),
        (b'{"lastUpdateId":4,"bids":[],"asks":[]}', ""),
        (b'{"type":"l2update","product_id":"BTC-USD"}', ""),
    ],
)
def test_stream_of_a_raw_recording_is_told_by_its_fields(body: bytes, stream: str) -> None:
    message = parse_line(b"1 " + body)
    assert message is not None
    assert (message.stream, message.body) == (stream, body)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"1723161255088176367",
        b"1723161255088176367 ",
        b'1723161255088176367 {"stream":"btcusdt@trade","data":{"E":1',
        b"1723161255088176367 [1,2]",
        b"-5 {}",
        b"99999999999999999999 {}",
        b"1e9: {}",
        b'1 {"a":"\xff"}',
        b'1 {"stream":5,"data":{}}',
        b"1 " + b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_malformed_lines_are_refused(line: bytes) -> None:
    assert parse_line(line) is None


@settings(max_examples=300)
@given(st.one_of(st.binary(), st.binary().map(lambda tail: b'1723161255088176367 {"E":17' + tail)))
@example(b'1 {"stream":"\\ud800","data":{}}')
@example(b'1 {"stream":"a","data":null}')
def test_no_bytes_raise(line: bytes) -> None:
    message = parse_line(line)
    if message is not None:
        json.loads(message.body)


leaves = st.sampled_from([None, True, 5, 1723161256322, 1723161256322123, 17231612563221, "E", '"E":1', "\\"])
json_values = leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.sampled_from(["E", "T", 'q"']), leaves)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["E", "T", "time", "data", "b", '"E":']), json_values, max_size=5))
def test_times_are_found_at_the_top_level_only(value: dict[str, object]) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    wanted = {
        b'"%b"' % name.encode(): value[name]
        for name in ("E", "T")
        if isinstance(value.get(name), int) and len(str(value[name])) in (13, 16) and value[name] is not True
    }
    found = {field.name: field.value for field in find_times(body) if field.name != b'"time"'}
    assert found == wanted
    for field in find_times(body):
        assert body[field.begin : field.end] == str(field.value).encode()


def _line(body: bytes, time_ns: int = 1723161255088176367) -> bytes:
    return b"%d %b" % (time_ns, body)


def test_event_times_now_are_the_sending_less_the_delay() -> None:
    message = parse_line(_line(TRADE))
    assert message is not None
    body = stamped(message, EventTimes.NOW, 1_800_000_000_123_456_789, 2_000_000)
    assert body == TRADE.replace(b"1723161256322", b"1800000000121").replace(b"1723161256320", b"1800000000119")


def test_event_times_recorded_keep_the_recorders_skew() -> None:
    message = parse_line(_line(TRADE))
    assert message is not None
    sent_ns = 1_800_000_000_123_456_789
    moved = json.loads(stamped(message, EventTimes.RECORDED, sent_ns, 2_000_000))
    # Recorded 1.234 s before its event time by a clock that was behind; so it looks when it is sent.
    assert moved["E"] == (sent_ns + 1723161256322_000_000 - 1723161255088176367) // 1_000_000
    assert moved["E"] * 1_000_000 > sent_ns + 1_200_000_000
    assert moved["E"] - moved["T"] == 2


def test_event_times_original_touch_no_byte() -> None:
    message = parse_line(_line(TRADE))
    assert message is not None
    assert stamped(message, EventTimes.ORIGINAL, 1_800_000_000_000_000_000, 0) == TRADE


def test_microseconds_stay_microseconds() -> None:
    message = parse_line(_line(b'{"E":1723161256322123,"T":1723161256322001}'))
    assert message is not None
    body = stamped(message, EventTimes.NOW, 1_800_000_000_123_456_789, 0)
    assert body == b'{"E":1800000000123456,"T":1800000000123334}'


def test_coinbase_time_is_moved_in_place() -> None:
    message = parse_line(b'1618677817.1: {"type":"ticker","time":"2021-04-17T16:43:30.244075Z","trade_id":8}')
    assert message is not None
    body = stamped(message, EventTimes.NOW, 1_800_000_000_123_456_789, 456_789)
    assert body == b'{"type":"ticker","time":"2027-01-15T08:00:00.123000Z","trade_id":8}'


@settings(max_examples=100)
@given(
    st.integers(1_500_000_000_000, 1_999_999_999_999),
    st.integers(-5000, 5000),
    st.integers(1_500_000_000, 1_999_999_999).map(lambda s: s * 1_000_000_000 + 7),
    st.sampled_from(EventTimes),
)
def test_moved_times_keep_their_distance_and_the_length(event: int, apart: int, send_ns: int, mode: EventTimes) -> None:
    source = b'{"a":"E","E":%d,"T":%d,"b":[["1","2"]]}' % (event, event + apart)
    message = parse_line(_line(source, 1_700_000_000_000_000_000))
    assert message is not None
    moved = stamped(message, mode, send_ns, 2_000_000)
    times = json.loads(moved)
    assert times["T"] - times["E"] == apart
    if len(str(times["T"])) == len(str(times["E"])) == 13:
        assert len(moved) == len(source)


def test_malformed_lines_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"garbage\n" + _line(TRADE) + b"\n\n5 {broken\n" + _line(TRADE) + b"\n")
    recording = Recording.read(path)
    assert (len(recording.messages), recording.skipped) == (2, 2)
    told = "".join(capsys.readouterr())
    assert f"{path}:1" in told
    assert f"{path}:4" in told


def test_only_the_first_malformed_lines_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mostly.txt"
    path.write_bytes(b"garbage\n" * 1000 + _line(TRADE))
    assert Recording.read(path).skipped == 1000
    assert len("".join(capsys.readouterr()).splitlines()) < 10


def test_gzip_is_seen_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(_line(TRADE) + b"\n"))
    assert [message.body for message in Recording.read(path).messages] == [TRADE]


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\x1f\x8bgarbage"])
def test_a_file_without_messages_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "useless"
    path.write_bytes(content)
    with pytest.raises(InputError, match="useless") as caught:
        Recording.read(path)
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"".join(_line(TRADE, n) + b"\n" for n in range(5000)))[:-20])
    with pytest.raises(InputError, match="cut"):
        Recording.read(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Recording.read(tmp_path / "nowhere")


def test_a_head_line_names_the_venue(tmp_path: Path) -> None:
    path = tmp_path / "head.txt"
    path.write_bytes(b"wss://dstream.binance.com/stream?streams=a <-> 1626916402.990619\n1626916403.8: " + TRADE)
    recording = Recording.read(path)
    assert (recording.venue, recording.skipped, len(recording.messages)) == (Venue.COINM, 0, 1)


@pytest.mark.parametrize(
    ("name", "venue", "messages"),
    [
        ("binance-usdm-btcusdt-20240808.ws.gz", Venue.USDM, 93_954),
        ("binance-spot-btcusdt-20240808.ws.gz", Venue.SPOT, 41_249),
        ("binance-coinm-20210722.ws.txt", Venue.COINM, 4_371),
        ("coinbase-20210417.ws.txt", Venue.COINBASE, 9_946),
    ],
)
def test_real_recordings_are_read_whole(real_data: Path, name: str, venue: Venue, messages: int) -> None:
    recording = Recording.read(real_data / name)
    assert (recording.venue, len(recording.messages), recording.skipped) == (venue, messages, 0)
    assert all(b.time_ns >= a.time_ns for a, b in zip(recording.messages, recording.messages[1:], strict=False))
