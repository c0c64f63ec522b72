# SPDX-License-Identifier: Apache-2.0
"""A small netlink client: attributes in both directions, rtnetlink's links, and generic netlink families by name."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from tickpath.errors import InputError

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x01, 0x04, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = struct.Struct("=BBH")  # genlmsghdr: command, version, reserved
_RECEIVE_BYTES = 1 << 17

# The controller of generic netlink (linux/genetlink.h).
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 16, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2


def _padded(size: int) -> int:
    return (size + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + bytes(_padded(size) - size)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes that `data` consists of, by type; the last of a type counts. InputError: a length cannot be."""
    found = {}
    at = 0
    # Less than a header may be left as padding.
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size or at + size > len(data):
            raise InputError(f"netlink attribute of {size} bytes where {len(data) - at} are left")
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += _padded(size)
    return found


def unsigned(data: bytes) -> int:
    """The number of 1, 2, 4 or 8 bytes in this machine's order. InputError: another length."""
    if len(data) not in (1, 2, 4, 8):
        raise InputError(f"a netlink number of {len(data)} bytes")
    return int.from_bytes(data, "little" if struct.pack("=H", 1)[0] else "big")


def text(data: bytes) -> str:
    """A zero-terminated name."""
    return data.split(b"\0")[0].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel: what follows its header."""

    kind: int
    body: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The messages in what one receive returned.

    OSError: one of them says what failed; InputError: a length cannot be. Acknowledgements are left out.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            raise InputError(f"netlink message of {size} bytes where {len(data) - at} are left")
        body = data[at + _HEADER.size : at + size]
        at += _padded(size)
        if kind in (_NLMSG_ERROR, _NLMSG_DONE):
            error = -int.from_bytes(body[:4], "little" if struct.pack("=H", 1)[0] else "big", signed=True)
            if error > 0:
                raise OSError(error, os.strerror(error))
        yield Message(kind, body)


class Netlink:
    """A socket of one netlink protocol, in the network namespace of the thread that makes it. Close it (or `with`)."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0

    def ask(self, kind: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        """Send one request; the bodies of the answers. OSError: what the kernel refused it with."""
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_DUMP if dump else 0)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        answers: list[bytes] = []
        while True:
            for message in messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return answers
                answers.append(message.body)

    def close(self) -> None:
        """Twice is harmless."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Generic:
    """One family of generic netlink. Raises OSError ENOENT where the kernel has no such family."""

    def __init__(self, family: str) -> None:
        self._netlink = Netlink(NETLINK_GENERIC)
        try:
            name = attribute(_CTRL_ATTR_FAMILY_NAME, family.encode() + b"\0")
            found = self._ask(_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, name)
            self._id = unsigned(found[_CTRL_ATTR_FAMILY_ID])
        except BaseException:
            self.close()
            raise

    def _ask(self, kind: int, command: int, body: bytes) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for answer in self._netlink.ask(kind, _GENERIC.pack(command, 1, 0) + body):
            found |= attributes(answer[_GENERIC.size :])
        return found

    def ask(self, command: int, body: bytes) -> dict[int, bytes]:
        """The attributes of the answer to one command; none where there is only an acknowledgement. Raises OSError."""
        return self._ask(self._id, command, body)

    def close(self) -> None:
        """Twice is harmless."""
        self._netlink.close()

    def __enter__(self) -> Generic:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
