# SPDX-License-Identifier: Apache-2.0
"""The join in C alone, under the sanitizers: nonsense from producers breaks neither memory nor the books."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = [
    Path(__file__).parent / "join_driver.c",
    *(
        ROOT / "exporter/correlator" / name
        for name in ("accounting.c", "connections.c", "finish.c", "join.c", "timeline.c")
    ),
    *(ROOT / "tickpath" / name for name in ("clock.c", "epochs.c", "fit.c")),
]
STRICT = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wpointer-arith", "-Wstrict-prototypes"]


def build(directory: Path, *flags: str) -> Path:
    program = directory / "join_driver"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, *STRICT, *flags, "-I", ROOT, *SOURCES, "-lm", "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        tmp_path_factory.mktemp("sanitized"), "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    )


@pytest.mark.parametrize("seed", range(1, 5))
def test_whatever_comes_the_books_add_up_and_memory_is_bounded(sanitized: Path, seed: int) -> None:
    done = subprocess.run([sanitized, "fuzz", str(seed), "30000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 1000


def test_every_honest_message_has_every_leg(tmp_path: Path) -> None:
    done = subprocess.run([build(tmp_path, "-O3"), "cost", "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] >= 100_000
