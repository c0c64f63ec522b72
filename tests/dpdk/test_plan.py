# SPDX-License-Identifier: Apache-2.0
"""What a dry run says, of hosts that are only told of."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tickpath.dpdk_capture import inline
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import parse
from tickpath.errors import ConfigError
from tickpath.selector import Selector

_NIC = "0000:01:00.0"


def _host(root: Path, driver: str, *interfaces: str) -> Path:
    device = root / "sys/bus/pci/devices" / _NIC
    (root / "drivers" / driver).mkdir(parents=True)
    device.mkdir(parents=True)
    (device / "driver").symlink_to(root / "drivers" / driver)
    for name in interfaces:
        (device / "net" / name).mkdir(parents=True)
        (root / "sys/class/net" / name).mkdir(parents=True)
    return root


def _plan(root: Path, *selectors: Selector, mode: str = "inline") -> list[str]:
    config = DpdkConfig(mode="mirror" if mode == "mirror" else "inline")
    return list(inline.plan(config, parse(_NIC), 1, selectors or (Selector(443),), root))


def test_inline_says_which_tap_is_made_and_what_is_left_to_the_operator(tmp_path: Path) -> None:
    said = _plan(_host(tmp_path, "vfio-pci"))
    assert "TAP tickpath0: made, set up, and left at the end" in said
    assert any(line.startswith("yours to run then: ip address add") for line in said)
    assert not any("rte_flow" in line for line in said)


def test_a_tap_that_is_there_is_said_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/tickpath0").mkdir(parents=True)
    said = _plan(_host(tmp_path, "vfio-pci"))
    assert "TAP tickpath0: is there and keeps its addresses, routes and connections" in said
    assert not any("yours to run" in line for line in said)


def test_large_frames_without_huge_pages_are_warned_of(tmp_path: Path) -> None:
    root = _host(tmp_path, "vfio-pci")
    lines = "large frames lie across pages"
    assert lines in inline.across_pages(DpdkConfig(mode="inline", mtu=9000), parse(_NIC), root)
    assert any(lines in line for line in inline.plan(DpdkConfig(mode="inline", mtu=9000), parse(_NIC), 1, [], root))
    assert not inline.across_pages(DpdkConfig(mode="inline", mtu=1500), parse(_NIC), root)
    assert not inline.across_pages(DpdkConfig(mode="inline", mtu=9000), parse("net_af_packet0,iface=a"), root)
    pages = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pages.mkdir(parents=True)
    (pages / "free_hugepages").write_text("32\n")
    assert not inline.across_pages(DpdkConfig(mode="inline", mtu=9000), parse(_NIC), root)


def test_mirror_makes_no_tap(tmp_path: Path) -> None:
    assert not any("TAP" in line for line in _plan(_host(tmp_path, "vfio-pci"), mode="mirror"))


def test_of_a_nic_that_the_kernel_shares_the_rules_are_printed(tmp_path: Path) -> None:
    address = IPv6Address("::ffff:192.0.2.7").packed
    said = _plan(
        _host(tmp_path, "mlx5_core", "eth1"),
        Selector(443, address),
        Selector(9443, IPv6Address("2001:db8::7").packed),
        Selector(80),
    )
    begin = "    flow create 0 ingress pattern eth / "
    end = " / end actions queue index 0 / end"
    assert [line for line in said if line.startswith("    flow")] == [
        "    flow isolate 0 true",
        f"{begin}ipv4 src is 192.0.2.7 / tcp src is 443{end}",
        f"{begin}ipv6 src is 2001:db8::7 / tcp src is 9443{end}",
        f"{begin}ipv4 / tcp src is 80{end}",
        f"{begin}ipv6 / tcp src is 80{end}",
    ]
    assert any("none to eth1" in line for line in said)
    assert "eth1: its addresses and routes are yours to move to tickpath0; nothing moves them" in said


@pytest.mark.parametrize("tap", ["", "sixteen-bytes-00", "a/b", "a b", "..", "tap%d"])
def test_a_name_that_no_interface_can_have_is_refused(tap: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of an interface"):
        inline.check(DpdkConfig(mode="inline", tap=tap), parse("net_null0"), tmp_path)


def test_the_default_route_s_interface_is_refused_unless_that_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "default_interfaces", lambda: ["eth1"])
    _host(tmp_path, "ixgbe", "eth1")
    with pytest.raises(ConfigError, match=r"eth1, over which this host's default route goes.*--default-route"):
        inline.check(DpdkConfig(mode="inline"), parse(_NIC), tmp_path)
    inline.check(DpdkConfig(mode="inline", default_route=True), parse(_NIC), tmp_path)
