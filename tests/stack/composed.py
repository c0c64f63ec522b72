# SPDX-License-Identifier: Apache-2.0
"""compose.yaml in an engine of the tests' own: its commands, its state, the interfaces that it publishes."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.engine import Engine
from stack.images import ROOT
from stack.prometheus import Api

FILES = ["-f", ROOT / "compose.yaml", "-f", Path(__file__).with_name("override.yaml")]
DPDK_FILES = [*FILES, "-f", ROOT / "compose.dpdk.yaml", "-f", Path(__file__).with_name("override.dpdk.yaml")]
PORTS = {"exporter": 18064, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
REGION = "test-1"
BUILD = ROOT / "build"
"""Where the tests write what they measured."""


def compose(
    host: Engine, *arguments: str, check: bool = True, files: Sequence[str | Path] = FILES, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of docker compose to its end, with these variables set."""
    return host.docker("compose", *files, *arguments, check=check, cwd=ROOT, env=env)


def state(host: Engine) -> dict[str, dict[str, Any]]:
    """Service to what compose says of its container."""
    listed = compose(host, "--profile", "demo", "ps", "--all", "--format", "json").stdout
    return {one["Service"]: one for one in map(json.loads, listed.splitlines())}


def down(host: Engine) -> None:
    """End everything, and forget what it kept."""
    compose(host, "--profile", "demo", "down", "--volumes", "--timeout", "20")


def namespace(host: Engine) -> Path:
    """The network that is the host's to the engine's containers."""
    return Path(f"/proc/{host.pid}/ns/net")


def published(host: Engine, service: str) -> Api:
    """The HTTP interface of a service."""
    return Api(f"http://127.0.0.1:{PORTS[service]}", namespace(host))


class ClockWatch:
    """Whether anybody set the host's clock since this was made: the kernel says so by a timer that it cancels then."""

    _NONBLOCK, _ABSOLUTE, _CANCEL_ON_SET = 0o4000, 1, 2

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._timer = libc.timerfd_create(time.CLOCK_REALTIME, self._NONBLOCK)
        in_a_century = (ctypes.c_long * 4)(0, 0, int(time.time()) + 3_000_000_000, 0)
        if libc.timerfd_settime(self._timer, self._ABSOLUTE | self._CANCEL_ON_SET, in_a_century, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._was_set = False

    def was_set(self) -> bool:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            pass
        except OSError:  # ECANCELED, once
            self._was_set = True
        return self._was_set


@dataclass(frozen=True)
class Started:
    """The stack of the profile `demo`: the monotonic time at which `up` was called, and how long that took."""

    host: Engine
    began_s: float
    up_s: float
    clock: ClockWatch

    @property
    def prometheus(self) -> Api:
        return published(self.host, "prometheus")

    def sees_the_kernel(self) -> bool:
        """Whether this kernel lets the kernel probe see what it is for."""
        return "this host has no" not in compose(self.host, "logs", "kernel").stdout
