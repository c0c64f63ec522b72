# SPDX-License-Identifier: Apache-2.0
"""What this host offers the kernel probe, for doctor: found by loading the programs, which attaches nothing."""

from __future__ import annotations

from tickpath.capability import Capability
from tickpath.probes.kernel.programs import UnavailableError, load

_HOPS = ("nic_to_kernel", "kernel_to_user")
_SOURCE = "ebpf tp_btf"
_RANK = 0


def capabilities() -> list[Capability]:
    """The one rung that there is, for both hops that end or begin in the kernel."""
    try:
        load([], cgroup=0, buffer_bytes=1 << 16).close()
    except UnavailableError as error:
        return [Capability(hop, _SOURCE, _RANK, False, error.reason, error.remedy) for hop in _HOPS]
    found = "typed tracepoints load: the kernel's own times, to the byte, while `tickpath probe kernel` runs"
    return [Capability(hop, _SOURCE, _RANK, True, found) for hop in _HOPS]
