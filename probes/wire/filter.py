# SPDX-License-Identifier: Apache-2.0
"""The kernel-side filter: classic BPF that lets in TCP frames of the selected peers and nothing else.

Ports of a fragment, or behind IPv6 extension headers, are not looked for here: such frames pass when their address
does, and the probe decides. All loads count from the frame's start; loads relative to the network header would miss
frames whose driver keeps the headers outside the linear buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tickpath.errors import ConfigError
from tickpath.selector import Selector

MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# linux/bpf_common.h, linux/filter.h: class, size, mode and operation as one number.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30  # at a constant offset
_LOAD_WORD_X, _LOAD_HALF_X, _LOAD_BYTE_X = 0x40, 0x48, 0x50  # at X plus a constant
_LOAD_MEMORY, _STORE, _SET_X, _X_FROM_A = 0x60, 0x02, 0x01, 0x07
_AND, _SHIFT_LEFT, _SHIFT_RIGHT, _ADD_X = 0x54, 0x64, 0x74, 0x0C
_JUMP, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_ANY_BIT = 0x05, 0x15, 0x25, 0x45
_LOAD_LENGTH, _RETURN, _RETURN_A = 0x80, 0x06, 0x16
_PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE
_OUTGOING = 4

# The longest frame that comes in one piece: a jumbo frame. What is longer was merged, and whoever merged it has
# verified the checksums, or never left this host.
WHOLE_BYTES = 9216

_ETHERNET_BYTES, _TAG_BYTES, _TAGS = 14, 4, 2
_TAG_TYPES = (0x8100, 0x88A8, 0x9100)
_TCP = 6
_EXTENSIONS = (0, 43, 44, 51, 60)
_MAPPED = b"\0" * 10 + b"\xff\xff"
# Scratch memory: the source port, the words of the source address.
_PORT, _ADDRESS = 0, 1


class _Program:
    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}

    def add(self, code: int, k: int = 0) -> None:
        self._code.append((code, 0, 0, k))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def jump(self, label: str) -> None:
        self._code.append((_JUMP, 0, 0, label))

    def unless(self, code: int, k: int, skipped: int) -> None:
        """Leave the next `skipped` instructions out unless the comparison holds."""
        self._code.append((code, 0, skipped, k))

    def when_equal(self, k: int, label: str) -> None:
        self.unless(_JUMP_EQUAL, k, 1)
        self.jump(label)

    def encoded(self) -> bytes:
        if len(self._code) > MOST_INSTRUCTIONS:
            raise ConfigError("too many remotes for one filter; select by --port alone")
        return b"".join(
            struct.pack("=HBBI", code, jt, jf, self._labels[k] - at - 1 if isinstance(k, str) else k)
            for at, (code, jt, jf, k) in enumerate(self._code)
        )


def _words(address: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(address) // 4}I", address)


def _accept(program: _Program, wanted: Sequence[tuple[tuple[int, ...], int | None]]) -> None:
    """Accept where the words of the address (none: any) and the port (None: any) are as wanted; else return 0."""
    for words, port in wanted:
        # Each comparison that fails goes to the next candidate: past the rest of this one's instructions.
        left = 2 * len(words) + (2 if port is not None else 0) + 1
        for place, word in enumerate(words):
            program.add(_LOAD_MEMORY, _ADDRESS + place)
            left -= 2
            program.unless(_JUMP_EQUAL, word, left)
        if port is not None:
            program.add(_LOAD_MEMORY, _PORT)
            program.unless(_JUMP_EQUAL, port, 1)
        program.jump("accepted")
    program.add(_RETURN, 0)


def _accepted(program: _Program, snap_bytes: int) -> None:
    """Whole where the frame came in one piece, so that its checksum can be verified if nobody has; else its headers."""
    program.label("accepted")
    program.add(_LOAD_LENGTH)
    program.unless(_JUMP_ABOVE, WHOLE_BYTES, 1)
    program.add(_RETURN, snap_bytes)
    program.add(_RETURN_A)


def _ipv4(program: _Program, selectors: Sequence[Selector]) -> None:
    wanted = [
        (() if s.remote is None else _words(s.remote[12:]), s.port)
        for s in selectors
        if s.remote is None or s.remote.startswith(_MAPPED)
    ]
    program.label("ipv4")
    program.add(_LOAD_BYTE_X, 9)
    program.when_equal(_TCP, "ipv4 tcp")
    program.add(_RETURN, 0)
    program.label("ipv4 tcp")
    program.add(_LOAD_WORD_X, 12)
    program.add(_STORE, _ADDRESS)
    program.add(_LOAD_HALF_X, 6)
    program.unless(_JUMP_ANY_BIT, 0x3FFF, 1)  # more fragments, or an offset
    program.jump("ipv4 fragment")
    program.add(_LOAD_BYTE_X, 0)
    program.add(_AND, 15)
    program.add(_SHIFT_LEFT, 2)
    program.add(_ADD_X)
    program.add(_X_FROM_A)
    program.add(_LOAD_HALF_X, 0)
    program.add(_STORE, _PORT)
    _accept(program, wanted)
    program.label("ipv4 fragment")
    _accept(program, list(dict.fromkeys((words, None) for words, _ in wanted)))


def _ipv6(program: _Program, selectors: Sequence[Selector]) -> None:
    wanted = [
        (() if s.remote is None else _words(s.remote), s.port)
        for s in selectors
        if s.remote is None or not s.remote.startswith(_MAPPED)
    ]
    program.label("ipv6")
    for place in range(4):
        program.add(_LOAD_WORD_X, 8 + 4 * place)
        program.add(_STORE, _ADDRESS + place)
    program.add(_LOAD_BYTE_X, 6)
    program.when_equal(_TCP, "ipv6 tcp")
    for header in _EXTENSIONS:
        program.when_equal(header, "ipv6 extended")
    program.add(_RETURN, 0)
    program.label("ipv6 tcp")
    program.add(_LOAD_HALF_X, 40)
    program.add(_STORE, _PORT)
    _accept(program, wanted)
    program.label("ipv6 extended")
    _accept(program, list(dict.fromkeys((words, None) for words, _ in wanted)))


def compile_filter(selectors: Sequence[Selector], *, ethernet: bool, snap_bytes: int) -> bytes:
    """The program, struct sock_filter after struct sock_filter, that admits the selected peers' frames.

    Whole ones up to WHOLE_BYTES, of longer ones the first `snap_bytes`.
    `ethernet`: frames start with an Ethernet header and up to two VLAN tags; else with IP.
    ConfigError: too many remotes.
    """
    program = _Program()
    program.add(_LOAD_WORD, _PACKET_TYPE)
    program.unless(_JUMP_EQUAL, _OUTGOING, 1)
    program.add(_RETURN, 0)
    if ethernet:
        for tags in range(_TAGS + 1):
            offset = _ETHERNET_BYTES + tags * _TAG_BYTES
            program.add(_SET_X, offset)
            program.add(_LOAD_HALF, offset - 2)
            program.when_equal(0x0800, "ipv4")
            program.when_equal(0x86DD, "ipv6")
            if tags < _TAGS:
                for kind in _TAG_TYPES:
                    program.when_equal(kind, f"tag {tags}")
            program.add(_RETURN, 0)
            program.label(f"tag {tags}")
    else:
        program.add(_SET_X, 0)
        program.add(_LOAD_BYTE, 0)
        program.add(_SHIFT_RIGHT, 4)
        program.when_equal(4, "ipv4")
        program.when_equal(6, "ipv6")
        program.add(_RETURN, 0)
    _ipv4(program, selectors)
    _ipv6(program, selectors)
    _accepted(program, snap_bytes)
    return program.encoded()
