# SPDX-License-Identifier: Apache-2.0
"""The reader of timestamp control messages: every form a kernel hands out, and nothing past the end of any bytes."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickpath.errors import InputError
from tickpath.socket import enable_stamps
from tickpath.stamps import CONTROL_BYTES, SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD, parse

HEADER = struct.Struct("@Nii")
ALIGN = struct.calcsize("@N")
SECONDS = st.integers(0, 4_000_000_000)
NARROW_SECONDS = st.integers(0, 2**31 - 1)
OTHER = st.tuples(st.integers(0, 400), st.integers(0, 100), st.binary(max_size=60))
NANOSECONDS = st.integers(0, 999_999_999)


def control(level: int, kind: int, payload: bytes) -> bytes:
    message = HEADER.pack(HEADER.size + len(payload), level, kind) + payload
    return message + bytes(-len(message) % ALIGN)


def wide(sw: tuple[int, int], hw: tuple[int, int], kind: int = SO_TIMESTAMPING_OLD) -> bytes:
    return control(socket.SOL_SOCKET, kind, struct.pack("=6q", *sw, 0, 0, *hw))


def narrow(sw: tuple[int, int], hw: tuple[int, int]) -> bytes:
    return control(socket.SOL_SOCKET, SO_TIMESTAMPING_OLD, struct.pack("=6i", *sw, 0, 0, *hw))


def ns(pair: tuple[int, int]) -> int:
    return pair[0] * 1_000_000_000 + pair[1]


@settings(deadline=None)
@given(st.tuples(SECONDS, NANOSECONDS), st.tuples(SECONDS, NANOSECONDS), st.sampled_from([37, 65]))
def test_the_64_bit_form_gives_software_and_raw_hardware(sw: tuple[int, int], hw: tuple[int, int], kind: int) -> None:
    assert parse(wide(sw, hw, kind)) == (ns(sw), ns(hw))


@settings(deadline=None)
@given(st.tuples(NARROW_SECONDS, NANOSECONDS), st.tuples(NARROW_SECONDS, NANOSECONDS))
def test_the_32_bit_form_gives_the_same(sw: tuple[int, int], hw: tuple[int, int]) -> None:
    assert parse(narrow(sw, hw)) == (ns(sw), ns(hw))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 100), st.binary(max_size=60)), max_size=4), st.integers(0, 4)
)
def test_messages_of_other_kinds_are_stepped_over(others: list[tuple[int, int, bytes]], place: int) -> None:
    around = [control(level, kind, payload) for level, kind, payload in others if (level, kind) not in STAMPS]
    around.insert(min(place, len(around)), wide((5, 6), (7, 8)))
    assert parse(b"".join(around)) == (5_000_000_006, 7_000_000_008)


STAMPS = {(socket.SOL_SOCKET, SO_TIMESTAMPING_OLD), (socket.SOL_SOCKET, SO_TIMESTAMPING_NEW)}


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_raise(noise: bytes) -> None:
    try:
        sw_ns, hw_ns = parse(noise)
    except InputError:
        return
    assert sw_ns >= 0
    assert hw_ns >= 0


@settings(deadline=None)
@given(st.integers(0, 63), st.integers(0, 2**64 - 1))
def test_a_length_that_cannot_be_is_refused(at: int, length: int) -> None:
    whole = wide((1, 2), (3, 4))
    damaged = struct.pack("@N", length) + whole[ALIGN:]
    if length == len(whole):
        return
    with pytest.raises(InputError):
        parse(damaged)
    if 16 <= at < len(whole):
        with pytest.raises(InputError):
            parse(whole[:at])


@pytest.mark.parametrize("pair", [(-1, 0), (0, -1), (0, 1_000_000_000), (2**62, 0)])
def test_what_is_no_time_counts_as_none(pair: tuple[int, int]) -> None:
    assert parse(wide(pair, (7, 8))) == (0, 7_000_000_008)


def test_nothing_is_nothing() -> None:
    assert parse(b"") == (0, 0)


def test_the_kernels_own_message_is_understood() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        enable_stamps(receiver)
        deadline = time.monotonic() + 60
        ancillary: list[tuple[int, int, bytes]] = []
        while not ancillary:  # work of the kernel's switches stamps on: later, where it is busy
            assert time.monotonic() < deadline, "no stamps"
            sender.sendto(b"x", receiver.getsockname())
            _, ancillary, _, _ = receiver.recvmsg(16, CONTROL_BYTES)
        sw_ns, hw_ns = parse(b"".join(control(*message) for message in ancillary))
    assert sw_ns > 1_700_000_000_000_000_000
    assert hw_ns == 0


def test_damaged_bytes_are_read_without_passing_their_end(sanitized: Callable[[str], Path]) -> None:
    program = sanitized("stamps_mutations.c")
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # looking for leaks wants ptrace, which containers forbid
    run = subprocess.run([program, "1000000"], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(int(count) > 10_000 for count in run.stdout.split()), f"not every result was reached: {run.stdout}"
    overread = subprocess.run([program, "overread"], env=env, capture_output=True, text=True, check=False)
    assert "heap-buffer-overflow" in overread.stderr
