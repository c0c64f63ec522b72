# SPDX-License-Identifier: Apache-2.0
"""Messages as WebSocket frames (RFC 6455, 5.2), built byte by byte so that every offset is known."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

_FIN = 0x80
_CONTINUATION, _TEXT, _PING = 0x0, 0x1, 0x9


def header(first_byte: int, payload_bytes: int) -> bytes:
    """The header of a server's frame, which is never masked."""
    if payload_bytes < 126:
        return bytes((first_byte, payload_bytes))
    if payload_bytes < 1 << 16:
        return struct.pack("!BBH", first_byte, 126, payload_bytes)
    return struct.pack("!BBQ", first_byte, 127, payload_bytes)


def text(body: bytes) -> bytes:
    """One message in one frame."""
    return header(_FIN | _TEXT, len(body)) + body


def ping(payload: bytes) -> bytes:
    """A ping; its payload is at most 125 bytes."""
    return header(_FIN | _PING, len(payload)) + payload


def fragmented(body: bytes, fragments: int, between: Callable[[], bytes] | None = None) -> bytes:
    """One message in `fragments` frames, the bytes of `between()` (whole control frames) after each but the last."""
    parts = cut(body, fragments)
    frames = []
    for number, part in enumerate(parts):
        opcode = _TEXT if number == 0 else _CONTINUATION
        last = number == len(parts) - 1
        frames.append(header(opcode | (_FIN if last else 0), len(part)) + part)
        if between is not None and not last:
            frames.append(between())
    return b"".join(frames)


def cut(data: bytes, parts: int) -> list[bytes]:
    """`data` in `parts` pieces of about one size, none empty; fewer where it has fewer bytes."""
    parts = max(1, min(parts, len(data)))
    edges = [len(data) * number // parts for number in range(parts + 1)]
    return [data[begin:end] for begin, end in pairwise(edges)]
