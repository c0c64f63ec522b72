# SPDX-License-Identifier: Apache-2.0
"""What this host offers the wire probe, for doctor: permission to capture, and what merges frames before the stamp."""

from __future__ import annotations

import socket

from tickpath.capability import Capability
from tickpath.config import COMMON, CommonConfig, load
from tickpath.errors import TickpathError
from tickpath.probes.wire.hardware import enabled, usable, why_not
from tickpath.ring import SUFFIX, RingReader
from tickpath.route import default_interfaces

_SUBJECT = "nic_to_user"
# By the order of enum tp_source: sw is the second best, sw_gro the fifth.
_RANK_HW, _RANK_SW, _RANK_SW_GRO = 0, 1, 4


def capabilities() -> list[Capability]:
    """AF_PACKET on the interfaces of the default routes and on loopback, whole frames and merged ones apart."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        permitted = True
    except PermissionError:
        permitted = False
    interfaces = default_interfaces() + [name for _, name in socket.if_nameindex() if name == "lo"]
    names = list(dict.fromkeys(interfaces))
    stamping = [name for _, name in socket.if_nameindex() if name not in names and not why_not(name)]
    return [_hardware(name, permitted) for name in [*names, *stamping] if name != "lo"] + [
        found for name in names for found in _of_interface(name, permitted)
    ]


def _hardware(name: str, permitted: bool) -> Capability:
    """What the NICs under an interface offer, what they are told, and what a probe that runs has seen of it."""
    source = f"af_packet hw {name}"
    if reason := why_not(name):
        remedy = "a NIC that stamps every received frame, and whose clock can be read (docs/hardware.md)"
        return Capability(_SUBJECT, source, _RANK_HW, False, reason, remedy)
    nics = usable(name)
    found = "; ".join(f"{nic.link.name} ({nic.offer.driver}, PHC {nic.clock}): {enabled(nic)}" for nic in nics)
    delivered = _delivered(name)
    return Capability(
        _SUBJECT,
        source,
        _RANK_HW,
        permitted and delivered is not False,
        f"{found}; {_DELIVERED[delivered]}",
        None if delivered else "`tickpath probe wire` switches them on by itself, with CAP_NET_ADMIN",
    )


_DELIVERED = {
    None: "whether stamps come, only frames show: no probe that asks for them runs",
    True: "stamps come, says the probe that runs",
    False: "no stamps came, says the probe that runs: source sw",
}


def _delivered(name: str) -> bool | None:
    """What the wire probe of an interface says of its NICs, if one runs; None: nothing."""
    try:
        with RingReader(load(CommonConfig, COMMON).directory / f"wire-{name}{SUFFIX}") as ring:
            mode = ring.modes().get("wire", {}).get(name) if ring.alive else None
    except TickpathError:
        return None
    return None if mode is None else mode == "hw"


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
