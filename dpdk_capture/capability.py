# SPDX-License-Identifier: Apache-2.0
"""What this host offers the DPDK capture, for doctor: ports bound for it, and what is known of each driver's stamps."""

from __future__ import annotations

from pathlib import Path

from tickpath.capability import Capability
from tickpath.dpdk_capture import eal
from tickpath.dpdk_capture.device import bound_devices, owners
from tickpath.errors import NotHereError

_SUBJECT = "nic_to_user"
# By the order of enum tp_source: poll is the third best.
_RANK_POLL = 2
_STAMPS = "host.dpdk_stamps"


def capabilities(root: Path = Path("/")) -> list[Capability]:
    """Each NIC bound for DPDK; then the table of drivers, each row with how it was verified, if ever it was."""
    try:
        native = eal.library()
    except NotHereError as error:
        return [Capability(_SUBJECT, "dpdk poll", _RANK_POLL, False, str(error), "apt-get install libdpdk-dev")]
    bound = bound_devices(root)
    if not bound:
        found = [
            Capability(
                _SUBJECT,
                "dpdk poll",
                _RANK_POLL,
                False,
                f"{native.version()}; no NIC is bound for it",
                "a second port that gets copies: dpdk-devbind.py --bind=vfio-pci ADDRESS, `tickpath capture dpdk`",
            )
        ]
    else:
        found = [_of_port(address, root) for address in bound]
    return found + [_of_driver(rank, row) for rank, row in enumerate(native.drivers())]


def _of_port(address: str, root: Path) -> Capability:
    holders = owners(address, root)
    return Capability(
        _SUBJECT,
        f"dpdk poll {address}",
        _RANK_POLL,
        not holders,
        f"in use by process {', '.join(map(str, holders))}" if holders else "bound for DPDK and free",
        "a port has one owner: stop that process, or let it be the one that captures" if holders else None,
    )


def _of_driver(rank: int, driver: tuple[str, str, str, int, str, str]) -> Capability:
    name, unit, call, bits, source, verified = driver
    read = f"read by {call}" if call else "no call reads it: not used"
    return Capability(
        _STAMPS,
        name,
        rank,
        bool(verified),
        f"source {source}, {unit}, {bits} bits, {read}; "
        + (f"verified by {verified}" if verified else "never verified: read in the driver's source alone"),
        None if verified else "hold it against `tickpath probe wire` on a port that both see, and tell us",
    )
