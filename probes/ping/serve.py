# SPDX-License-Identifier: Apache-2.0
"""`tickpath ping --serve`: the other end of UDP pings, until told to stop."""

from __future__ import annotations

import os
import socket

import structlog

from tickpath.errors import ConfigError, TickpathError
from tickpath.probes.ping._pinger import Echo
from tickpath.probes.ping.config import DEFAULT_PORT, PingConfig
from tickpath.probes.ping.target import resolve
from tickpath.stopping import stop_pipe


def _open(config: PingConfig, family: socket.AddressFamily | None) -> Echo:
    port = config.port or DEFAULT_PORT
    if config.interface:
        hosts = [config.interface]
    else:
        # The one takes both families, where there are both.
        hosts = ["0.0.0.0"] if family == socket.AF_INET else ["::"] if family == socket.AF_INET6 else ["::", "0.0.0.0"]
    for host in hosts:
        try:
            return Echo(resolve(host, port, family or socket.AF_UNSPEC))
        except OSError as error:
            if host == hosts[-1]:
                raise ConfigError(f"cannot serve at {host} port {port}: {error.strerror}") from None
    raise AssertionError("there is a host at least")


def serve(config: PingConfig, family: socket.AddressFamily | None) -> int:
    """Answer until SIGTERM or SIGINT, then 0. TickpathError."""
    stop_fd, _ = stop_pipe()
    echo = _open(config, family)
    log = structlog.get_logger()
    log.info("ready", port=echo.port)
    if error := echo.run(stop_fd):
        raise TickpathError(f"serving failed: {os.strerror(error)}")
    log.info("stopped", answered=echo.answered, told=echo.told, ignored=echo.ignored, unsent=echo.unsent)
    return 0
