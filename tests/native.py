# SPDX-License-Identifier: Apache-2.0
"""Builds C drivers of tests against the tree's own sources, as strictly as the build compiles our own C."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wpointer-arith", "-Wstrict-prototypes"]


def unsanitized() -> dict[str, str]:
    """The environment for a compiler: a sanitizer loaded before this process (make sanitize) is not for it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def compiled(program: Path, sources: list[Path], *flags: str, overlay: Path | None = None, cc: str = "") -> Path:
    """Compile `sources` to `program` and return it; headers in the folder `overlay` take the place of the tree's."""
    compiler = shlex.split(cc or os.environ.get("CC", "cc"))
    include = [f"-I{folder}" for folder in (overlay, ROOT) if folder]
    command = [*compiler, "-std=gnu11", "-g", *WARNINGS, *flags, *include, "-o", program, *sources, "-lm", "-pthread"]
    subprocess.run(command, check=True, env=unsanitized())
    return program
