# SPDX-License-Identifier: Apache-2.0
"""What an operator can say to the kernel probe: section `kernel` of the configuration, the flags of `probe kernel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tickpath.selector import Ports, Remotes


class KernelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One thread and one ring (NAME.ring) for all connections of the host, in all network namespaces."""

    remote: Remotes = []
    port: Ports = []
    cgroup: Annotated[
        Path | None,
        Meta(description="folder of a version 2 cgroup: watch only sockets made in it or below it"),
    ] = None
    pid: Annotated[
        list[Annotated[int, Meta(ge=1, le=4194304)]],
        Meta(description="process, as the host counts them: watch only sockets that it connects or reads"),
    ] = []
    rung: Annotated[
        Literal["auto", "tp_btf", "fentry", "kprobe", "bcc"],
        Meta(
            description="way to attach; auto: of each hook the best that this kernel lets us have; bcc: connects only"
        ),
    ] = "auto"
    btf: Annotated[
        Path | None, Meta(description="file with the types of this kernel, where it publishes none (kprobes only)")
    ] = None
    cost: Annotated[
        bool,
        Meta(
            description="have the kernel time the programs (needs CAP_SYS_ADMIN; times all of the host's BPF programs)"
        ),
    ] = False
    name: Annotated[
        str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="of the ring; two probes at once need two names")
    ] = "kernel"
    interval_ms: Annotated[
        int,
        Meta(ge=1, le=1000, description="how often records are fetched: the kernel wakes nobody"),
    ] = 5
    buffer_bytes: Annotated[
        int, Meta(ge=4096, le=1 << 30, description="kernel memory for records not yet fetched, a power of two")
    ] = 1 << 22
    capacity: Annotated[int, Meta(ge=16, le=1 << 26, description="records in the ring, a power of two")] = 1 << 16
    rows: Annotated[int, Meta(ge=1, le=65534, description="connections known at a time")] = 1024
