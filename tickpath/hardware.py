# SPDX-License-Identifier: Apache-2.0
"""Hardware stamps of interfaces: what a NIC offers, what is configured, and configuring it.

Asked by ethtool's netlink family (ts-info since Linux 5.10, tsconfig since 6.14), by ioctl on kernels without. An
interface that only carries others' frames (VLAN, bond) is resolved to the physical ones: those stamp, with their clock.
To switch stamping on, use tickpath.hardware_lease: it gives back what was there before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from tickpath.netlink import NETLINK_ROUTE, Generic, Netlink, attribute, attributes, nested, text, unsigned

# linux/net_tstamp.h
TX_HARDWARE, RX_HARDWARE, RAW_HARDWARE = 1 << 0, 1 << 2, 1 << 6
TX_OFF, TX_ON = 0, 1
FILTER_NONE, FILTER_ALL = 0, 1

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL, _SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x8946, 0x89B0, 0x89B1
_ETHTOOL_GDRVINFO, _ETHTOOL_GET_TS_INFO = 0x03, 0x41
_IFNAMSIZ, _IFREQ_BYTES = 16, 40

# linux/ethtool_netlink.h
_TSINFO_GET, _TSCONFIG_GET, _TSCONFIG_SET = 25, 46, 47
_A_HEADER, _A_TSINFO_TIMESTAMPING, _A_TSINFO_TX_TYPES, _A_TSINFO_RX_FILTERS, _A_TSINFO_PHC_INDEX = range(1, 6)
_A_TSCONFIG_TX_TYPES, _A_TSCONFIG_RX_FILTERS, _A_TSCONFIG_FLAGS = 3, 4, 5
_A_HEADER_DEV_NAME, _A_HEADER_FLAGS, _COMPACT_BITSETS = 2, 3, 1
_A_BITSET_NOMASK, _A_BITSET_SIZE, _A_BITSET_VALUE = 1, 2, 4

# linux/rtnetlink.h, linux/if_link.h
_RTM_GETLINK = 18
_IFINFO = struct.Struct("=BBHiII")  # ifinfomsg: family, pad, type, index, flags, change
_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 10, 18, 37
_IFLA_INFO_KIND = 1
_ON_ONE = frozenset({"vlan", "macvlan", "macvtap", "ipvlan"})
_ON_MANY = frozenset({"bond", "team"})

RESETS_LINK = frozenset({"ena"})
"""Drivers that reset the link whenever stamping is switched (Amazon's, ENA driver documentation)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one physical interface can stamp.

    flags: SOF_TIMESTAMPING bits; tx_types, rx_filters: bit n set for HWTSTAMP value n; phc: index of its clock.
    """

    interface: str
    driver: str
    flags: int
    tx_types: int
    rx_filters: int
    phc: int | None

    @property
    def rx(self) -> bool:
        """Whether it claims to stamp every received frame; only its stamps show whether it does."""
        wanted = RX_HARDWARE | RAW_HARDWARE
        return self.flags & wanted == wanted and bool(self.rx_filters & 1 << FILTER_ALL)

    @property
    def tx(self) -> bool:
        """Whether it claims to stamp sent frames when a socket asks for it."""
        wanted = TX_HARDWARE | RAW_HARDWARE
        return self.flags & wanted == wanted and bool(self.tx_types & 1 << TX_ON)

    @property
    def resets_link(self) -> bool:
        """Whether switching its stamping interrupts traffic."""
        return self.driver in RESETS_LINK


@dataclass(frozen=True, slots=True)
class Setting:
    """What a NIC is told to stamp: HWTSTAMP_TX_*, HWTSTAMP_FILTER_*, and flags as the kernel has them."""

    tx: int = TX_OFF
    rx: int = FILTER_NONE
    flags: int = 0


def offer(interface: str) -> Offer:
    """What the interface offers. OSError: ENODEV (there is none of that name), EOPNOTSUPP."""
    driver = driver_of(interface)
    try:
        with Generic("ethtool") as ethtool:
            found = ethtool.ask(_TSINFO_GET, _header(interface))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT):
            raise
        return _offer_by_ioctl(interface, driver)
    return offer_of(interface, driver, found)


def offer_of(interface: str, driver: str, found: dict[int, bytes]) -> Offer:
    """The same, of the attributes of a ts-info answer. InputError: they are not what they claim to be."""
    return Offer(
        interface,
        driver,
        bitset(found.get(_A_TSINFO_TIMESTAMPING)),
        bitset(found.get(_A_TSINFO_TX_TYPES)),
        bitset(found.get(_A_TSINFO_RX_FILTERS)),
        unsigned(found[_A_TSINFO_PHC_INDEX]) if _A_TSINFO_PHC_INDEX in found else None,
    )


def setting(interface: str) -> Setting | None:
    """What the interface is told to stamp now; None where its driver cannot say. OSError: ENODEV and the like."""
    try:
        with Generic("ethtool") as ethtool:
            return setting_of(ethtool.ask(_TSCONFIG_GET, _header(interface)))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT):
            raise
    try:
        return _hwtstamp(_SIOCGHWTSTAMP, interface, Setting())
    except OSError as error:
        # ENOTTY: no such ioctl in a driver that only sets.
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            return None
        raise


def configure(interface: str, wanted: Setting) -> Setting:
    """Tell the interface what to stamp, at once; what its driver made of that, which may be more.

    OSError: EPERM (CAP_NET_ADMIN is missing), ERANGE (its hardware cannot), EOPNOTSUPP, ENODEV.
    """
    body = (
        _header(interface)
        + _one_bit(_A_TSCONFIG_TX_TYPES, wanted.tx)
        + _one_bit(_A_TSCONFIG_RX_FILTERS, wanted.rx)
        + (attribute(_A_TSCONFIG_FLAGS, struct.pack("=I", wanted.flags)) if wanted.flags else b"")
    )
    try:
        with Generic("ethtool") as ethtool:
            ethtool.ask(_TSCONFIG_SET, body)
            return setting_of(ethtool.ask(_TSCONFIG_GET, _header(interface)))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT):
            raise
    return _hwtstamp(_SIOCSHWTSTAMP, interface, wanted)


def setting_of(found: dict[int, bytes]) -> Setting:
    """The setting in the attributes of a tsconfig answer. InputError: they are not what they claim to be."""
    return Setting(
        _highest(bitset(found.get(_A_TSCONFIG_TX_TYPES))),
        _highest(bitset(found.get(_A_TSCONFIG_RX_FILTERS))),
        bitset(found.get(_A_TSCONFIG_FLAGS)),
    )


def _highest(bits: int) -> int:
    return max(bits.bit_length() - 1, 0)


def bitset(data: bytes | None) -> int:
    """A compact bitset of ethtool; 0 where the kernel left it out. InputError: its lengths cannot be."""
    if data is None:
        return 0
    found = attributes(data)
    words = found.get(_A_BITSET_VALUE, b"")
    return sum(unsigned(words[at : at + 4]) << (8 * at) for at in range(0, len(words), 4))


def _header(interface: str) -> bytes:
    return nested(
        _A_HEADER,
        attribute(_A_HEADER_DEV_NAME, interface.encode() + b"\0"),
        attribute(_A_HEADER_FLAGS, struct.pack("=I", _COMPACT_BITSETS)),
    )


def _one_bit(kind: int, bit: int) -> bytes:
    return nested(
        kind,
        attribute(_A_BITSET_NOMASK, b""),
        attribute(_A_BITSET_SIZE, struct.pack("=I", 32)),
        attribute(_A_BITSET_VALUE, struct.pack("=I", 1 << bit)),
    )


def _with_data(interface: str, request: int, data: bytearray) -> None:
    """An ioctl whose ifreq points to `data`, which it changes."""
    # The buffer may not move while the kernel writes to it: ctypes pins it.
    import ctypes  # noqa: PLC0415 - the ioctls alone need it

    pinned = (ctypes.c_char * len(data)).from_buffer(data)
    name = interface.encode()[: _IFNAMSIZ - 1]
    ifreq = bytearray(struct.pack(f"{_IFNAMSIZ}sP", name, ctypes.addressof(pinned)).ljust(_IFREQ_BYTES, b"\0"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        fcntl.ioctl(asked.fileno(), request, ifreq)


def _hwtstamp(request: int, interface: str, wanted: Setting) -> Setting:
    data = bytearray(struct.pack("=iii", wanted.flags, wanted.tx, wanted.rx))
    _with_data(interface, request, data)
    flags, tx, rx = struct.unpack("=iii", data)
    return Setting(tx, rx, flags)


def _offer_by_ioctl(interface: str, driver: str) -> Offer:
    # ethtool_ts_info: command, flags, PHC, TX types, 3 reserved, RX filters, 3 reserved
    data = bytearray(struct.pack("=IIiI3II3I", _ETHTOOL_GET_TS_INFO, *[0] * 10))
    _with_data(interface, _SIOCETHTOOL, data)
    _, flags, phc, tx_types, _, _, _, rx_filters, *_ = struct.unpack("=IIiI3II3I", data)
    return Offer(interface, driver, flags, tx_types, rx_filters, phc if phc >= 0 else None)


def driver_of(interface: str) -> str:
    """The name of its driver; empty where it has none that says. OSError: ENODEV."""
    data = bytearray(196)
    struct.pack_into("=I", data, 0, _ETHTOOL_GDRVINFO)
    try:
        _with_data(interface, _SIOCETHTOOL, data)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ""
        raise
    return text(bytes(data[4:36]))


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as rtnetlink shows it. under: what it stands on, in this namespace; master: what it is part of."""

    index: int
    name: str
    kind: str
    under: int | None
    master: int | None


def links() -> list[Link]:
    """All interfaces of this network namespace."""
    with Netlink(NETLINK_ROUTE) as kernel:
        return [link_of(body) for body in kernel.ask(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0, 0), dump=True)]


