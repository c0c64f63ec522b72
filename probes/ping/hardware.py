# SPDX-License-Identifier: Apache-2.0
"""The NICs that pings leave and come back by, told to stamp while the pinger runs, where an operator asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from tickpath.errors import NotHereError
from tickpath.hardware import physical
from tickpath.hardware_lease import acquire
from tickpath.probes.ping.config import PingConfig
from tickpath.probes.ping.target import Target
from tickpath.route import route_interface


def _interfaces(targets: Sequence[Target], interface: str) -> list[str]:
    """Those that the targets are reached by; physical ones."""
    named = [interface or route_interface(target.address[0].partition("%")[0]) for target in targets]
    return list(dict.fromkeys(link.name for name in named if name for link in physical(name)))


def switch_on(
    targets: Sequence[Target], config: PingConfig, directory: Path, leases: contextlib.ExitStack
) -> list[str]:
    """Have them stamp what is sent and received, until `leases` is closed; the names of those that do.

    One that has no stamps is said, and pinged through all the same: what each packet was stamped with, it says itself.
    PermissionMissingError: CAP_NET_ADMIN is missing.
    """
    switched = []
    for name in _interfaces(targets, config.interface):
        try:
            leases.enter_context(acquire(name, directory, tx=True, allow_link_reset=config.allow_link_reset))
        except NotHereError as error:
            structlog.get_logger().warning("no_hardware_stamps", interface=name, reason=str(error))
        else:
            switched.append(name)
    return switched
