# SPDX-License-Identifier: Apache-2.0
"""An RTT taken apart by what the far end says: what it comes to, what is not known, and what is no such message."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pinging import COMMAND, answering, echo, run
from tickpath.event import PingSource, PingSplit
from tickpath.probes.ping._pinger import ASKS_TIMES, SPLIT_BYTES, read_times, split_of, write_times
from traffic import wait_until

UNKNOWN_NS = (1 << 63) - 1
UTC_NS = 1_795_000_000_000_000_000
HOST = 77
TURNS = st.integers(-1, 2**32 - 2)
BOUNDS = st.integers(0, 16 * 10**6).map(lambda us: us * 1000) | st.just(UNKNOWN_NS)
FARS = st.tuples(
    st.integers(1, 2**61 - 1),
    st.integers(0, 2**61 - 1),
    TURNS,
    TURNS,
    BOUNDS,
    st.integers(0, 2**32 - 1),
    st.integers(1, ASKS_TIMES - 1),
    st.sampled_from([PingSource.SW, PingSource.SOCK, PingSource.APP]),
)
NUMBERS = st.integers(0, 2**64 - 1)


# The message


@given(NUMBERS, NUMBERS, FARS)
def test_what_is_written_is_what_is_read(nonce: int, ordinal: int, far: Any) -> None:
    message = write_times(nonce, ordinal, far)
    assert len(message) == SPLIT_BYTES
    assert read_times(message, nonce) == (ordinal, far)


@given(st.binary(max_size=2 * SPLIT_BYTES), NUMBERS)
@example(b"", 0)
def test_other_bytes_are_no_such_message(message: bytes, nonce: int) -> None:
    with pytest.raises(OSError) as raised:  # its number is looked at
        read_times(message, nonce)
    assert raised.value.errno == errno.ENOENT


@given(FARS, st.data())
def test_a_message_that_was_changed_is_read_as_what_it_says_or_refused(far: Any, data: st.DataObject) -> None:
    message = bytearray(write_times(5, 6, far))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, SPLIT_BYTES - 1))] = data.draw(st.integers(0, 255))
    message = message[: data.draw(st.integers(0, SPLIT_BYTES))] if data.draw(st.booleans()) else message
    try:
        ordinal, said = read_times(bytes(message), 5)
    except OSError as refused:
        assert refused.errno in (errno.ENOENT, errno.EBADMSG)
    else:
        assert write_times(5, ordinal, said) == message


# What it comes to


@dataclass(frozen=True)
class Trip:
    """A round trip whose truth is known, by two clocks that are off by so much."""

    out_ns: int
    turn_ns: int
    back_ns: int
    here_off_ns: int
    there_off_ns: int

    @property
    def rtt_ns(self) -> int:
        return self.out_ns + self.turn_ns + self.back_ns

    def split(self, here_bound_ns: int, there_bound_ns: int, host: int = 0) -> tuple[int, int, int, int, int]:
        sent_ns, before_ns = UTC_NS + self.here_off_ns, 10**12
        near = (sent_ns, sent_ns + self.rtt_ns, before_ns, before_ns + self.rtt_ns, here_bound_ns, HOST)
        received_ns = UTC_NS + self.out_ns + self.there_off_ns
        far = (received_ns, before_ns + self.out_ns, self.turn_ns, -1, there_bound_ns, host, 1, PingSource.SW)
        return split_of(near, far)


WAYS = st.integers(0, 10**9)
OFFS = st.integers(-(10**9), 10**9)
TRIPS = st.builds(Trip, WAYS, WAYS, WAYS, OFFS, OFFS)


@given(TRIPS, st.integers(0, 10**9), st.integers(0, 10**9))
def test_each_way_is_as_true_as_the_clocks_are_said_to_be(trip: Trip, here: int, there: int) -> None:
    here_bound_ns, there_bound_ns = abs(trip.here_off_ns) + here, abs(trip.there_off_ns) + there
    why, path_ns, turn_ns, out_ns, bound_ns = trip.split(here_bound_ns, there_bound_ns)
    assert (path_ns, turn_ns) == (trip.out_ns + trip.back_ns, trip.turn_ns), "whatever the clocks say"
    assert bound_ns == here_bound_ns + there_bound_ns
    if bound_ns > trip.rtt_ns:
        assert (why, out_ns) == (PingSplit.TOO_WIDE, 0)
        return
    assert why == PingSplit.KNOWN
    assert abs(out_ns - trip.out_ns) <= bound_ns
    assert abs(path_ns - out_ns - trip.back_ns) <= bound_ns


@given(TRIPS, BOUNDS)
def test_a_clock_that_does_not_say_how_good_it_is_gives_no_way_alone(trip: Trip, bound_ns: int) -> None:
    both = trip.out_ns + trip.back_ns, trip.turn_ns, 0, UNKNOWN_NS
    assert trip.split(bound_ns, UNKNOWN_NS) == (PingSplit.FAR_UNBOUND, *both)
    if bound_ns != UNKNOWN_NS:
        assert trip.split(UNKNOWN_NS, bound_ns) == (PingSplit.NEAR_UNBOUND, *both)


@given(WAYS, WAYS, WAYS)
def test_one_clock_at_both_ends_needs_no_bound(out_ns: int, turn_ns: int, back_ns: int) -> None:
    found = Trip(out_ns, turn_ns, back_ns, 500, 500).split(UNKNOWN_NS, UNKNOWN_NS, HOST)
    assert found == (PingSplit.KNOWN, out_ns + back_ns, turn_ns, out_ns, 0)


def test_a_host_of_the_same_name_whose_clock_stood_elsewhere_is_another() -> None:
    """As of a virtual machine that was copied while it ran."""
    near = (UTC_NS, UTC_NS + 1000, 5000, 6000, UNKNOWN_NS, HOST)
    for monotonic_ns in (4999, 6001):
        far = (UTC_NS, monotonic_ns, 10, -1, UNKNOWN_NS, HOST, 1, PingSource.SW)
        assert split_of(near, far)[0] == PingSplit.FAR_UNBOUND
    nameless = (UTC_NS, 5500, 10, -1, UNKNOWN_NS, 0, 1, PingSource.SW)
    assert split_of((*near[:5], 0), nameless)[0] == PingSplit.FAR_UNBOUND


@pytest.mark.parametrize("turn_ns", [-1, 10**6 + 10**6 // 512 + 1002])
def test_a_turn_that_cannot_be_gives_nothing(turn_ns: int) -> None:
    near = (UTC_NS, UTC_NS + 10**6, 0, 10**6, 0, HOST)
    far = (UTC_NS, 5, turn_ns, -1, 0, HOST, 1, PingSource.SW)
    assert split_of(near, far) == (PingSplit.UNBELIEVED, 0, 0, 0, UNKNOWN_NS)


# The pinger, against servers of the test's own


def nonce_of(request: bytes) -> tuple[int, int]:
    return int.from_bytes(request[8:16], "little"), int.from_bytes(request[16:24], "little")


def answer(request: bytes, serial: int) -> bytes:
    return request[:5] + b"\2" + (ASKS_TIMES | serial).to_bytes(2, "little") + request[8:]


def far(**more: int) -> Any:
    said = {
        "received_ns": UTC_NS,
        "monotonic_ns": 0,
        "turn_ns": 0,
        "nic_turn_ns": -1,
        "bound_ns": UNKNOWN_NS,
        "host": 1,
        "serial": 9,
        "source": int(PingSource.APP),
    }
    return tuple((said | more).values())


def pings(answers: Callable[[bytes], list[bytes]], *more: str) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    with answering(answers) as port:
        code, lines, stderr = run(f"udp://127.0.0.1:{port}", "-c", "5", "-i", "0.01", "-W", "30", *more)
    assert code == 0, stderr
    assert lines[-1]["received"] == 5
    return [one for one in lines if one.get("result") == "split"], lines[-1], stderr


def test_a_far_clock_without_a_bound_leaves_both_ways_together() -> None:
    splits, totals, _ = pings(lambda request: [answer(request, 9), write_times(*nonce_of(request), far())])
    assert [one["seq"] for one in splits] == [1, 2, 3, 4, 5]
    for one in splits:
        assert (one["out_ns"], one["back_ns"], one["bound_ns"]) == (None, None, None)
        assert (one["unknown"], one["far_source"]) == ("the far host's clock is not synchronised", "app")
        assert one["path_ns"] > 0
    assert list(totals["ways"]) == ["path", "turn"]
    assert totals["ways"]["path"]["app"]["count"] == 5
    assert totals["unsplit"] == {"the far host's clock is not synchronised": 5}


@pytest.mark.parametrize(
    "answers",
    [
        lambda request: [request],  # any echo
        lambda request: [request[:5] + b"\2" + request[6:]],  # our own of before
    ],
)
def test_a_server_that_knows_of_no_times_gives_no_split_and_no_noise(answers: Callable[[bytes], list[bytes]]) -> None:
    splits, totals, stderr = pings(answers)
    assert (splits, totals["ways"], totals["unsplit"], stderr) == ([], {}, {}, "")


def test_what_is_said_of_another_answer_or_by_another_is_not_taken() -> None:
    def answers(request: bytes) -> list[bytes]:
        nonce, ordinal = nonce_of(request)
        right = write_times(nonce, ordinal, far())
        return [
            write_times(nonce ^ 1, ordinal, far()),
            write_times(nonce, 2**40, far()),
            right[:-1],
            right + b"x",
            right[:-4] + b"\0\0\0\0",  # no source
            answer(request, 9),
            write_times(nonce, ordinal, far(serial=8)),
        ]

    splits, totals, stderr = pings(answers, "--linger", "0.5")
    assert (splits, totals["unsplit"]) == ([], {})
    assert "10 replies to nothing" in stderr
    assert "15 replies damaged" in stderr


def test_times_that_come_before_their_answer_wait_for_it_and_count_once() -> None:
    def answers(request: bytes) -> list[bytes]:
        times = write_times(*nonce_of(request), far())
        return [times, answer(request, 9), times, answer(request, 9)]

    splits, totals, _ = pings(answers, "--linger", "2")
    assert [one["seq"] for one in splits] == [1, 2, 3, 4, 5]
    assert totals["duplicates"] == 5


def said(port: int) -> str:
    arguments = [*COMMAND, f"udp://127.0.0.1:{port}", "-c", "3", "-i", "0.01", "-W", "30"]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True).stdout


def test_an_operator_is_told_what_is_not_known() -> None:
    with answering(lambda request: [answer(request, 9), write_times(*nonce_of(request), far())]) as port:
        out = said(port)
    why = "each way alone not known: the far host's clock is not synchronised"
    assert sum(why in line for line in out.splitlines()) == 3
    assert "out and back alone not known 3 times: the far host's clock is not synchronised" in out


def test_an_operator_is_told_both_ways_and_what_they_are_worth() -> None:
    with echo() as served:
        out = said(served.port)
    lines = [line for line in out.splitlines() if " out=" in line]
    assert lines
    assert all("by one clock far end=" in line and " there=" in line for line in lines)
    summary = out[out.index("of which min/p50/p99/max in ms, source=") :].splitlines()
    assert summary[0].endswith(", each way by one clock")
    assert [line.partition(" = ")[0].strip() for line in summary[1:5]] == ["out and back", "far end", "out", "back"]
    assert all(len(line) <= 80 for line in summary[:5])


def test_times_are_asked_for_where_they_are_no_longer_than_the_ping() -> None:
    seen: list[int] = []

    def answers(request: bytes) -> list[bytes]:
        seen.append(int.from_bytes(request[6:8], "little"))
        return [request]

    for more, asked in (["-s", str(SPLIT_BYTES)], ASKS_TIMES), (["-s", str(SPLIT_BYTES - 1)], 0), (["--no-split"], 0):
        seen.clear()
        pings(answers, *more)
        assert set(seen) == {asked}


# The server, against pingers of the test's own


def test_the_server_says_no_more_than_it_was_asked() -> None:
    with echo() as served, socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.connect(("127.0.0.1", served.port))
        asking.settimeout(30)
        head = b"tpng\1\1"
        for times, size, told in [(ASKS_TIMES, SPLIT_BYTES, True), (0, SPLIT_BYTES, False), (ASKS_TIMES, 40, False)]:
            request = (head + times.to_bytes(2, "little") + bytes(range(16))).ljust(size, b"x")
            asking.send(request)
            got = asking.recv(2000)
            assert (len(got), got[5], got[8:]) == (size, 2, request[8:])
            serial = int.from_bytes(got[6:8], "little") - times
            assert (serial > 0) is told
            if told:
                nonce, ordinal = nonce_of(request)
                said_of, said = read_times(asking.recv(2000), nonce)
                assert (said_of, said[6]) == (ordinal, serial)
        wait_until(lambda: (served.answered, served.told) == (3, 1), "its counts")
        # Nothing else came: the answer to this one is the next.
        asking.send(head + b"\0\0" + bytes(16))
        assert len(asking.recv(2000)) == 24
