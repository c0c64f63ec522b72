# SPDX-License-Identifier: Apache-2.0
"""What cannot work is refused in one line with its remedy; a full ring is its readers' loss, counted, and no more."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk, pcap_file, refused
from tickpath.dpdk_capture.config import DpdkConfig
from tickpath.dpdk_capture.device import DeviceError, bound_devices, chosen, owners, parse
from tickpath.dpdk_capture.eal import EalError, arguments, cores, explained, uses_huge_pages
from tickpath.errors import ConfigError, NotHereError
from tickpath.event import Counter, Kind

ADDRESS = "0000:01:00.0"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="DPDK wants root")


class _Host:
    """A made-up sysfs with one NIC."""

    def __init__(self, root: Path, driver: str | None, *, iommu: bool = True, interface: str | None = None) -> None:
        self.root = root
        device = root / "sys/bus/pci/devices" / ADDRESS
        device.mkdir(parents=True)
        (device / "class").write_text("0x020000\n")
        if driver:
            (device / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        if interface:
            (device / "net" / interface).mkdir(parents=True)
        (root / "sys/module/vfio_iommu_type1/parameters").mkdir(parents=True)
        groups = root / "sys/kernel/iommu_groups"
        groups.mkdir(parents=True)
        self.group = root / "dev/vfio/7"
        if iommu:
            self.group.parent.mkdir(parents=True)
            self.group.touch()
            (groups / "7").mkdir()
            (device / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
        (root / "proc").mkdir()

    def process(self, pid: int, name: str, *files: str) -> None:
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(name + "\n")
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(file)


def test_a_nic_that_the_kernel_has_is_refused_with_the_bind_command(tmp_path: Path) -> None:
    host = _Host(tmp_path, "e1000e", interface="eth0")
    with pytest.raises(DeviceError, match=r"e1000e, where it is interface eth0.*--bind=vfio-pci 0000:01:00\.0$"):
        chosen(ADDRESS, host.root)
    assert bound_devices(host.root) == []


def test_a_nic_without_driver_is_refused_with_the_bind_command(tmp_path: Path) -> None:
    host = _Host(tmp_path, None)
    with pytest.raises(DeviceError, match=r"bound to no driver; run: modprobe vfio-pci && dpdk-devbind\.py"):
        chosen("01:00.0", host.root)


def test_a_host_without_iommu_is_told_how_to_have_one(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci", iommu=False)
    with pytest.raises(DeviceError, match="no IOMMU: boot with intel_iommu=on"):
        chosen(ADDRESS, host.root)
    unsafe = host.root / "sys/module/vfio/parameters"
    unsafe.mkdir(parents=True)
    (unsafe / "enable_unsafe_noiommu_mode").write_text("Y\n")
    assert chosen(ADDRESS, host.root).name == ADDRESS


def test_a_nic_that_another_process_owns_is_refused_with_its_pid(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    host.process(4711, "testpmd", "/dev/null", "/dev/vfio/7")
    host.process(4712, "other", "/dev/vfio/8", "/dev/vfio/vfio")
    assert owners(ADDRESS, host.root) == [4711]
    with pytest.raises(DeviceError, match=r"in use by process 4711 \(testpmd\)"):
        chosen(ADDRESS, host.root)


def test_processes_are_looked_for_where_a_container_has_the_hosts(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    host.process(4711, "testpmd", "/dev/vfio/7")
    (tmp_path / "proc").rename(tmp_path / "of-the-host")
    (tmp_path / "proc").mkdir()
    assert chosen(ADDRESS, host.root).name == ADDRESS
    with pytest.raises(DeviceError, match=r"in use by process 4711 \(testpmd\)"):
        chosen(ADDRESS, host.root, proc=tmp_path / "of-the-host")


def test_an_owner_that_cannot_be_seen_is_told_of_by_vfio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = _Host(tmp_path, "vfio-pci")

    def busy(path: Path, flags: int) -> int:
        assert path == host.group
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(DeviceError, match=r"process that cannot be seen from here.*`fuser -v \S+/dev/vfio/7` names it"):
        chosen(ADDRESS, host.root)


def test_a_container_without_the_file_of_the_group_is_told_which(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    host.group.unlink()
    with pytest.raises(DeviceError, match=r"dev/vfio/7 is not to be had.*as compose\.dpdk\.yaml does"):
        chosen(ADDRESS, host.root)
    (host.group.parent / "noiommu-7").touch()
    assert chosen(ADDRESS, host.root).name == ADDRESS


def test_half_of_vfio_is_told_of(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    shutil.rmtree(host.root / "sys/module/vfio_iommu_type1")
    with pytest.raises(DeviceError, match="run: modprobe vfio_iommu_type1"):
        chosen(ADDRESS, host.root)


def test_auto_takes_the_one_bound_nic(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    assert chosen("auto", host.root).name == ADDRESS
    second = host.root / "sys/bus/pci/devices/0000:02:00.0"
    second.mkdir()
    (second / "class").write_text("0x020000\n")
    (second / "driver").symlink_to("../x/vfio-pci")
    with pytest.raises(ConfigError, match=r"several NICs.*0000:02:00\.0"):
        chosen("auto", host.root)


def test_auto_without_a_bound_nic_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match="tickpath probe wire"):
        chosen("auto", _Host(tmp_path, "e1000e").root)


def test_what_is_no_nic_is_refused(tmp_path: Path) -> None:
    host = _Host(tmp_path, "vfio-pci")
    (host.root / "sys/bus/pci/devices" / ADDRESS / "class").write_text("0x010802\n")
    with pytest.raises(DeviceError, match="is no NIC"):
        chosen(ADDRESS, host.root)
    with pytest.raises(DeviceError, match="there is no PCI device 0000:09"):
        chosen("0000:09:00.0", host.root)


@pytest.mark.parametrize("text", ["", "0000:01:00", "eth0!", "NET_null", "../x"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a PCI address"):
        parse(text)


def test_too_few_huge_pages_are_told(tmp_path: Path) -> None:
    pages = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pages.mkdir(parents=True)
    (pages / "free_hugepages").write_text("3\n")
    with pytest.raises(EalError, match=r"6 MiB of huge pages are free and memory_mb is 64; run: echo 32 >"):
        uses_huge_pages(DpdkConfig(memory="huge"), tmp_path)
    assert not uses_huge_pages(DpdkConfig(memory="auto"), tmp_path)
    (pages / "free_hugepages").write_text("32\n")
    assert uses_huge_pages(DpdkConfig(memory="auto"), tmp_path)
    assert not uses_huge_pages(DpdkConfig(memory="none"), tmp_path)


def test_arguments_follow_from_the_configuration() -> None:
    config = DpdkConfig(memory_channels=4, memory_mb=128, eal=["--log-level=8"])
    given = arguments(config, parse("net_null0,size=64"), 1, huge=False)
    for pair in (("--lcores", "0@1"), ("-m", "128"), ("-n", "4"), ("--vdev", "net_null0,size=64")):
        assert given[given.index(pair[0]) + 1] == pair[1]
    assert {"--no-huge", "--no-pci"} <= set(given)
    assert given[-1] == "--log-level=8"
    given = arguments(config, parse("01:00.0,rx_vec=0"), 1, huge=True)
    assert given[given.index("-a") + 1] == "0000:01:00.0,rx_vec=0"
    assert "--in-memory" in given
    assert "--no-pci" not in given


def test_loops_do_not_share_processors() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert cores(DpdkConfig()) == allowed[-1:]
    with pytest.raises(ConfigError, match="cannot run on processor 4096"):
        cores(DpdkConfig(cores=[4096]))
    with pytest.raises(ConfigError, match="2 cores for 1 queues"):
        cores(DpdkConfig(cores=[0, 1]))
    with pytest.raises(ConfigError, match="cannot share a processor"):
        cores(DpdkConfig(queues=2, cores=[allowed[0]] * 2))


def test_a_failure_is_one_line_with_its_remedy() -> None:
    said = "EAL: Detected CPU lcores: 2\nEAL: Cannot get hugepage information.\n"
    assert explained(said, "") == "Cannot get hugepage information.; no huge pages can be had: use --memory none"
    assert explained("", "No such device") == "No such device"


@needs_dpdk
@root_only
@pytest.mark.root
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device", "net_nonsense0"), "net_nonsense0"),
        (("--device", "net_null0", "--eal=--no-such-thing"), "see --eal"),
        (("--device", "net_null0", "--memory-mb", "16", "--buffers", "1000000"), "raise --memory-mb"),
        (("--device", "net_af_packet0,iface=tpnothere"), "net_af_packet0"),
    ],
)
def test_what_dpdk_refuses_is_one_line(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in refused(*flags, "--memory", "none", "--directory", str(tmp_path))


@needs_dpdk
@root_only
@pytest.mark.root
def test_a_second_instance_is_refused_and_a_full_ring_costs_readers_alone(tmp_path: Path) -> None:
    # A frame of 64 bytes for the watched port, ten times what the ring holds.
    frame = bytes.fromhex("02" * 12 + "0800" + "4500003200000000400600000a0000010a000002" + "01bb0005")
    frame += bytes(8) + b"\x50\x10" + bytes(6) + b"0123456789"
    file = pcap_file(tmp_path / "f.pcap", ((number, frame) for number in range(1000)))
    device = f"net_pcap0,rx_pcap={file}"
    with DpdkCapture(tmp_path / "r", device, "--port", "443", "--capacity", "128") as capture:
        capture.ready()
        capture.wait_for(Counter.DPDK_PUBLISHED, 1000)
        taken = capture.records(Kind.SEGMENT)
        assert len(taken) < 1000
        reader = capture.readers[0]
        assert reader.lost > 0
        assert reader.cursor == reader.head
        again = refused("--device", device, "--directory", str(tmp_path / "r"), "--memory", "none")
        assert "dpdk-net_pcap0-0" in again
        assert capture.process.poll() is None
    assert capture.process.returncode == 0


def _auto(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "tickpath", "capture", "auto", "--directory", str(directory), "--log-format"]
    environment = {**os.environ, "TICKPATH_WIRE_INTERFACE": "tpnothere", **environment}
    return subprocess.run([*argv, "logfmt"], capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_auto_goes_on_as_the_probe_of_af_packet_and_says_why(tmp_path: Path) -> None:
    done = _auto(tmp_path)
    if "source=dpdk" in done.stderr:
        pytest.skip("a NIC is bound for DPDK here")
    assert "event=wire_source source=af_packet not_dpdk=" in done.stderr
    assert "no interface 'tpnothere'" in done.stderr.splitlines()[-1]
    assert done.returncode == 2


@needs_dpdk
@root_only
@pytest.mark.root
def test_auto_goes_on_where_dpdk_does_not_start(tmp_path: Path) -> None:
    done = _auto(tmp_path, TICKPATH_DPDK_DEVICE="net_nonsense0", TICKPATH_DPDK_MEMORY="none")
    assert "event=wire_source source=dpdk device=net_nonsense0" in done.stderr
    assert 'event=wire_source source=af_packet not_dpdk="' in done.stderr
    assert "no interface 'tpnothere'" in done.stderr.splitlines()[-1]
    assert done.returncode == 2
