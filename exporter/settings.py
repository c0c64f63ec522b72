# SPDX-License-Identifier: Apache-2.0
"""What the exporter can be told: section [exporter] of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tickpath.errors import ConfigError

DEFAULT_LISTEN = "127.0.0.1:18064"


class ExporterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section [exporter]."""

    listen: Annotated[str, Meta(description="HOST:PORT to serve on")] = DEFAULT_LISTEN
    match: Annotated[
        Literal["offset", "socket", "window"],
        Meta(description="the least exact way of matching that histograms take; all are counted"),
    ] = "offset"
    web_config_file: Annotated[
        Path | None,
        Meta(description="TLS and passwords, as Prometheus's exporter-toolkit has them; also --web.config.file"),
    ] = None
    window_ms: Annotated[
        int, Meta(ge=1, le=60_000, description="how long a message waits for its stamps, in milliseconds")
    ] = 1000


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT` or `:PORT` (all addresses). Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    numeric = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    if not colon or (":" in host and not bracketed) or not numeric:
        raise ConfigError(f"listen address {text!r} is not HOST:PORT, such as {DEFAULT_LISTEN} or [::1]:18064")
    return host or "0.0.0.0", int(port)
