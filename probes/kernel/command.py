# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe kernel`."""

from __future__ import annotations

import argparse

from tickpath import config, log
from tickpath.command import Command
from tickpath.probes.kernel.config import KernelConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_flags(parser, KernelConfig)
    config.add_common_flags(parser)


def _run(args: argparse.Namespace) -> int:
    common = log.set_up(args)
    kernel = config.load(KernelConfig, "kernel", args)
    # Imported here: `tickpath probe --help` needs no native code.
    from tickpath.probes.kernel.probe import run  # noqa: PLC0415

    return run(kernel, common.directory)


command = Command(
    help="record when the kernel made each byte readable, and when it was copied (eBPF; needs CAP_BPF, CAP_PERFMON)",
    add_arguments=_add_arguments,
    run=_run,
)
