# SPDX-License-Identifier: Apache-2.0
"""Compiles the C drivers of these tests against the tree's headers, as strictly as the build compiles our own C."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wpointer-arith", "-Wstrict-prototypes"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

Compile = Callable[[str], Path]


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """A function from the name of a C file beside this one to its program, built with address and UB sanitizers."""

    def compile_(name: str) -> Path:
        program = tmp_path_factory.mktemp("sanitized") / Path(name).stem
        source = Path(__file__).parent / name
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run(
            [*compiler, "-std=gnu11", "-O1", "-g", *WARNINGS, *SANITIZED, "-I", ROOT, "-o", program, source], check=True
        )
        return program

    return compile_
