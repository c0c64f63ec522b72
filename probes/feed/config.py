# SPDX-License-Identifier: Apache-2.0
"""The section [feed] of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class FeedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may say of a feed; what differs from feed to feed is given on its command line."""

    name: Annotated[
        Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,32}$")] | None,
        Meta(description="name in records and metrics; by default from the streams"),
    ] = None
    venue: Annotated[
        str | None, Meta(description="binance-usdm, binance-coinm, binance-spot or generic; by default from the URL")
    ] = None
    subscribe: Annotated[list[str], Meta(description="streams to ask for after connecting, beside the URL's own")] = (
        msgspec.field(default_factory=list)
    )
    publish: Annotated[str, Meta(description="ZeroMQ address to publish at, or none")] = "tcp://127.0.0.1:5555"
    high_water_mark: Annotated[int, Meta(ge=1, le=10_000_000, description="messages queued for a slow subscriber")] = (
        10_000
    )
    capacity: Annotated[int, Meta(ge=1, description="records that the ring keeps; a power of two")] = 1 << 16
    cafile: Annotated[Path | None, Meta(description="PEM certificates to trust instead of the host's")] = None
    reconnect: Annotated[bool, Meta(description="connect again whenever a connection ends")] = True
    backoff_first: Annotated[float, Meta(gt=0, description="seconds before the first further attempt, at most")] = 0.5
    backoff_longest: Annotated[float, Meta(gt=0, description="seconds to which that doubles, at most")] = 30.0
    connect_timeout: Annotated[float, Meta(gt=0, description="seconds for each step of connecting")] = 10.0
    idle_timeout: Annotated[float, Meta(gt=0, description="seconds of silence, pings too, that end a connection")] = (
        240.0
    )
    max_message_bytes: Annotated[int, Meta(ge=125, description="a longer message ends the connection")] = 64 << 20
    learn_irs: Annotated[
        Literal["auto", "off"], Meta(description="ask TCP_REPAIR for the initial sequence number, where permitted")
    ] = "auto"
    cpu: Annotated[Annotated[int, Meta(ge=0)] | None, Meta(description="core to pin the feed to")] = None
