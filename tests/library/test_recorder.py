# SPDX-License-Identifier: Apache-2.0
"""What the recorder writes is what it was told: rows, messages, wide messages, counters, its own beginning and end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickpath.errors import RingError
from tickpath.event import RECORD, Counter, Kind, MessageFlag, Resolution, RowState, Tier, Transport
from tickpath.recorder import ConnectionRecorder, Recorder
from tickpath.ring import RingReader

NOW = 10**15


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            yield near, far


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(tmp_path, "test", rows=4) as made:
        yield made


def opened(recorder: Recorder, sock: socket.socket, **fields: object) -> ConnectionRecorder:
    given_fields = {"venue": "venue", "feed": "feed", "stream": "a@trade"} | fields
    return recorder.open_connection(sock, **given_fields)  # type: ignore[arg-type]


def written(recorder: Recorder) -> np.ndarray:
    out = np.zeros(4096, RECORD)
    with RingReader(recorder.ring.path, from_start=True) as reader:
        return out[: reader.read(out.view("u1"))]


def one(recorder: Recorder, kind: Kind) -> np.void:
    (record,) = (r for r in written(recorder) if r["kind"] == kind)
    return record


def test_a_row_holds_what_the_kernel_and_the_client_know(recorder: Recorder, pair: tuple[socket.socket, ...]) -> None:
    near, _ = pair
    connection = opened(recorder, near, irs=0xFFFFFFFE, reconnects=7, stream="b@depth")
    connection.established(Transport.WSS13)
    with RingReader(recorder.ring.path) as reader:
        row = reader.row(connection.row)
        assert row is not None
        assert reader.counters()[Counter.CONNECTS] == 1
    mapped = bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.1")
    assert bytes(row["local"]) == bytes(row["remote"]) == mapped
    assert row["local_port"] == near.getsockname()[1]
    assert row["remote_port"] == near.getpeername()[1]
    assert row["cookie"] == connection.cookie == int.from_bytes(near.getsockopt(socket.SOL_SOCKET, 57, 8), "little")
    assert row["netns"] == os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - a magic link, not a path
    assert row["irs"] == 0xFFFFFFFE
    assert row["flags"] == 1
    assert row["reconnects"] == 7
    assert row["transport"] == Transport.WSS13
    assert bytes(row["venue"]).rstrip(b"\0") == b"venue"
    assert bytes(row["feed"]).rstrip(b"\0") == b"feed"
    assert bytes(row["stream"]).rstrip(b"\0") == b"b@depth"
    assert one(recorder, Kind.OPENED)["connection"]["cookie"] == connection.cookie


def test_ipv6_addresses_are_kept_whole(recorder: Recorder) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as near:
        connection = opened(recorder, near)
        with RingReader(recorder.ring.path) as reader:
            row = reader.row(connection.row)
    assert row is not None
    assert bytes(row["remote"]) == socket.inet_pton(socket.AF_INET6, "::1")


def test_a_label_too_long_ends_in_a_tilde_and_cuts_no_character(
    recorder: Recorder, pair: tuple[socket.socket, ...]
) -> None:
    connection = opened(recorder, pair[0], stream="s" * 118 + "éé", feed="f" * 32, venue="v" * 17)
    with RingReader(recorder.ring.path) as reader:
        row = reader.row(connection.row)
    assert row is not None
    assert bytes(row["stream"]).rstrip(b"\0").decode() == "s" * 118 + "~"
    assert bytes(row["feed"]) == b"f" * 32
    assert bytes(row["venue"]) == b"v" * 15 + b"~"


def test_a_message_is_written_as_differences(recorder: Recorder, pair: tuple[socket.socket, ...]) -> None:
    connection = opened(recorder, pair[0])
    connection.message(900, 3, 250, 5_000, Resolution.US, 4_000, NOW - 70, NOW, NOW + 500, NOW + 1_500, Tier.A)
    record = one(recorder, Kind.MESSAGE)
    message = record["message"]
    assert record["time_ns"] == NOW
    assert record["source"] == Tier.A
    assert record["row"] == connection.row
    everything = (
        MessageFlag.HAS_EXCHANGE
        | MessageFlag.HAS_TRANSACTION
        | MessageFlag.HAS_DECODE
        | MessageFlag.HAS_PARSED
        | MessageFlag.HAS_PUBLISHED
    )
    assert record["flags"] == everything | Resolution.US
    assert message.tolist() == (5_000, 900, 3, 250, 70, 500, 1_000, -1_000)
    assert connection.messages == 1


def test_what_is_not_known_is_not_flagged(recorder: Recorder, pair: tuple[socket.socket, ...]) -> None:
    connection = opened(recorder, pair[0])
    connection.message(900, 0, 250, None, Resolution.MS, 4_000, None, NOW, None, NOW + 9, Tier.B)
    record = one(recorder, Kind.MESSAGE)
    assert record["flags"] == MessageFlag.HAS_PUBLISHED
    assert record["message"].tolist() == (0, 900, 0, 250, 0, 0, 9, 0), "published then counts from received"


DIFFERENCE = st.one_of(st.integers(-(2**40), 2**40), st.sampled_from([-1, 0, 2**32 - 1, 2**32, 2**31, -(2**31)]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(differences=st.tuples(DIFFERENCE, DIFFERENCE, DIFFERENCE, DIFFERENCE), length=st.integers(0, 2**40))
def test_every_difference_comes_back_whole(
    recorder: Recorder, pair: tuple[socket.socket, ...], differences: tuple[int, int, int, int], length: int
) -> None:
    decode, parsed, published, transaction = differences
    connection = opened(recorder, pair[0])
    exchange = 1_760_000_000_000_000_000
    times = (NOW - decode, NOW, NOW + parsed)
    draft = connection.draft(8, 0, length, exchange, Resolution.MS, exchange + transaction, *times, Tier.A)
    connection.publish(NOW + parsed + published)
    connection.close()
    records = written(recorder)
    (at,) = np.flatnonzero((records["kind"] == Kind.MESSAGE) & (records["row"] == connection.row))
    narrow = (
        all(0 <= d < 2**32 for d in (decode, parsed, published)) and -(2**31) <= transaction < 2**31 and length < 2**32
    )
    assert bool(records[at]["flags"] & MessageFlag.WIDE) != narrow
    if narrow:
        message = records[at]["message"]
        got = tuple(int(message[f]) for f in ("length", "decode_ns", "parsed_ns", "published_ns", "transaction_ns"))
    else:
        assert records[at + 1]["kind"] == Kind.MESSAGE_WIDE
        assert records[at + 1]["row"] == connection.row
        assert records[at + 1]["time_ns"] == NOW
        got = tuple(records[at + 1]["wide"].tolist())
    assert got == (length, decode, parsed, published, transaction)
    sent = np.frombuffer(draft, RECORD)
    assert len(sent) == (2 if sent[0]["flags"] & MessageFlag.WIDE else 1)
    assert not sent[0]["flags"] & MessageFlag.HAS_PUBLISHED
    assert sent[0]["message"]["published_ns"] == 0


def test_a_draft_is_written_once_it_is_published_and_not_twice(
    recorder: Recorder, pair: tuple[socket.socket, ...]
) -> None:
    connection = opened(recorder, pair[0])
    connection.draft(1, 0, 1, None, Resolution.MS, None, None, NOW, NOW, Tier.A)
    assert Kind.MESSAGE not in written(recorder)["kind"]
    connection.publish(None)
    assert one(recorder, Kind.MESSAGE)["flags"] == MessageFlag.HAS_PARSED
    with pytest.raises(RingError, match="draft"):
        connection.publish(None)


def test_a_closed_connection_says_how_far_it_came_and_takes_no_more(
    recorder: Recorder, pair: tuple[socket.socket, ...]
) -> None:
    connection = opened(recorder, pair[0])
    connection.message(10, 0, 5, None, Resolution.MS, None, None, NOW, NOW, NOW, Tier.A)
    connection.close(10)
    connection.close(10)
    closed = one(recorder, Kind.CLOSED)
    assert closed["connection"]["bytes"] == 10
    assert closed["connection"]["messages"] == 1
    with RingReader(recorder.ring.path) as reader:
        row = reader.row(connection.row)
    assert row is not None
    assert row["state"] == RowState.CLOSED
    with pytest.raises(RingError, match="closed"):
        connection.message(11, 1, 5, None, Resolution.MS, None, None, NOW, NOW, NOW, Tier.A)


def test_nothing_is_written_after_the_recorder_was_closed(tmp_path: Path, pair: tuple[socket.socket, ...]) -> None:
    recorder = Recorder(tmp_path, "gone")
    connection = opened(recorder, pair[0])
    recorder.close()
    with pytest.raises(RingError):
        connection.message(11, 1, 5, None, Resolution.MS, None, None, NOW, NOW, NOW, Tier.A)
    with pytest.raises(RingError):
        recorder.count(Counter.MESSAGES)
    with pytest.raises(RingError):
        opened(recorder, pair[0])
    connection.close()


def test_counters_add_up_and_unknown_ones_are_refused(recorder: Recorder) -> None:
    recorder.count(Counter.FEED_GAPS)
    recorder.count(Counter.FEED_GAPS, 4)
    with RingReader(recorder.ring.path) as reader:
        assert reader.counters()[Counter.FEED_GAPS] == 5
    with pytest.raises(ValueError, match="counter"):
        recorder.count(64)  # type: ignore[arg-type]
