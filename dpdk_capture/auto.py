# SPDX-License-Identifier: Apache-2.0
"""`tickpath capture auto`: the wire source that this host offers, best first: a NIC bound for DPDK, else AF_PACKET."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import structlog

from tickpath import config, log
from tickpath.command import Command
from tickpath.dpdk_capture import eal, rights
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import DeviceError, chosen, named
from tickpath.errors import ConfigError, NotHereError


def _why_not(dpdk: DpdkConfig) -> str:
    """Why DPDK cannot capture here; empty when it can."""
    try:
        chosen(dpdk.device, proc=dpdk.proc)
        eal.library()
    except (DeviceError, NotHereError) as error:
        return str(error)
    if os.geteuid() != 0:
        return "a NIC is bound for DPDK, and only root can use it"
    return ""


def _run(args: argparse.Namespace) -> int:
    common = log.set_up(args)
    dpdk = config.load(DpdkConfig, "dpdk", args)
    told = structlog.get_logger()
    try:
        reason = _why_not(dpdk)
    except ConfigError as error:
        reason = str(error)
    rights.forgo()
    if not reason:
        device = named(dpdk.device)
        why = "it is bound for DPDK and free" if device.pci else "a virtual device is named"
        told.info("wire_source", source="dpdk", device=device.name, why=why)
        from tickpath.dpdk_capture.capture import run  # noqa: PLC0415

        try:
            return run(dpdk, common.directory)
        except eal.EalError as error:  # it could not even begin: no driver for the NIC, say
            reason = str(error)
    told.info("wire_source", source="af_packet", not_dpdk=reason)
    argv = [sys.executable, "-P", "-m", "tickpath", "probe", "wire", "--directory", str(common.directory)]
    argv += ["--log-format", common.log_format, "--log-level", common.log_level]
    if args.config:
        argv += ["--config", str(args.config)]
    return _become(argv)


def _become(argv: list[str]) -> NoReturn:
    """Go on as another command: what supervises this process keeps its pid. What EAL had open is closed."""
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) > 2:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.set_inheritable(int(entry.name), False)
    os.execv(argv[0], argv)


command = Command(
    help="record the wire by the best source that this host offers: DPDK where a NIC is bound for it, else AF_PACKET",
    add_arguments=config.add_common_flags,
    run=_run,
)
