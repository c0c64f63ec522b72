# SPDX-License-Identifier: Apache-2.0
"""Doctor: what is used, what would be better, what is missing; a provider's fault is a line, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tickpath import host
from tickpath.capability import Capability
from tickpath.clock import ClockStatus
from tickpath.doctor import Report, examine, render


class Provider:
    """Stands for an entry point."""

    def __init__(self, name: str, provide: Callable[[], object]) -> None:
        self.name = name
        self._provide = provide

    def load(self) -> Callable[[], object]:
        if self.name == "unloadable":
            raise ImportError("no module\nof that name")
        return self._provide


def report(*capabilities: Capability) -> Report:
    return examine([Provider("part", lambda: list(capabilities))])  # type: ignore[list-item]


def shown(found: Report, width: int = 120) -> str:
    out = StringIO()
    render(found, Console(file=out, width=width))
    return out.getvalue()


HARDWARE = Capability("nic_to_user", "af_packet hw", 0, False, "lo has no clock", "use a NIC with stamps")
SOFTWARE = Capability("nic_to_user", "af_packet sw", 1, True, "on lo")
SOCKET = Capability("nic_to_user", "sock", 2, True, "where true")


def test_the_best_available_source_is_used_and_only_better_ones_are_improvements() -> None:
    found = report(SOCKET, HARDWARE, SOFTWARE)
    (subject,) = (s for s in found.subjects if s.name == "nic_to_user")
    assert subject.used == "af_packet sw"
    assert subject.improvements == [HARDWARE]
    assert [s.source for s in subject.sources] == ["af_packet hw", "af_packet sw", "sock"]
    lost = replace(SOCKET, available=False, remedy="none needed")
    (subject,) = (s for s in report(SOFTWARE, lost).subjects if s.name == "nic_to_user")
    assert subject.improvements == []
    merging = replace(SOFTWARE, remedy="switch GRO off")
    (subject,) = (s for s in report(merging).subjects if s.name == "nic_to_user")
    assert subject.improvements == [merging]


def test_the_table_shows_used_better_and_fallback_in_this_order() -> None:
    lines = [
        line for line in shown(report(SOCKET, HARDWARE, SOFTWARE)).splitlines() if "af_packet" in line or "sock" in line
    ]
    assert [line.split()[:2] for line in lines] == [["nic_to_user", "used"], ["no", "af_packet"], ["also", "sock"]]
    assert "-> use a NIC with stamps" in shown(report(HARDWARE))


def test_hops_that_nobody_speaks_for_are_said_to_be_missing_and_why() -> None:
    found = report(SOFTWARE)
    names = [subject.name for subject in found.subjects]
    assert names[:6] == ["bn_to_nic", "nic_to_kernel", "kernel_to_user", "nic_to_user", "cpu", "msk"]
    words = " ".join(shown(found, 200).split())
    for hop in ("nic_to_kernel", "kernel_to_user"):
        assert f"{hop} no none not available: no part of this installation measures it" in words


def _fails() -> list[Capability]:
    raise RuntimeError("first line\nsecond line")


def test_a_provider_that_fails_is_one_line_and_hides_nobody() -> None:
    providers = [Provider("bad", _fails), Provider("unloadable", _fails), Provider("good", lambda: [SOFTWARE])]
    found = examine(providers)  # type: ignore[arg-type]
    assert [(f.provider, f.error) for f in found.failures] == [
        ("bad", "RuntimeError: first line second line"),
        ("unloadable", "ImportError: no module of that name"),
    ]
    text = shown(found)
    assert "RuntimeError: first line second line" in text
    assert "af_packet sw" in text


def test_markup_in_what_a_provider_found_is_shown_as_it_is() -> None:
    odd = Capability("nic_to_user", "[bold]x[/]", 0, False, "[/nothing]", "[red]")
    assert {"[bold]x[/]", "[/nothing]", "[red]"} <= set(shown(report(odd)).split())


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickpath", "doctor", *arguments],
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_a_table_or_one_json_object(tmp_path: Path) -> None:
    table = _run(TICKPATH_DIRECTORY=str(tmp_path))
    assert (table.returncode, table.stderr) == (0, "")
    done = _run("--json", TICKPATH_DIRECTORY=str(tmp_path))
    assert done.returncode == 0
    subjects = {subject["name"]: subject for subject in json.loads(done.stdout)["subjects"]}
    assert {"clock.utc", "clock.tai", "clock.monotonic", "host.rings", "host.btf", "host.cap_net_raw"} <= set(subjects)
    assert {"source", "rank", "available", "detail", "remedy"} <= set(subjects["clock.utc"]["sources"][0])


def test_a_wrong_configuration_is_shown_not_raised(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("directory = 1")
    done = _run("--json", TICKPATH_CONFIG=str(tmp_path / "wrong.toml"))
    (rings,) = (s for s in json.loads(done.stdout)["subjects"] if s["name"] == "host.rings")
    assert rings["used"] is None
    assert "expected path, got 1" in rings["sources"][0]["detail"]


# What the host offers, from trees made for the test


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(path: str, text: str) -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    return write


def test_utc_is_bounded_only_while_synchronised() -> None:
    synchronised, free = host.utc(ClockStatus(True, 1_250_000, 65536 * 3, 37))
    assert (synchronised.available, free.available) == (True, False)
    assert synchronised.detail == "within 1.25 ms of UTC, by the kernel's own bound; frequency +3.000 ppm"
    synchronised, free = host.utc(ClockStatus(False, None, 0, None))
    assert (synchronised.available, free.available) == (False, True)


def test_tai_is_known_once_somebody_has_set_its_offset() -> None:
    assert host.tai(ClockStatus(True, 1, 0, 37)).detail == "TAI - UTC = 37 s"
    assert not host.tai(ClockStatus(True, 1, 0, None)).available


def test_permissions_are_the_effective_ones(tree: Callable[[str, str], Path]) -> None:
    root = tree(
        "proc/self/status", "Name:\tpython\nUmask:\t0022\nCapEff:\t0000008000002000\nCapBnd:\t000001ffffffffff\n"
    )
    had = {c.subject: c.available for c in host.permissions(root)}
    assert had == {
        "host.cap_net_raw": True,
        "host.cap_net_admin": False,
        "host.cap_bpf": True,
        "host.cap_perfmon": False,
    }
    tree("proc/self/uid_map", "         0       1000          1\n")
    assert all("user namespace" in c.detail for c in host.permissions(root))


def test_governor_and_isolated_cores_are_read_where_they_can_be(tree: Callable[[str, str], Path]) -> None:
    root = tree("sys/devices/system/cpu/isolated", "\n")
    assert not host.isolated(root).available
    assert "not readable" in host.governor(root).detail
    tree("sys/devices/system/cpu/isolated", "2-3\n")
    tree("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    assert host.isolated(root).detail == "cores 2-3"
    assert host.governor(root).available
    tree("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n")
    assert host.governor(root).detail == "performance on 1, powersave on 1"
    assert not host.governor(root).available


def test_the_innermost_mount_decides_where_rings_lie(
    tree: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKPATH_DIRECTORY", str(tmp_path / "a b" / "rings"))
    escaped = str(tmp_path / "a b").replace(" ", "\\040")
    (tmp_path / "a b").mkdir()
    mounts = f"1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:5 / {escaped} rw,nosuid shared:1 - tmpfs tmpfs rw\n"
    root = tree("proc/self/mountinfo", mounts)
    memory, disk = host.rings(root)
    assert (memory.available, disk.available) == (True, False)
    assert memory.detail.endswith("writable, not made yet")
    tree("proc/self/mountinfo", mounts.splitlines()[0])
    memory, disk = host.rings(root)
    assert (memory.available, disk.available) == (False, True)


def test_an_empty_proc_and_sys_make_no_trouble(tmp_path: Path) -> None:
    assert len(host.capabilities(tmp_path)) >= 12
