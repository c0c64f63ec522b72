# SPDX-License-Identifier: Apache-2.0
"""What an operator can say to the wire probe: section `wire` of the configuration, and the flags of `probe wire`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tickpath.selector import Ports, Remotes

AUTO = "auto"
# The kernel closes a block a moment after its first frame, full or not: of a quiet feed each holds one frame, and as
# many as there are blocks wait for a probe that stands still. A block has to hold a whole jumbo frame.
BLOCK_BYTES = 1 << 14


class WireConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One thread and one ring (wire-NAME) per interface."""

    interface: Annotated[
        list[str],
        Meta(description="where to capture; none or auto: where the route to each remote goes, else the default route"),
    ] = []
    remote: Remotes = []
    port: Ports = []
    cpu: Annotated[
        list[Annotated[int, Meta(ge=0)]],
        Meta(
            description="processors to pin the capturing threads to, in the order of the interfaces; none: not pinned"
        ),
    ] = []
    buffer_bytes: Annotated[
        int,
        Meta(
            ge=2 * BLOCK_BYTES,
            le=1 << 30,
            multiple_of=BLOCK_BYTES,
            description=f"kernel memory for captured frames per interface, in steps of {BLOCK_BYTES}",
        ),
    ] = 1 << 22
    capacity: Annotated[int, Meta(ge=16, le=1 << 26, description="records in the ring, a power of two")] = 1 << 16
    rows: Annotated[int, Meta(ge=1, le=65535, description="connections known at a time, per interface")] = 256
    stamps: Annotated[
        Literal["auto", "hw", "sw"],
        Meta(description="whose stamps: the NIC's (hw), the kernel's (sw), or the NIC's where they can be had (auto)"),
    ] = "auto"
    allow_link_reset: Annotated[
        bool, Meta(description="switch a NIC's stamps on even where that interrupts its traffic for a moment (ena)")
    ] = False
