# SPDX-License-Identifier: Apache-2.0
"""The last rung: bcc, of the system's Python, compiles on the host what needs no types of the kernel's.

bcc is a package of the distribution, which an environment of our own does not see, and holds a compiler of some 200 MB.
So it runs in a process of its own, for as long as it compiles; what is attached is handed over as descriptors.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from tickpath.errors import NotHereError

PYTHON = Path("/usr/bin/python3")
_FOLDER = Path(__file__).with_name("bcc")
_DESCRIPTORS = 32
_NO_BCC = 3
_NEWS_BYTES = 4096


class BccError(NotHereError):
    """bcc cannot be used; `reason` and `remedy` are for an operator, remedy None: nothing helps."""

    def __init__(self, reason: str, remedy: str | None) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class Attached:
    """Descriptors of what is attached: two maps, the programs, and what holds each to its tracepoint."""

    events: int
    counters: int
    programs: Sequence[int]
    tracepoints: Sequence[int]


def attach(config: bytes, *, buffer_bytes: int, python: Path = PYTHON) -> Attached:
    """Compile and attach, which takes seconds. `config`: `struct tp_kernel_config`. BccError."""
    if not python.exists():
        raise BccError(f"there is no {python}", "apt install python3-bpfcc")
    pages = buffer_bytes // os.sysconf("SC_PAGE_SIZE")
    settings = (1).to_bytes(8, "little") + config  # any 1 will do for a word that means on
    mine, its = socket.socketpair()
    words = [str(its.fileno()), str(_FOLDER / "connects.c"), str(_FOLDER.parents[2].parent), str(pages), settings.hex()]
    structlog.get_logger().info("bcc_compiles", effect="the probe begins some seconds later")
    with mine, its, tempfile.TemporaryFile() as said:
        # -I: no folder of ours, nor a variable, leads its imports elsewhere.
        command = [str(python), "-I", str(_FOLDER / "attach.py"), *words]
        with subprocess.Popen(
            command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as child:
            its.close()
            names, descriptors, _, _ = socket.recv_fds(mine, _NEWS_BYTES, _DESCRIPTORS)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if not names:
            said.seek(0)
            raise _explained(child.returncode, said.read().decode(errors="replace"), python)
    structlog.get_logger().info("bcc_compiled", peak_memory_bytes=usage.ru_maxrss * 1024)
    return _named(names.decode().splitlines(), descriptors)


def _named(names: list[str], descriptors: list[int]) -> Attached:
    found = dict(zip(names, descriptors, strict=True))
    programs = [found[name] for name in sorted(names) if name.startswith("program ")]
    for unused in programs[2:]:  # what is attached is held by its tracepoint
        os.close(unused)
    tracepoints = [found[name] for name in names if name.startswith("tracepoint ")]
    return Attached(found["events"], found["counters"], programs[:2], tracepoints)


def _explained(code: int, said: str, python: Path) -> BccError:
    if code == _NO_BCC:
        return BccError(f"{python} has no bcc", "apt install python3-bpfcc")
    lowered = said.lower()
    release = os.uname().release
    if "kernel headers" in lowered or "chdir(" in lowered:
        return BccError(f"bcc has no headers of kernel {release}", f"apt install linux-headers-{release}")
    if "not permitted" in lowered or "permission denied" in lowered:
        return BccError("bcc may not load its programs, which root may", "run it as root")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    last = (errors or lines or [f"exit code {code}"])[0 if errors else -1]
    return BccError(f"bcc failed: {last[:200]}", None)
