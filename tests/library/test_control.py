# SPDX-License-Identifier: Apache-2.0
"""Everything that a datagram socket says beside its bytes is read whole, whatever lies around it, or refused."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickpath.errors import InputError
from tickpath.stamps import Control, ExtendedError, parse_control

HEADER = struct.Struct("@Nii")
ALIGN = struct.calcsize("@N")
MAPPED = b"\0" * 10 + b"\xff\xff"
NUMBER = st.integers(0, 2**32 - 1)
BYTE = st.integers(0, 255)
SECONDS = st.integers(1, 4_000_000_000)
NANOSECONDS = st.integers(0, 999_999_999)


def control(level: int, kind: int, payload: bytes) -> bytes:
    message = HEADER.pack(HEADER.size + len(payload), level, kind) + payload
    return message + bytes(-len(message) % ALIGN)


@st.composite
def errors(draw: st.DrawFn) -> tuple[bytes, ExtendedError]:
    """A message of either family, with who said so or without."""
    number, info, data = draw(NUMBER), draw(NUMBER), draw(NUMBER)
    origin, kind, code = draw(BYTE), draw(BYTE), draw(BYTE)
    payload = struct.pack("=IBBBxII", number, origin, kind, code, info, data)
    v6, who = draw(st.booleans()), bytes(16)
    if draw(st.booleans()):
        address = draw(st.binary(min_size=16, max_size=16))
        if v6:
            payload += struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address, 0)
            who = address
        else:
            payload += struct.pack("=HH4s8x", socket.AF_INET, 0, address[:4])
            who = MAPPED + address[:4]
    place = (socket.IPPROTO_IPV6, 25) if v6 else (socket.IPPROTO_IP, 11)
    return control(*place, payload), ExtendedError(number, origin, kind, code, info, data, who)


def noise(kinds: Sequence[tuple[int, int]]) -> st.SearchStrategy[bytes]:
    """A message that nobody asked for."""
    one = st.tuples(st.integers(0, 400), st.integers(0, 100), st.binary(max_size=60))
    return one.filter(lambda m: (m[0], m[1]) not in kinds).map(lambda m: control(*m))


KNOWN = [(1, 35), (1, 37), (1, 58), (1, 64), (1, 65), (0, 2), (0, 11), (41, 25), (41, 52)]


@settings(deadline=None)
@given(
    errors(),
    st.tuples(SECONDS, NANOSECONDS, SECONDS, NANOSECONDS),
    st.tuples(st.sampled_from([(0, 2), (41, 52)]), st.integers(0, 255), NUMBER),
    st.lists(noise(KNOWN), max_size=3),
    st.randoms(use_true_random=False),
)
def test_all_that_is_said_is_read_in_any_order(
    error: tuple[bytes, ExtendedError],
    stamped: tuple[int, int, int, int],
    said: tuple[tuple[int, int], int, int],
    others: list[bytes],
    random: object,
) -> None:
    sw, hw = stamped[:2], stamped[2:]
    hops_kind, hops, ifindex = said
    messages = [
        error[0],
        control(1, 65, struct.pack("=6q", *sw, 0, 0, *hw)),
        control(*hops_kind, struct.pack("=i", hops)),
        control(1, 58, struct.pack("=II8x", ifindex, 60)),
        *others,
    ]
    random.shuffle(messages)  # type: ignore[attr-defined]
    stamps = sw[0] * 10**9 + sw[1], hw[0] * 10**9 + hw[1]
    assert parse_control(b"".join(messages)) == Control(*stamps, ifindex, hops, error[1])


@pytest.mark.parametrize("kind", [35, 64])
def test_a_plain_stamp_is_the_software_one(kind: int) -> None:
    assert parse_control(control(1, kind, struct.pack("=2q", 5, 6))).sw_ns == 5_000_000_006
    assert parse_control(b"") == Control(0, 0, 0, None, None)


@settings(deadline=None)
@given(st.sampled_from(KNOWN), st.binary(max_size=12))
def test_messages_that_are_too_short_are_refused(place: tuple[int, int], payload: bytes) -> None:
    if (place in {(0, 2), (41, 52)} and len(payload) == 4) or (place == (1, 35) and len(payload) == 8):
        return
    with pytest.raises(InputError):
        parse_control(control(*place, payload))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_raise(noise: bytes) -> None:
    try:
        found = parse_control(noise)
    except InputError:
        return
    assert found.sw_ns >= 0
    assert found.hw_ns >= 0
