# SPDX-License-Identifier: Apache-2.0
"""A checksum that the kernel left to us is completed to what scapy makes of the same packet."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from native import compiled

_SOURCE = """
#include "dpdk_capture/partial.h"
bool complete(uint8_t *frame, uint32_t length, uint16_t start, uint16_t offset);
bool complete(uint8_t *frame, uint32_t length, uint16_t start, uint16_t offset) {
    return tp_partial_complete(frame, length, start, offset);
}
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("partial")
    (folder / "partial.c").write_text(_SOURCE)
    built = compiled(folder / "partial.so", [folder / "partial.c"], "-shared", "-fPIC")
    return ctypes.CDLL(str(built)).complete


def _pseudo_sum(ip: Any, protocol: int, length: int) -> int:
    packed = bytes(ip)
    addresses = packed[12:20] if ip.version == 4 else packed[8:40]
    total = sum(struct.unpack(f"!{len(addresses) // 2}H", addresses)) + protocol + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(
    version=st.sampled_from([4, 6]),
    tcp=st.booleans(),
    payload=st.binary(max_size=300),
    ports=st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
)
def test_what_is_completed_is_what_scapy_makes(
    complete: Any, version: int, tcp: bool, payload: bytes, ports: tuple[int, int]
) -> None:
    ip = IP(src="192.0.2.1", dst="198.51.100.7") if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::9")
    transport = TCP(sport=ports[0], dport=ports[1]) if tcp else UDP(sport=ports[0], dport=ports[1])
    whole = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / transport / payload)
    start, offset = 14 + (20 if version == 4 else 40), 16 if tcp else 6
    partial = bytearray(whole)
    left = _pseudo_sum(Ether(whole)[type(ip)], 6 if tcp else 17, len(whole) - start)
    struct.pack_into("!H", partial, start + offset, left)
    frame = (ctypes.c_uint8 * len(partial)).from_buffer(partial)
    assert complete(frame, len(partial), start, offset)
    if tcp and whole[start + offset : start + offset + 2] == b"\0\0":
        whole = whole[: start + offset] + b"\xff\xff" + whole[start + offset + 2 :]  # the same value of a sum
    assert bytes(partial) == whole


@given(length=st.integers(0, 64), start=st.integers(0, 65535), offset=st.integers(0, 65535))
def test_a_field_outside_the_frame_is_refused_and_nothing_is_written(
    complete: Any, length: int, start: int, offset: int
) -> None:
    guarded = bytearray(b"\xa5" * (length + 16))
    frame = (ctypes.c_uint8 * len(guarded)).from_buffer(guarded)
    inside = start + offset + 2 <= length
    assert bool(complete(frame, length, start, offset)) is inside
    assert guarded[length:] == b"\xa5" * 16
    if not inside:
        assert guarded[:length] == b"\xa5" * length
