# SPDX-License-Identifier: Apache-2.0
"""What this host offers the wire probe, for doctor: permission to capture, and what merges frames before the stamp."""

from __future__ import annotations

import socket

from tickpath.capability import Capability
from tickpath.route import default_interfaces

_SUBJECT = "nic_to_user"
# By the order of enum tp_source: sw is the second best, sw_gro the fifth.
_RANK_SW, _RANK_SW_GRO = 1, 4


def capabilities() -> list[Capability]:
    """AF_PACKET on the interfaces of the default routes and on loopback, whole frames and merged ones apart."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        permitted = True
    except PermissionError:
        permitted = False
    interfaces = default_interfaces() + [name for _, name in socket.if_nameindex() if name == "lo"]
    return [found for name in dict.fromkeys(interfaces) for found in _of_interface(name, permitted)]


def _of_interface(name: str, permitted: bool) -> list[Capability]:
    from tickpath.probes.wire._capture import merges  # noqa: PLC0415 - native code only when it is asked for

    if not permitted:
        return [
            Capability(
                _SUBJECT,
                f"af_packet sw {name}",
                _RANK_SW,
                False,
                "CAP_NET_RAW is missing",
                "run `tickpath probe wire` as root, or under setpriv --inh-caps +net_raw --ambient-caps +net_raw",
            )
        ]
    merging = merges(name)
    found = [
        Capability(
            _SUBJECT,
            f"af_packet sw {name}",
            _RANK_SW,
            True,
            "GRO is on: a segment that arrives alone is stamped as it is, merged ones go under sw_gro"
            if merging
            else "each frame is stamped as it arrived: nothing merges here",
            f"ethtool -K {name} gro off rx-gro-hw off lro off (every segment its own stamp; costs processor time)"
            if merging
            else None,
        )
    ]
    if merging:
        found.append(
            Capability(
                _SUBJECT,
                f"af_packet sw_gro {name}",
                _RANK_SW_GRO,
                True,
                "frames merged by GRO are stamped when they are flushed: an upper bound for all but one segment",
            )
        )
    return found
