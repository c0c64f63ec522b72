# SPDX-License-Identifier: Apache-2.0
"""Sets up a pinger over a ring: its targets, what they may be refused for, and the thread that it runs in."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Sequence

import structlog

from tickpath.errors import ConfigError, NotHereError, PermissionMissingError, TickpathError
from tickpath.event import PingProto
from tickpath.probes.ping._pinger import LEAST_BYTES, MOST_BYTES, Pinger
from tickpath.probes.ping.config import PingConfig
from tickpath.probes.ping.target import Address, Target, parse_target, resolve
from tickpath.ring import RingWriter

# Late ones and duplicates are known as such for so long after the timeout, or for so many pings at least.
_REMEMBER_S = 10.0
_LEAST_SLOTS, _MOST_SLOTS = 1024, 1 << 16


def targets_of(texts: Sequence[str], config: PingConfig, family: socket.AddressFamily) -> list[Target]:
    """Every target, once. ConfigError."""
    if not texts:
        raise ConfigError("nothing to ping: name a target, HOST or udp://HOST:PORT or tcp://HOST:PORT")
    return list(dict.fromkeys(parse_target(text, config, family) for text in texts))


def slots(config: PingConfig) -> int:
    """How many pings are remembered per target: a power of two."""
    wanted = (config.timeout + _REMEMBER_S) / config.interval
    count = _LEAST_SLOTS
    while count < wanted and count < _MOST_SLOTS:
        count *= 2
    return count


def _source(config: PingConfig, target: Target) -> tuple[str, Address | None]:
    """(interface, source address) of `--interface`, which names one or the other."""
    if not config.interface or config.interface in [name for _, name in socket.if_nameindex()]:
        return config.interface, None
    try:
        family = socket.AF_INET if len(target.address) == 2 else socket.AF_INET6
        return "", resolve(config.interface, 0, family)
    except ConfigError:
        present = ", ".join(name for _, name in socket.if_nameindex())
        raise ConfigError(
            f"no interface {config.interface!r} here ({present}), nor an address to reach {target.name} from"
        ) from None


def _explained(error: OSError, target: Target, interface: str) -> TickpathError:
    if error.errno in (errno.EACCES, errno.EPERM) and target.proto is PingProto.ICMP:
        return PermissionMissingError(
            f"pinging {target.name} needs an ICMP socket; run: sudo sysctl net.ipv4.ping_group_range='0 2147483647', "
            "or give CAP_NET_RAW, or ping by udp:// or tcp://"
        )
    if error.errno == errno.EPERM and interface:
        return PermissionMissingError(f"leaving by {interface} needs CAP_NET_RAW; run as root")
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return NotHereError(f"{target.name} ({target.address[0]}) cannot be pinged from here: {reason}")
    return TickpathError(f"{target.name} ({target.address[0]}): {error.strerror}: {reason}")


def open_pinger(
    targets: Sequence[Target], config: PingConfig, ring: RingWriter, *, count: int = 0, linger_s: float = 0.0
) -> tuple[Pinger, dict[int, Target]]:
    """A pinger with its targets, by the row of each. TickpathError: one cannot be pinged from here at all."""
    if not LEAST_BYTES <= config.size <= MOST_BYTES:
        raise ConfigError(f"size {config.size} is not between {LEAST_BYTES} and {MOST_BYTES}")
    pinger = Pinger(ring, len(targets))
    interval_ns = round(config.interval * 1e9)
    rows = {}
    for place, target in enumerate(targets):
        interface, source = _source(config, target)
        try:
            row, raw, stamped = pinger.add(
                target.address,
                proto=target.proto,
                name=target.name,
                label=target.label,
                source=source,
                interface=interface,
                raw=config.raw,
                stamps=config.stamps,
                split=config.split,
                size_bytes=config.size,
                count=count,
                # Not all at once: they would wait for each other.
                first_ns=interval_ns * place // len(targets),
                interval_ns=interval_ns,
                jitter_ns=round(interval_ns * config.jitter),
                allowed_ns=round(config.timeout * 1e9),
                linger_ns=round(linger_s * 1e9),
                slots=slots(config),
            )
        except OSError as error:
            pinger.close()
            raise _explained(error, target, interface) from None
        rows[row] = target
        structlog.get_logger().debug("target", target=target.name, proto=target.label, raw=raw, stamps=stamped)
    return pinger, rows


class Running:
    """A pinger in a thread of its own."""

    def __init__(self, pinger: Pinger, stop_fd: int) -> None:
        self._ended: list[int] = []
        self._thread = threading.Thread(target=lambda: self._ended.append(pinger.run(stop_fd)), name="ping")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end. TickpathError: it failed."""
        self._thread.join()
        if self._ended and (number := self._ended[0]):
            if number == errno.ESTALE:
                raise TickpathError("the ring's file was cut short under the pinger; start it again")
            raise TickpathError(f"pinging failed: {os.strerror(number)}")
