# SPDX-License-Identifier: Apache-2.0
"""One market-data message as the simulator holds it: its bytes, and where in them its event times stand."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from tickpath.lab.simulator.config import EventTimes

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
# One member of an object: its name, and its value where that is neither object nor array.
_MEMBER = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*(?:(" + _STRING + rb"|[^\s\"{}\[\],]+)\s*,?|(?=[{\[]))", re.DOTALL)
_STRUCTURE = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_SEPARATOR = re.compile(rb"\s*,?")
_DIGITS = re.compile(rb"\d{13}(?:\d{3})?")
# Years of four digits that stay so when they are moved.
_ISO = re.compile(rb'"((?:19[7-9]|20\d|21\d)\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z"')
_EPOCH = datetime(1970, 1, 1)
_NAMES = (b'"E"', b'"time"', b'"T"')  # the reference first
_UNIT_NS = {13: 1_000_000, 16: 1_000}


class TimeField(NamedTuple):
    """A time in a message's bytes: quoted name, `[begin, end)` without quotes, value, unit (1000 ns for ISO text)."""

    name: bytes
    begin: int
    end: int
    value: int
    unit_ns: int
    iso: bool


class Message(NamedTuple):
    """`body` is the message without the wrapping of a combined stream.

    time_ns: when the recorder received it, nanoseconds of its realtime clock.
    stream:  its stream's name as recorded; empty where the venue gives none.
    times:   its event times, the reference (`E`, else `time`, else `T`) first.
    """

    time_ns: int
    stream: str
    body: bytes
    times: tuple[TimeField, ...]


def find_times(body: bytes) -> tuple[TimeField, ...]:
    """The event-time fields of a JSON object, at its top level only; the reference first.

    `E` and `T` count where they have 13 digits (milliseconds) or 16 (microseconds), `time` where it is ISO text.
    """
    found: list[TimeField] = []
    position = body.find(b"{") + 1
    while position and (member := _MEMBER.match(body, position)):
        position = member.end()
        name, value = member.groups()
        if value is None:
            position = _past(body, position)
        elif name in _NAMES and (field := _time(name, value, member.start(2))):
            found.append(field)
            if len(found) == 2:
                break
    found.sort(key=lambda field: _NAMES.index(field.name))
    return tuple(found)


def _past(body: bytes, position: int) -> int:
    """The position past the object or array that begins here, and past its comma."""
    depth = 0
    while token := _STRUCTURE.search(body, position):
        position = token.end()
        mark = body[token.start()]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth == 0:
                break
    separator = _SEPARATOR.match(body, position)
    return separator.end() if separator else position


def _time(name: bytes, value: bytes, begin: int) -> TimeField | None:
    if name != b'"time"':
        unit_ns = _UNIT_NS.get(len(value))
        if unit_ns is None or not _DIGITS.fullmatch(value):
            return None
        return TimeField(name, begin, begin + len(value), int(value), unit_ns, False)
    text = _ISO.fullmatch(value)
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text[1].decode()) - _EPOCH
    except ValueError:
        return None
    return TimeField(name, begin + 1, begin + len(value) - 1, since // timedelta(microseconds=1), 1_000, True)


def stamped(message: Message, mode: EventTimes, send_ns: int, exchange_delay_ns: int) -> bytes:
    """The body to send at realtime `send_ns`: event times moved as `mode` says, every other byte as it was.

    The reference field is cut down to its unit (the true time lies in [E, E + unit)); the others move by as much as it.
    """
    if mode is EventTimes.ORIGINAL or not message.times:
        return message.body
    reference = message.times[0]
    if mode is EventTimes.NOW:
        moved = (send_ns - exchange_delay_ns) // reference.unit_ns
    else:
        moved = (reference.value * reference.unit_ns + send_ns - message.time_ns) // reference.unit_ns
    by_ns = (moved - reference.value) * reference.unit_ns
    body = message.body
    # From the back, so that a number which gains or loses a digit does not move those before it.
    for field in sorted(message.times, key=lambda field: -field.begin):
        value = field.value + by_ns // field.unit_ns
        body = body[: field.begin] + (_iso(value) if field.iso else b"%d" % value) + body[field.end :]
    return body


def _iso(microseconds: int) -> bytes:
    return f"{(_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec='microseconds')}Z".encode()
