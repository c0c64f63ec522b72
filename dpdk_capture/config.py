# SPDX-License-Identifier: Apache-2.0
"""What an operator can say to the DPDK capture: section `dpdk` of the configuration, flags of `capture dpdk`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tickpath.selector import Ports, Remotes

AUTO = "auto"


class DpdkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One thread, pinned, and one ring (dpdk-DEVICE-QUEUE) per receive queue."""

    device: Annotated[
        str,
        Meta(
            description="PCI address (0000:01:00.0) of the port, or a virtual device with its arguments "
            "(net_af_packet0,iface=eth0); auto: the one NIC that is bound to a driver of DPDK's"
        ),
    ] = AUTO
    mode: Annotated[
        Literal["mirror", "inline"],
        Meta(
            description="mirror: capture alone, for a port that gets copies (SPAN, tap); inline: the kernel has the "
            "port's traffic too, both ways, through a TAP"
        ),
    ] = "mirror"
    tap: Annotated[
        str,
        Meta(description="inline: interface by which the kernel has the port; made where it is not there, and left"),
    ] = "tickpath0"
    default_route: Annotated[
        bool, Meta(description="inline: take the port even though this host's default route goes over it")
    ] = False
    remote: Remotes = []
    port: Ports = []
    queues: Annotated[
        int, Meta(ge=1, le=64, description="receive queues, over which the port spreads connections (RSS)")
    ] = 1
    cores: Annotated[
        list[Annotated[int, Meta(ge=0)]],
        Meta(description="processors of the poll loops, one per queue; none: the last ones this process may use"),
    ] = []
    burst: Annotated[int, Meta(ge=1, le=512, description="frames taken per poll at most")] = 32
    idle_sleep_us: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="sleep so long after an empty poll: spares the processor, widens each stamp's bound; 0: never",
        ),
    ] = 0
    stamps: Annotated[
        Literal["auto", "hardware", "poll"],
        Meta(
            description="auto: the port's own where they are known, else one TSC reading per burst; hardware: the "
            "port's own or nothing; poll: the TSC"
        ),
    ] = "auto"
    stamp_clock: Annotated[
        Literal["table", "rte_eth_read_clock", "rte_eth_timesync_read_time"],
        Meta(description="what reads the clock of the port's stamps, where the table of drivers does not know it"),
    ] = "table"
    stamp_bits: Annotated[int, Meta(ge=16, le=64, description="its width, where the table does not know it")] = 64
    memory: Annotated[
        Literal["auto", "huge", "none"],
        Meta(description="huge pages (held by this process alone and given back) or none; auto: where enough are free"),
    ] = "auto"
    memory_mb: Annotated[int, Meta(ge=16, le=1 << 20, description="memory for DPDK, in MiB")] = 64
    memory_channels: Annotated[int, Meta(ge=0, le=32, description="of the host; 0: not told")] = 0
    buffers: Annotated[int, Meta(ge=256, le=1 << 22, description="frames that can be held at a time")] = 8191
    descriptors: Annotated[int, Meta(ge=32, le=32768, description="of each receive queue")] = 1024
    mtu: Annotated[int, Meta(ge=68, le=16000, description="of the port")] = 1500
    promiscuous: Annotated[bool, Meta(description="take frames for whatever address")] = True
    proc: Annotated[
        Path,
        Meta(
            description="where the host's processes are listed, of which one may own the NIC: not there in a container"
        ),
    ] = Path("/proc")
    eal: Annotated[list[str], Meta(description="arguments added to those that DPDK's EAL is given")] = []
    capacity: Annotated[int, Meta(ge=16, le=1 << 26, description="records in a ring, a power of two")] = 1 << 16
    rows: Annotated[int, Meta(ge=1, le=65535, description="connections known at a time, per ring")] = 256
