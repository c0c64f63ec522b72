# SPDX-License-Identifier: Apache-2.0
"""Which sockets an operator wants, as the programs in the kernel are told it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tickpath.errors import ConfigError
from tickpath.probes.kernel.processes import check
from tickpath.selector import Selector, selected

MOST_SELECTORS = 16
MOST_PIDS = 16


def peers(remotes: Sequence[str], ports: Sequence[int], *, default_ports: bool) -> list[Selector]:
    """Of these flags together; none: any peer, unless the default ports stand for it. ConfigError."""
    if not remotes and not ports and not default_ports:
        return []
    selectors, _ = selected(remotes, ports)
    if len(selectors) > MOST_SELECTORS:
        raise ConfigError(f"{len(selectors)} remotes and ports are too many: at most {MOST_SELECTORS}, or a cgroup")
    return selectors


def cgroup_id(folder: Path | None) -> int:
    """As the kernel knows it; 0: any. ConfigError when it is no version 2 cgroup."""
    if folder is None:
        return 0
    if not (folder / "cgroup.controllers").exists():
        raise ConfigError(f"{folder} is not the folder of a version 2 cgroup (such as /sys/fs/cgroup/system.slice)")
    return folder.stat().st_ino


def check_pids(pids: Sequence[int]) -> None:
    """ConfigError where they are too many, one is not there, or its number means another to the kernel."""
    if len(pids) > MOST_PIDS:
        raise ConfigError(f"{len(pids)} processes are too many: at most {MOST_PIDS}, or a cgroup")
    check(pids)
