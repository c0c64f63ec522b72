# SPDX-License-Identifier: Apache-2.0
"""Whatever threads call the correlator at once, its books add up and ThreadSanitizer sees no race."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from native import ROOT, compiled

LIBRARY = [ROOT / "tickpath" / name for name in ("clock.c", "epochs.c", "fit.c", "ring.c")]
CORRELATOR = ROOT / "exporter" / "correlator"
# -Wno-tsan: fences are not modelled; they order atomics, between which it sees no race anyway.
FLAGS = ["-O1", "-fsanitize=thread", "-Wno-tsan"]


def _run(folder: Path, correlator: Path) -> subprocess.CompletedProcess[str]:
    others = [path for path in CORRELATOR.glob("*.c") if path.name != "correlator.c"]
    sources = [Path(__file__).parent / "correlator_threads.c", correlator, *others, *LIBRARY]
    program = compiled(folder / "threads", sources, *FLAGS)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="tickpath-threads-") as rings:
        return subprocess.run(
            [program, f"{rings}/a.ring", "20000"], capture_output=True, text=True, check=False, timeout=60
        )


def test_every_call_from_a_thread_of_its_own(tmp_path: Path) -> None:
    result = _run(tmp_path, CORRELATOR / "correlator.c")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0


def test_a_lock_that_is_not_taken_is_found_out(tmp_path: Path) -> None:
    text = (CORRELATOR / "correlator.c").read_text()
    head, view = text.split("int tp_correlator_view(", 1)
    for call in ("enter(c);", "pthread_mutex_unlock(&c->lock);"):
        assert call in view
        view = view.replace(call, "")
    (tmp_path / "correlator.c").write_text(f"{head}int tp_correlator_view({view}")
    result = _run(tmp_path, tmp_path / "correlator.c")
    assert result.returncode != 0
    assert "data race" in result.stderr or "violated" in result.stderr
