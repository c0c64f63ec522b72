# SPDX-License-Identifier: Apache-2.0
"""What an operator can say to the pinger: section `ping` of the configuration, and the flags of `ping`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

DEFAULT_PORT = 18066
"""Of our own echo server."""


class PingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The same for all targets of one pinger."""

    targets: Annotated[
        list[str],
        Meta(description="of `probe ping`: what to ping, as [icmp|udp|tcp]://HOST:PORT, or HOST"),
    ] = []
    proto: Annotated[
        Literal["icmp", "udp", "tcp"], Meta(description="how, where a target does not say; udp wants an echo server")
    ] = "icmp"
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description=f"of targets that name none: udp (default {DEFAULT_PORT}) and tcp (default 443)"),
    ] = None
    interval: Annotated[
        float, Meta(ge=0.0001, le=86400, description="seconds from one ping of a target to the next")
    ] = 1.0
    jitter: Annotated[
        float, Meta(ge=0, le=1, description="part of the interval by which each is put off at random, planned ahead")
    ] = 0.25
    timeout: Annotated[float, Meta(gt=0, le=3600, description="seconds after which a ping counts as lost")] = 1.0
    size: Annotated[int, Meta(ge=24, le=65000, description="bytes of payload (icmp, udp)")] = 56
    interface: Annotated[
        str, Meta(description="interface to leave by, or address to leave from; the route's by default")
    ] = ""
    raw: Annotated[bool, Meta(description="ICMP by a raw socket, even where a ping socket could be had")] = False
    stamps: Annotated[
        bool, Meta(description="ask the kernel for stamps; without them the application's clock is used")
    ] = True
    split: Annotated[
        bool, Meta(description="udp: ask our own server for its times, to tell the way out from the way back")
    ] = True
    hardware: Annotated[bool, Meta(description="switch the NIC's stamps on meanwhile (needs CAP_NET_ADMIN)")] = False
    allow_link_reset: Annotated[
        bool, Meta(description="switch them on even where that resets the NIC's link (Amazon's ENA)")
    ] = False
    name: Annotated[
        str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="of the ring; two probes at once need two names")
    ] = "ping"
    capacity: Annotated[int, Meta(ge=16, le=1 << 26, description="records in the ring, a power of two")] = 1 << 14
