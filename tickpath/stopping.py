# SPDX-License-Identifier: Apache-2.0
"""How a probe is told to stop: SIGTERM or SIGINT make a descriptor readable, whichever thread they reach."""

from __future__ import annotations

import os
import signal


def stop_pipe() -> tuple[int, int]:
    """A descriptor that turns readable with the first signal, and its other end for who ends the process otherwise.

    Call it once, in the main thread.
    """
    # Written by the signal handler in whichever thread the kernel gave the signal to: the main thread may not see it.
    stop_fd, stop = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(stop, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return stop_fd, stop
