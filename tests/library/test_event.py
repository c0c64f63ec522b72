# SPDX-License-Identifier: Apache-2.0
"""C, Cython and numpy agree on every byte of a record and a row."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tickpath import _event, event

HEADER = Path(__file__).parents[2] / "tickpath" / "event.h"
STRUCTS = {
    "tp_message": ("message", event.RECORD["message"]),
    "tp_message_wide": ("wide", event.RECORD["wide"]),
    "tp_read": ("read", event.RECORD["read"]),
    "tp_segment": ("segment", event.RECORD["segment"]),
    "tp_interval": ("interval", event.RECORD["interval"]),
    "tp_connection": ("connection", event.RECORD["connection"]),
    "tp_connect": ("connect", event.RECORD["connect"]),
    "tp_clock_reading": ("reading", event.RECORD["reading"]),
    "tp_ping": ("ping", event.RECORD["ping"]),
    "tp_row": ("row", event.ROW),
}


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def _fields(struct: str) -> list[str]:
    body = re.search(rf"struct {struct} \{{(.*?)^\}};", _without_comments(HEADER.read_text()), re.S | re.M)
    assert body
    names = re.findall(r"(\w+)(?:\[\w+\])?;", body.group(1))
    return [name for name in names if name != "reserved"]


@pytest.fixture(scope="module")
def offsets(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, int]]:
    """Offsets and sizes as a C compiler of its own sees them."""
    folder = tmp_path_factory.mktemp("abi")
    lines = [
        f'printf("{s} {f} %zu %zu\\n", offsetof(struct {s}, {f}), sizeof(((struct {s} *)0)->{f}));'
        for s in STRUCTS
        for f in _fields(s)
    ]
    source = folder / "abi.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {" ".join(lines)} return 0; }}')
    subprocess.run(["cc", "-std=gnu11", "-o", folder / "abi", source], check=True)
    output = subprocess.run([folder / "abi"], check=True, capture_output=True, text=True).stdout
    words = [line.split() for line in output.splitlines()]
    return {(s, f): (int(offset), int(size)) for s, f, offset, size in words}


@pytest.mark.parametrize("struct", STRUCTS)
def test_numpy_has_every_field_where_c_has_it(struct: str, offsets: dict[tuple[str, str], tuple[int, int]]) -> None:
    dtype = STRUCTS[struct][1]
    assert dtype.fields is not None
    assert set(dtype.fields) == set(_fields(struct))
    for name, entry in dtype.fields.items():
        assert (entry[1], entry[0].itemsize) == offsets[struct, name], name


def test_the_enums_hold_every_number_of_the_header() -> None:
    text = _without_comments(HEADER.read_text())
    declared = {
        name: int(value, 0) for name, value in re.findall(r"\b(TP_[A-Z0-9_]+)\s*=\s*(0x[0-9a-fA-F]+|\d+)", text)
    }
    prefixes = {
        event.Kind: "TP_KIND_",
        event.Clock: "TP_CLOCK_",
        event.Source: "TP_SOURCE_",
        event.Tier: "TP_TIER_",
        event.MessageFlag: "TP_MESSAGE_",
        event.Resolution: "TP_RESOLUTION_",
        event.ReadFlag: "TP_READ_",
        event.SegmentFlag: "TP_SEGMENT_",
        event.ConnectResult: "TP_CONNECT_",
        event.PingResult: "TP_PING_",
        event.PingSource: "TP_PING_SOURCE_",
        event.PingProto: "TP_PING_PROTO_",
        event.PingFlag: "TP_PING_",
        event.PingSplit: "TP_PING_SPLIT_",
        event.ClockFlag: "TP_CLOCK_",
        event.RowState: "TP_ROW_",
        event.Transport: "TP_TRANSPORT_",
        event.RowFlag: "TP_ROW_",
        event.Counter: "TP_COUNT_",
    }
    in_python = {prefix + member.name: int(member) for cls, prefix in prefixes.items() for member in cls}
    not_members = {"TP_COUNTERS", "TP_MESSAGE_RESOLUTION_MASK"}
    assert in_python == {name: value for name, value in declared.items() if name not in not_members}


def test_sizes_are_those_of_the_header() -> None:
    assert event.RECORD.itemsize == event.RECORD_BYTES == 64
    assert event.ROW.itemsize == event.ROW_BYTES == 256
    assert _event.BODY_OFFSET + _event.BODY_BYTES == 64


def test_bodies_overlap_and_the_header_does_not() -> None:
    record = np.zeros(1, event.RECORD)
    record["message"]["end"] = 2**64 - 1
    assert record["read"]["to"][0] == 2**64 - 1
    assert all(record[name][0] == 0 for name in ("seq", "kind", "clock", "source", "flags", "row", "time_ns"))
