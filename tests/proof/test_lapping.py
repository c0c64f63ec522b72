# SPDX-License-Identifier: Apache-2.0
"""A producer that laps its reader all the time tears nothing, in two processes and, as far as it sees, for TSan.

ThreadSanitizer does not model fences (hence -Wno-tsan) and no access to an atomic is a race to it, so of the protocol
it says nothing: ring.pml does. What it does find is a shared word that is touched by a plain access; the last test
shows that it would.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from native import ROOT, compiled

SOURCES = [Path(__file__).parent / "lapping.c", ROOT / "tickpath" / "ring.c"]
THREADS = ["-O1", "-fsanitize=thread", "-Wno-tsan"]


def _run(program: Path, ring: Path, count: int, how: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([program, ring, str(count), how], capture_output=True, text=True, check=False)
    finally:
        ring.unlink(missing_ok=True)


def _overlay(folder: Path, old: str, new: str) -> Path:
    text = (ROOT / "tickpath" / "ring.h").read_text()
    assert text.count(old) == 1, old
    (folder / "tickpath").mkdir()
    (folder / "tickpath" / "ring.h").write_text(text.replace(old, new))
    return folder


@pytest.fixture
def ring() -> Iterator[Path]:
    """A name on tmpfs, where rings live, that no other test has."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="tickpath-lapping-") as folder:
        yield Path(folder) / "a.ring"


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_two_processes_tear_and_lose_nothing_uncounted(tmp_path: Path, ring: Path, level: str) -> None:
    program = compiled(tmp_path / "lapping", SOURCES, level)
    received = lost = 0
    for _ in range(40):  # a run in which only one of the two got a core shows little
        result = _run(program, ring, 2_000_000, "processes")
        assert result.returncode == 0, result.stderr
        counts = result.stdout.split()
        received, lost = received + int(counts[0]), lost + int(counts[1])
        if received > 2000 and lost > 2000:
            return
    pytest.fail(f"the two hardly ran against each other: {received} received, {lost} lost")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "if (atomic_load_explicit(&slot->words[0], memory_order_relaxed) == wanted) {\n                atomic",
            "{ atomic",
        ),
        ("reader->lost += resume - reader->cursor;", "reader->lost += resume - reader->cursor - 1;"),
    ],
    ids=["not looked at again", "one loss forgotten"],
)
def test_a_broken_ring_is_found_out(tmp_path: Path, ring: Path, old: str, new: str) -> None:
    # Not made faster: a record that takes its time to be copied is torn more often.
    broken = compiled(tmp_path / "lapping", SOURCES, "-O0", overlay=_overlay(tmp_path, old, new))
    for _ in range(40):
        if _run(broken, ring, 2_000_000, "processes").returncode == 1:
            return
    pytest.fail("forty runs saw nothing wrong")


def test_threads_touch_shared_words_by_atomics_alone(tmp_path: Path, ring: Path) -> None:
    result = _run(compiled(tmp_path / "lapping", SOURCES, *THREADS), ring, 100_000, "threads")
    assert result.returncode == 0, result.stderr


def test_a_plain_access_is_found_out(tmp_path: Path, ring: Path) -> None:
    old = "atomic_store_explicit(&slot->words[word], words[word], memory_order_relaxed);"
    overlay = _overlay(tmp_path, old, "((uint64_t *)slot)[word] = words[word];")
    result = _run(compiled(tmp_path / "lapping", SOURCES, *THREADS, overlay=overlay), ring, 100_000, "threads")
    assert "data race" in result.stderr
