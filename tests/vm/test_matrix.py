# SPDX-License-Identifier: Apache-2.0
"""The guests' verdict: unlike the matrix is wrong, whichever way."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vm.images import KERNELS
from vm.matrix import HARDWARE, RUNGS, Guest, _judged

MATRIX = tomllib.loads((Path(__file__).parent / "matrix.toml").read_text())
PASSES, FAILS = "<testcase name='a'/>", "<testcase name='b'><failure message='no'/></testcase>"
BREAKS = "<testcase name='c'><error message='no'/></testcase>"
SKIPS = "<testcase name='d'><skipped message='not here'/></testcase>"
GUEST = Guest("g", "6.1", "none", {"tp_btf": "refused: no such tracepoint", "kprobe": "passed stream"})


def _wrong(results: Path, rung: str, skips: tuple[str, ...] = ()) -> str:
    return _judged(GUEST, rung, results, list(skips), "it did not run").wrong


def test_every_row_names_a_kernel_that_is_made_and_every_rung() -> None:
    for guest in (Guest(**row) for row in MATRIX["guest"]):
        assert guest.kernel in KERNELS
        assert set(guest.rungs) | {"bcc"} == set(RUNGS) or guest.cable or set(guest.rungs) == {HARDWARE}
        for expected in guest.rungs.values():
            assert expected.startswith("refused: ") or expected.removeprefix("passed ") in MATRIX["suites"]


@pytest.mark.parametrize(
    ("cases", "skips", "wrong"),
    [
        (PASSES, (), ""),
        (PASSES + SKIPS, ("not here",), ""),
        (PASSES + SKIPS, ("elsewhere",), "skipped: d"),
        (PASSES + FAILS, (), "failed: b"),
        (PASSES + BREAKS, (), "failed: c"),
        (SKIPS, ("not here",), "no test ran"),
        ("", (), "no test ran"),
    ],
)
def test_tests_that_fail_or_skip_or_do_not_run_are_wrong(
    tmp_path: Path, cases: str, skips: tuple[str, ...], wrong: str
) -> None:
    (tmp_path / "kprobe.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = _wrong(tmp_path, "kprobe", skips)
    assert found.startswith(wrong) if wrong else not found


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("77\nthis kernel has no such tracepoint; do that\n", ""),
        ("0\n", "and runs"),
        ("77\nsomething else\n", "without one line"),
        ("1\nTraceback\nno such tracepoint\n", "without one line"),
    ],
)
def test_a_rung_is_refused_in_one_line_with_the_words_or_wrong(tmp_path: Path, said: str, wrong: str) -> None:
    (tmp_path / "tp_btf.refusal").write_text(said)
    found = _wrong(tmp_path, "tp_btf")
    assert wrong in found if wrong else not found


def test_a_guest_without_a_result_or_another_lockdown_is_wrong(tmp_path: Path) -> None:
    assert _wrong(tmp_path, "kprobe") == "it did not run"
    (tmp_path / "kprobe.xml").write_text(f"<testsuite>{PASSES}</testsuite>")
    assert not _wrong(tmp_path, "kprobe")
    (tmp_path / "lockdown").write_text("integrity")
    assert "lockdown is integrity" in _wrong(tmp_path, "kprobe")