def link_of(body: bytes) -> Link:
    """One link message. InputError: it is not what it claims to be."""
    index = _IFINFO.unpack_from(body.ljust(_IFINFO.size, b"\0"))[3]
    found = attributes(body[_IFINFO.size :])
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    elsewhere = _IFLA_LINK not in found or _IFLA_LINK_NETNSID in found
    return Link(
        index,
        text(found.get(_IFLA_IFNAME, b"")),
        text(info.get(_IFLA_INFO_KIND, b"")),
        None if elsewhere else unsigned(found[_IFLA_LINK]),
        unsigned(found[_IFLA_MASTER]) if _IFLA_MASTER in found else None,
    )


def physical(interface: str, among: list[Link] | None = None) -> list[Link]:
    """The interfaces whose NICs stamp what comes in on `interface`: itself, what a VLAN stands on, a bond's ports.

    Empty where it is not there, or stands on one in another namespace.
    """
    known = links() if among is None else among
    by_index = {link.index: link for link in known}
    found: list[Link] = []
    waiting = [link for link in known if link.name == interface]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop(0)
        if link.index in seen:
            continue
        seen.add(link.index)
        if link.kind in _ON_ONE:
            under = by_index.get(link.under) if link.under is not None else None
            waiting += [under] if under else []
        elif link.kind in _ON_MANY:
            waiting += [port for port in known if port.master == link.index]
        else:
            found.append(link)
    return found


def offers(interface: str) -> list[tuple[Link, Offer]]:
    """What each physical interface under `interface` offers; those that cannot be asked are left out."""
    found: list[tuple[Link, Offer]] = []
    for link in physical(interface):
        try:
            found.append((link, offer(link.name)))
        except OSError:
            continue
    return found


def refused(error: OSError, interface: str) -> str:
    """Why an interface's stamping cannot be set, for an operator, with the remedy."""
    reasons: dict[int | None, str] = {
        errno.EPERM: "CAP_NET_ADMIN is missing: run as root, or under setpriv --inh-caps +net_admin "
        "--ambient-caps +net_admin",
        errno.ERANGE: "its hardware cannot stamp every frame",
        errno.EOPNOTSUPP: "its driver has no hardware stamps",
        errno.ENODEV: "it is not there",
    }
    why = reasons.get(error.errno, os.strerror(error.errno or 0))
    return f"hardware stamps on {interface} cannot be set: {why}"
