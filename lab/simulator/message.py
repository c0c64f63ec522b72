# SPDX-License-Identifier: Apache-2.0
"""One market-data message as the simulator holds it: its bytes, and where in them its event times stand."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from tickpath.lab.simulator.config import EventTimes

_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"(\s*:\s*)?|[{}\[\]]')
_DIGITS = re.compile(rb"\d{13}(?:\d{3})?(?!\d)")
# Years of four digits that stay so when they are moved.
_ISO = re.compile(rb'"((?:19[7-9]|20\d|21\d)\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z"')
_EPOCH = datetime(1970, 1, 1)
_UNIT_NS = {13: 1_000_000, 16: 1_000}


class TimeField(NamedTuple):
    """A time in a message's bytes: `[begin, end)` without quotes, its value and unit (1000 ns for ISO text)."""

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
    depth = 0
    position = 0
    while match := _TOKEN.search(body, position):
        position = match.end()
        opening = match[0][:1]
        if opening in b"{[":
            depth += 1
        elif opening in b"}]":
            depth -= 1
        elif depth == 1 and match[2] is not None and match[1] in (b"E", b"T", b"time"):
            field = _time_at(match[1], body, position)
            if field is not None:
                found.append(field)
                position = field.end
                if len(found) == 2:
                    break
    return tuple(sorted(found, key=lambda field: (b"E", b"time", b"T").index(field.name)))


def _time_at(name: bytes, body: bytes, position: int) -> TimeField | None:
    if name != b"time":
        number = _DIGITS.match(body, position)
        if number is None:
            return None
        return TimeField(name, number.start(), number.end(), int(number[0]), _UNIT_NS[len(number[0])], False)
    text = _ISO.match(body, position)
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text[1].decode()) - _EPOCH
    except ValueError:
        return None
    return TimeField(name, text.start(1), text.end(1) + 1, since // timedelta(microseconds=1), 1_000, True)


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
