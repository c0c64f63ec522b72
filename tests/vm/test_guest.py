# SPDX-License-Identifier: Apache-2.0
"""A guest that does not boot is started again, and said; one that fails at its command is not."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from vm.guest import GuestError, NotBootedError, boot

BEGINS = "echo 'tickpath: the guest runs its command at 3 s' >>console; "
RETURNS = "mkdir -p r; echo 7 >r/status; tar -C r -cf returned ."


def _emulator(folder: Path, *lives: str) -> list[str]:
    """What stands for the emulator: another script at each start."""
    for number, life in enumerate(lives):
        (folder / f"life-{number}").write_text(life)
    quoted = shlex.quote(str(folder))
    count = "n=$(cat starts 2>/dev/null || echo 0); echo $((n + 1)) >starts"
    return ["sh", "-c", f"cd {quoted}; {count}; . ./life-$n"]


def test_a_boot_that_fails_is_tried_again_and_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = boot(_emulator(tmp_path, "echo Oops >>console", BEGINS + RETURNS), tmp_path, 60)
    assert ended.status == 7
    said = capfd.readouterr()
    assert "boots again" in said.out + said.err
    assert "Oops" in said.out + said.err
    assert "Oops" not in (tmp_path / "console").read_text()


@pytest.mark.parametrize("life", ["echo words >>output; ", ""], ids=["said something", "left a result"])
def test_a_kernel_that_speaks_amid_the_first_line_has_booted_nevertheless(tmp_path: Path, life: str) -> None:
    amid = "echo 'tickpath: the guest ru[    9.1] rcu: INFO' >>console; "
    assert boot(_emulator(tmp_path, amid + life + RETURNS), tmp_path, 60).status == 7
    assert (tmp_path / "starts").read_text() == "1\n"


def test_three_boots_that_fail_are_enough(tmp_path: Path) -> None:
    with pytest.raises(NotBootedError, match="Oops"):
        boot(_emulator(tmp_path, *["echo Oops >>console"] * 4), tmp_path, 60)
    assert (tmp_path / "starts").read_text() == "3\n"


@pytest.mark.parametrize("life", [BEGINS, BEGINS + "exec sleep 60"], ids=["no result", "no end"])
def test_what_fails_after_its_boot_is_not_tried_again(tmp_path: Path, life: str) -> None:
    with pytest.raises(GuestError) as failed:
        boot(_emulator(tmp_path, life, BEGINS + RETURNS), tmp_path, 6)
    assert not isinstance(failed.value, NotBootedError)
    assert (tmp_path / "starts").read_text() == "1\n"
