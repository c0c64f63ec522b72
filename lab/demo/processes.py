# SPDX-License-Identifier: Apache-2.0
"""The demo's processes: started, waited for until each is ready, and stopped again, whatever happened in between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tickpath.errors import TickpathError

_POLL_S = 0.02
_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


class DemoError(TickpathError):
    """A part of the demo did not come up, or ended by itself."""


def _end_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: arrange to be ended when `parent` does, even by kill -9."""

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)

    return arrange


class Child:
    """One `tickpath` process of ours. Its standard error goes to `log`, its standard output to `output`."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.output = folder / f"{name}.out"
        with self.log.open("wb") as log, self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tickpath", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=environment,
                # Ctrl-C is for the demo: it stops the others in their order.
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - one call into libc; the demo has no other threads
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line that it logged."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Raises DemoError when the process ends, or the time is over, before `ready()`."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code is not None:
                raise DemoError(f"{self.name} ended with {self.exit_code} before {what}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name}: no {what} after {seconds:g} s: {self.last_words()}")
            time.sleep(_POLL_S)

    def stop(self, seconds: float = _STOP_S) -> None:
        """Ask it to end; one that has not after `seconds` is killed."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            self.wait_for_end(seconds)
        if self.exit_code is None:
            self._process.kill()
            self._process.wait()

    def wait_for_end(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
