# SPDX-License-Identifier: Apache-2.0
"""Which peers a probe watches, as an operator writes them: HOST:PORT, [IPv6]:PORT, or a port alone."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tickpath.errors import ConfigError

DEFAULT_PORTS = (443, 9443, 18065)
"""Of a probe that is told nothing: the venues' and the simulator's."""

Remotes = Annotated[
    list[str],
    Meta(description="peer to watch, HOST:PORT; an address selects itself and the port, a name the port alone"),
]
"""The setting `remote` of every probe that selects connections."""

Ports = Annotated[
    list[Annotated[int, Meta(ge=1, le=65535)]],
    Meta(description="port of any peer to watch (443, 9443 and 18065 where neither remote nor port is given)"),
]
"""The setting `port` beside it."""


@dataclass(frozen=True)
class Selector:
    """What comes from `port` of `remote`: 16 bytes, IPv4 as ::ffff:a.b.c.d; None is any address."""

    port: int
    remote: bytes | None = None


@dataclass(frozen=True)
class Remote:
    """What `--remote` named: the selector for the filter, and addresses whose route tells the interface."""

    selector: Selector
    addresses: tuple[str, ...]


def packed(address: str) -> bytes:
    """An address as tables and records hold it; ValueError when it is none."""
    ip = ipaddress.ip_address(address)
    return b"\0" * 10 + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed


def parse_port(text: str) -> int:
    """A TCP port; ConfigError when it is none."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigError(f"port {text!r} is not a number from 1 to 65535")
    return int(text)


def parse_remote(text: str) -> Remote:
    """HOST:PORT to a selector; ConfigError when it is malformed or the name cannot be resolved.

    An address is filtered by address and port. A name is filtered by port alone: what it resolves to now need not be
    what the feed is given at its next connect, and a filter that misses a connection would do so in silence.
    """
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ConfigError(f"remote {text!r} is not HOST:PORT (IPv6 in brackets: [2001:db8::1]:443)")
    port = parse_port(port_text)
    host = host[1:-1] if bracketed else host
    try:
        return Remote(Selector(port, packed(host)), (host,))
    except ValueError:
        if bracketed:
            raise ConfigError(f"remote {text!r}: {host!r} is not an IPv6 address") from None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"remote {text!r} cannot be resolved ({error}); give its address, or --port {port}") from None
    return Remote(Selector(port), tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))


def selected(remotes: Sequence[str], ports: Sequence[int]) -> tuple[list[Selector], list[Remote]]:
    """What these two flags select together, without repetition, and the remotes resolved. ConfigError."""
    named = [parse_remote(text) for text in remotes]
    chosen = ports or (() if named else DEFAULT_PORTS)
    return list(dict.fromkeys([*(remote.selector for remote in named), *(Selector(port) for port in chosen)])), named
