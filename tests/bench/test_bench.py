# SPDX-License-Identifier: Apache-2.0
"""The bench runs and leaves no row out; its statistics are what they say. No test here looks at a duration."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tickpath.errors import TickpathError
from tickpath.lab.bench import dpdk_rows, inline_rows, kernel_rows
from tickpath.lab.bench.command import GROUPS, Report
from tickpath.lab.bench.measure import Effort, alternate, interval_of
from tickpath.lab.bench.row import Group, Row, Settings, Verdict

ROOT = Path(__file__).parent.parent.parent
HAS_DPDK = importlib.util.find_spec("tickpath.lab.bench._dpdk_bench")


def _bench(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "tickpath", "bench", "--output", str(tmp_path / "bench.json"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path, check=False)


def test_a_quick_run_has_every_row(tmp_path: Path) -> None:
    ran = _bench(tmp_path, "--quick", "--json")
    assert ran.returncode == 0, ran.stderr
    report = msgspec.json.decode(ran.stdout.splitlines()[-1], type=Report)
    assert [row.name for row in report.rows] == [title.name for g in GROUPS.values() for title in g.titles]
    assert msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Report) == report
    for row in report.rows:
        assert row.verdict is not Verdict.SKIPPED or row.note, f"{row.name} was not measured and does not say why"
        assert row.verdict is Verdict.SKIPPED or row.value is not None, row.name
        if row.bar and row.verdict is not Verdict.SKIPPED:
            assert row.verdict is not Verdict.SHOWN, f"{row.name} has a bar and no verdict"
    measured = {row.name for row in report.rows if row.verdict is not Verdict.SKIPPED}
    may_be_refused = {"wire_blast", "wire_paced", "idle_feed", "idle_wire", "idle_exporter", "memory_wire"}
    may_be_refused |= {"observer_effect", "observer_load"}
    groups = (kernel_rows.GROUP, dpdk_rows.GROUP, inline_rows.GROUP)
    may_be_refused |= {title.name for group in groups for title in group.titles}
    of_loop = {title.name for title in dpdk_rows.GROUP.titles}
    of_inline = {title.name for title in inline_rows.GROUP.titles}
    without_dpdk = set() if HAS_DPDK and shutil.which("dpdk-testpmd") else of_loop
    without_dpdk |= set() if HAS_DPDK else of_inline
    allowed = set() if os.geteuid() == 0 and len(os.sched_getaffinity(0)) > 1 else may_be_refused
    assert {row.name for row in report.rows} - measured <= allowed | without_dpdk


def test_one_group_is_measured_when_one_is_asked_for(tmp_path: Path) -> None:
    ran = _bench(tmp_path, "--quick", "--only", "histogram")
    assert ran.returncode == 0, ran.stderr
    assert "histogram: one observation" in ran.stdout
    assert "records received" not in ran.stdout


def test_an_unknown_group_is_one_line_that_names_those_there_are(tmp_path: Path) -> None:
    ran = _bench(tmp_path, "--only", "rong")
    assert ran.returncode != 0
    assert "rong" in ran.stderr
    assert "ring" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_row_is_described_in_the_readme() -> None:
    described = (ROOT / "lab" / "bench" / "README.md").read_text()
    for group in GROUPS.values():
        for title in group.titles:
            assert f"`{title.name}`" in described


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 0, 0), (5, 0, 4), (6, 0, 5), (8, 0, 7), (9, 1, 7), (20, 5, 14), (40, 13, 26)],
)
def test_a_median_lies_between_the_order_statistics_of_the_tables(count: int, low: int, high: int) -> None:
    # The classic table of distribution-free 95 % limits of a median (5 and less: the range).
    found = interval_of([float(value) for value in reversed(range(count))])
    assert (found.low, found.high) == (low, high)
    assert found.median == (count - 1) / 2


def test_pairs_alternate_who_goes_first() -> None:
    order: list[str] = []

    def ours() -> float:
        order.append("ours")
        return 2.0

    def theirs() -> float:
        order.append("theirs")
        return 4.0

    pairs = alternate(ours, theirs, Effort(4, 4, 0), before=lambda: order.append("-"))
    assert order == ["-", "ours", "theirs", "-", "theirs", "ours"] * 2
    assert pairs.ratio.median == 0.5


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    def run(_settings: Settings, rows: dict[str, Row]) -> None:
        rows["first"].measured([1.0, 2.0, 3.0])
        raise TickpathError("no permission: run as root")

    titles = tuple(Row(name=name, what=name, unit="ns") for name in ("first", "second"))
    first, second = Group("group", titles, run).measure(Settings(quick=True, folder=tmp_path, clock_ns=20))
    assert (first.verdict, first.value, first.note) == (Verdict.SHOWN, 2.0, "")
    assert (second.verdict, second.value, second.note) == (Verdict.SKIPPED, None, "no permission: run as root")
    assert titles[0].value is None
