# SPDX-License-Identifier: Apache-2.0
"""The books of pings under the sanitizers: whatever comes in whatever order, each ping comes to exactly one thing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from native import ROOT, compiled

HERE = Path(__file__).parent
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SOURCES = [HERE / "window_driver.c", *(ROOT / "probes" / "ping" / name for name in ("window.c", "split.c"))]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("window") / "window_driver", SOURCES, *SANITIZE)


@pytest.mark.parametrize("seed", range(1, 6))
def test_whatever_comes_the_books_add_up(driver: Path, seed: int) -> None:
    done = subprocess.run([driver, str(seed), "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    disbelieved, reply, lost, late, double, error, hw, sw, sock, tcp_info, app = map(int, done.stdout.split())
    assert min(disbelieved, reply, lost, late, double, error, hw, sw, sock, app) > 10, done.stdout
    assert tcp_info == 0


def test_a_clock_of_the_one_end_with_that_of_the_other_is_found(tmp_path: Path) -> None:
    """The driver can fail: a ladder that takes the kernel's sending with the NIC's arrival is caught."""
    text = SOURCES[1].read_text()
    right = "{slot->sent.hw_ns, reply->stamps.hw_ns, TP_PING_SOURCE_HW}"
    unchecked = "if (can_be(rtt_ns, app_ns)) {"
    assert text.count(right) == text.count(unchecked) == 1
    mixed = tmp_path / "window.c"
    mixed.write_text(text.replace(right, right.replace("sent.hw_ns", "sent.sw_ns")).replace(unchecked, "if (1) {"))
    program = compiled(tmp_path / "mixed", [SOURCES[0], mixed, SOURCES[2]], *SANITIZE)
    done = subprocess.run([program, "1", "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "violated" in done.stderr


def test_what_was_said_of_another_answer_is_found(tmp_path: Path) -> None:
    """The driver can fail: a window that takes what was said of the other answer to a doubled request is caught."""
    text = SOURCES[1].read_text()
    checked = " || slot->far.serial != slot->reply.serial"
    assert text.count(checked) == 1
    blind = tmp_path / "window.c"
    blind.write_text(text.replace(checked, ""))
    program = compiled(tmp_path / "blind", [SOURCES[0], blind, SOURCES[2]], *SANITIZE)
    done = subprocess.run([program, "1", "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "by what was said of that answer" in done.stderr
