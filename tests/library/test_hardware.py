# SPDX-License-Identifier: Apache-2.0
"""Hardware stamps: what the kernel's answers say, whatever their bytes; and that what was set is set back."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpath import hardware, hardware_lease
from tickpath.errors import InputError, NotHereError, PermissionMissingError
from tickpath.hardware import FILTER_ALL, Link, Offer, Setting
from tickpath.netlink import attribute, attributes, messages, nested, unsigned

ANY_ATTRIBUTES = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=6)
MASKS = st.integers(0, 2**32 - 1)


def bits(kind: int, mask: int) -> bytes:
    return nested(kind, attribute(2, struct.pack("=I", 20)), attribute(4, struct.pack("=I", mask)))


@given(ANY_ATTRIBUTES)
def test_attributes_come_back_as_they_were_written(found: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, value) for kind, value in found.items())) == found


@given(st.binary(max_size=200))
def test_no_bytes_make_the_readers_fail_otherwise_than_by_an_input_error(data: bytes) -> None:
    for read in (
        attributes,
        lambda raw: list(messages(raw)),
        hardware.bitset,
        hardware.link_of,
        lambda raw: hardware.setting_of(attributes(raw)),
        lambda raw: hardware.offer_of("x", "", attributes(raw)),
    ):
        try:
            read(data)
        except InputError:
            pass
        except OSError as error:
            assert error.errno, "an error message of the kernel"


@given(MASKS, MASKS, MASKS, st.none() | st.integers(0, 62))
def test_an_offer_is_what_the_answer_says(flags: int, tx_types: int, rx_filters: int, phc: int | None) -> None:
    body = bits(2, flags) + bits(3, tx_types) + bits(4, rx_filters)
    body += b"" if phc is None else attribute(5, struct.pack("=I", phc))
    found = hardware.offer_of("eth0", "ice", attributes(body))
    assert found == Offer("eth0", "ice", flags, tx_types, rx_filters, phc)
    assert found.rx == (flags & 0x44 == 0x44 and rx_filters & 2 == 2)
    assert found.tx == (flags & 0x41 == 0x41 and tx_types & 2 == 2)


@given(st.integers(0, 2), st.integers(0, 15))
def test_a_setting_is_the_bit_that_is_set(tx: int, rx: int) -> None:
    assert hardware.setting_of(attributes(bits(3, 1 << tx) + bits(4, 1 << rx))) == Setting(tx, rx)


def test_a_number_of_an_odd_length_is_refused() -> None:
    with pytest.raises(InputError):
        unsigned(b"123")


def test_a_bond_of_vlans_comes_down_to_its_ports() -> None:
    here = [
        Link(1, "lo", "", None, None),
        Link(2, "eth0", "", None, 4),
        Link(3, "eth1", "", None, 4),
        Link(4, "bond0", "bond", None, None),
        Link(5, "bond0.7", "vlan", 4, None),
        Link(6, "veth0", "veth", 2, None),
        Link(7, "lost", "vlan", None, None),
    ]
    names = {link.name: [found.name for found in hardware.physical(link.name, here)] for link in here}
    assert names["bond0.7"] == ["eth0", "eth1"]
    assert names["veth0"] == ["veth0"], "its peer is no interface that it stands on"
    assert names["lost"] == [], "what it stands on is in another namespace"
    assert hardware.physical("none", here) == []


def test_the_kernel_answers_for_loopback() -> None:
    found = hardware.offer("lo")
    assert not found.rx
    assert not found.tx
    assert found.phc is None
    assert [link.name for link in hardware.physical("lo")] == ["lo"]
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        hardware.configure("lo", Setting(rx=FILTER_ALL))
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        hardware.offer("notthere0")
    ioctl = hardware._offer_by_ioctl("lo", "")
    assert ioctl == found
    assert found.flags & 0x18 == 0x18, "software stamps"


class FakeNic:
    """A NIC whose setting is in a file, so that processes share it."""

    def __init__(self, path: Path, driver: str = "ice") -> None:
        self.path = path
        self.driver = driver
        self.most = FILTER_ALL
        self.set(Setting())

    def set(self, wanted: Setting) -> None:
        self.path.write_text(f"{wanted.tx} {wanted.rx}")

    def setting(self, _: str = "") -> Setting:
        return Setting(*map(int, self.path.read_text().split()))

    def configure(self, _: str, wanted: Setting) -> Setting:
        made = Setting(wanted.tx, self.most if wanted.rx == FILTER_ALL else wanted.rx)
        self.set(made)
        return made

    def offer(self, name: str) -> Offer:
        return Offer(name, self.driver, 0x7F, 3, 3, 0)


@pytest.fixture
def nic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNic:
    made = FakeNic(tmp_path / "nic")
    for name in ("setting", "configure", "offer"):
        monkeypatch.setattr(hardware_lease, name, getattr(made, name))
    monkeypatch.setattr(hardware_lease, "links", lambda: [Link(7, "nic0", "", None, None)])
    return made


def test_the_last_of_two_sets_back_what_the_first_found(nic: FakeNic, tmp_path: Path) -> None:
    nic.set(Setting(tx=0, rx=12))
    first = hardware_lease.acquire("nic0", tmp_path)
    second = hardware_lease.acquire("nic0", tmp_path, rx=False, tx=True)
    assert nic.setting() == Setting(1, FILTER_ALL)
    first.close()
    assert nic.setting() == Setting(1, FILTER_ALL)
    second.close()
    assert nic.setting() == Setting(0, 12)
    assert not [path for path in tmp_path.glob("*.hwstamps") if "nic0" in path.name]


def test_what_somebody_else_sets_meanwhile_stays(nic: FakeNic, tmp_path: Path) -> None:
    with hardware_lease.acquire("nic0", tmp_path):
        nic.set(Setting(1, 12))
    assert nic.setting() == Setting(1, 12)


def test_what_was_set_before_stays(nic: FakeNic, tmp_path: Path) -> None:
    nic.set(Setting(1, FILTER_ALL))
    with hardware_lease.acquire("nic0", tmp_path):
        pass
    assert nic.setting() == Setting(1, FILTER_ALL)


def _crash(directory: Path) -> None:
    hardware_lease.acquire("nic0", directory)
    os._exit(1)


@pytest.mark.parametrize("takes_over", [True, False])
def test_what_a_crash_left_is_set_back(nic: FakeNic, tmp_path: Path, takes_over: bool) -> None:
    crashing = multiprocessing.get_context("fork").Process(target=_crash, args=(tmp_path,))
    crashing.start()
    crashing.join()
    assert nic.setting() == Setting(0, FILTER_ALL)
    if takes_over:
        hardware_lease.acquire("nic0", tmp_path).close()
    else:
        assert hardware_lease.set_back_orphans(tmp_path) == ["nic0"]
    assert nic.setting() == Setting()


def test_what_a_living_process_needs_is_no_orphan(nic: FakeNic, tmp_path: Path) -> None:
    with hardware_lease.acquire("nic0", tmp_path):
        assert hardware_lease.set_back_orphans(tmp_path) == []
        assert nic.setting().rx == FILTER_ALL
    assert hardware_lease.set_back_orphans(tmp_path / "none") == []


def test_a_link_is_not_reset_unasked(nic: FakeNic, tmp_path: Path) -> None:
    nic.driver = "ena"
    with pytest.raises(NotHereError, match="--allow-link-reset"):
        hardware_lease.acquire("nic0", tmp_path)
    assert nic.setting() == Setting()
    with hardware_lease.acquire("nic0", tmp_path, allow_link_reset=True):
        assert nic.setting().rx == FILTER_ALL
        with hardware_lease.acquire("nic0", tmp_path):
            pass  # nothing has to be switched


def test_a_nic_that_stamps_some_frames_only_is_refused_and_set_back(nic: FakeNic, tmp_path: Path) -> None:
    nic.most = 0
    with pytest.raises(NotHereError, match="some frames"):
        hardware_lease.acquire("nic0", tmp_path)
    assert nic.setting() == Setting()


def test_a_refusal_says_what_is_missing(nic: FakeNic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str, __: Setting) -> Setting:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(hardware_lease, "configure", refuse)
    with pytest.raises(PermissionMissingError, match="CAP_NET_ADMIN"):
        hardware_lease.acquire("nic0", tmp_path)
    monkeypatch.undo()
    name = socket.if_nameindex()[0][1]
    with pytest.raises(NotHereError, match="does not offer"):
        hardware_lease.acquire(name, tmp_path)
