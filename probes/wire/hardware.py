# SPDX-License-Identifier: Apache-2.0
"""Which NICs stamp for an interface of the wire probe: found, switched on, and given back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tickpath import phc
from tickpath.errors import NotHereError, TickpathError
from tickpath.hardware import Link, Offer, offers, refused, setting
from tickpath.hardware_lease import StampingLease, acquire


@dataclass(frozen=True)
class Nic:
    """One that stamps: its link, and what it offers, a clock that can be read among it."""

    link: Link
    offer: Offer
    clock: int


def usable(interface: str) -> list[Nic]:
    """The NICs under an interface. NotHereError: one of them cannot stamp all it receives, or nobody its clock read."""
    found = offers(interface)
    if not found:
        raise NotHereError(f"{interface} stands on no interface of this network namespace")
    return [_usable(link, offer) for link, offer in found]


def _usable(link: Link, offer: Offer) -> Nic:
    if not offer.rx:
        raise NotHereError(f"{link.name} ({offer.driver or 'no driver'}) offers no hardware stamp of every frame")
    if offer.phc is None:
        raise NotHereError(f"{link.name} ({offer.driver}) stamps by a clock that nobody can read")
    if reason := phc.readable(offer.phc):
        raise NotHereError(f"the clock of {link.name}: {reason}")
    return Nic(link, offer, offer.phc)


def switch_on(
    nics: list[Nic], directory: Path, *, allow_link_reset: bool, leases: contextlib.ExitStack
) -> list[StampingLease]:
    """Have them stamp, until `leases` is closed. Raises what acquire does; then none is left switched on."""
    with contextlib.ExitStack() as taken:
        made = [
            taken.enter_context(acquire(nic.link.name, directory, allow_link_reset=allow_link_reset)) for nic in nics
        ]
        leases.push(taken.pop_all())
    return made


def why_not(interface: str) -> str:
    """Empty, or why hardware stamps cannot be had on an interface, as far as that shows without switching them on."""
    try:
        usable(interface)
    except TickpathError as error:
        return str(error)
    except OSError as error:
        return refused(error, interface)
    return ""


def enabled(nic: Nic) -> str:
    """What a NIC is told to stamp now, in a word."""
    try:
        now = setting(nic.link.name)
    except OSError:
        now = None
    if now is None:
        return "its driver does not say what is enabled"
    return {0: "not enabled", 1: "enabled"}.get(now.rx, f"enabled for some frames (filter {now.rx})")
