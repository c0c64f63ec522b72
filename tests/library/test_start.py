# SPDX-License-Identifier: Apache-2.0
"""A command starts as one thread, and its collector leaves alone what was imported."""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import gc, os, sys
from tickpath import cli
from tickpath.__main__ import main
from tickpath.command import Command

def run(arguments):
    import numpy
    print(len(os.listdir("/proc/self/task")), gc.isenabled(), gc.get_freeze_count() > 1_000)
    return 0

class Entry:
    name = "x"
    load = staticmethod(lambda: Command(help="x", add_arguments=lambda parser: None, run=run))

cli._registered = lambda: {"x": Entry}
sys.argv = ["tickpath", "x"]
sys.exit(main())
"""


def test_no_thread_is_started_and_what_was_imported_is_not_collected() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-P", "-c", _SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "True", "True"], done.stderr
