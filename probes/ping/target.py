# SPDX-License-Identifier: Apache-2.0
"""What to ping, as an operator writes it: HOST, HOST:PORT, [IPv6]:PORT, with icmp://, udp:// or tcp:// before it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from tickpath.errors import ConfigError
from tickpath.event import PingProto
from tickpath.probes.ping.config import DEFAULT_PORT, PingConfig
from tickpath.selector import parse_port

Address = tuple[str, int] | tuple[str, int, int, int]
"""Numeric, as getaddrinfo gives it for IPv4 and IPv6."""

_PORTS = {PingProto.UDP: DEFAULT_PORT, PingProto.TCP: 443}
_TARGET = re.compile(r"(?:(?P<proto>[a-z]+)://)?(?:\[(?P<inside>[^\]]*)\]|(?P<host>[^\[\]]*?))(?::(?P<port>[^:]*))?")


@dataclass(frozen=True)
class Target:
    """`name` is what was written, without the protocol; `address` is numeric, as getaddrinfo gives it."""

    name: str
    host: str
    proto: PingProto
    address: Address

    @property
    def label(self) -> str:
        """The protocol's name."""
        return self.proto.name.lower()


def parse_target(text: str, config: PingConfig, family: socket.AddressFamily = socket.AF_UNSPEC) -> Target:
    """A target, its name resolved once. ConfigError: malformed, or nobody knows the name."""
    name = text.partition("://")[2] if "://" in text else text
    try:
        # An IPv6 address may be written bare: its colons are no port's.
        host, port, proto = str(ipaddress.ip_address(name)), None, text[: -len(name)].removesuffix("://")
    except ValueError:
        found = _TARGET.fullmatch(text)
        host = (found["inside"] or found["host"] or "") if found else ""
        if not found or not host:
            raise ConfigError(f"target {text!r} is not HOST, HOST:PORT or [IPv6]:PORT") from None
        port, proto = found["port"], found["proto"] or ""
    kind = _proto(proto or config.proto, text)
    if kind is PingProto.ICMP and port is not None:
        raise ConfigError(f"target {text!r}: ICMP has no ports; write udp://{name} or tcp://{name}")
    number = parse_port(port) if port is not None else _PORTS.get(kind, 0) and (config.port or _PORTS[kind])
    return Target(name, host, kind, resolve(host, number, family))


def _proto(name: str, text: str) -> PingProto:
    try:
        return PingProto[name.upper()]
    except KeyError:
        raise ConfigError(f"target {text!r}: {name!r} is not one of icmp, udp, tcp") from None


def resolve(host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> Address:
    """The first address of a host. ConfigError where it has none (of that family)."""
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot resolve {host!r}: {reason}") from None
    address: Address = found[0][4]  # type: ignore[assignment] # of an Internet family
    return address
