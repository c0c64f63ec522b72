# SPDX-License-Identifier: Apache-2.0
"""Loading the BPF programs, and what to tell an operator for whom that fails: one line with the remedy."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tickpath.errors import PermissionMissingError, TickpathError
from tickpath.selector import Selector

if TYPE_CHECKING:
    from tickpath.probes.kernel._tracer import Tracer

OBJECT = Path(__file__).with_name("typed.bpf.o")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")


class UnavailableError(TickpathError):
    """This host, or this installation, has no such probe; `remedy` says what would bring it, None: nothing does."""

    def __init__(self, reason: str, remedy: str | None) -> None:
        super().__init__(f"the kernel probe cannot run: {reason}" + (f"; {remedy}" if remedy else ""))
        self.reason = reason
        self.remedy = remedy


class ForbiddenError(UnavailableError, PermissionMissingError):
    """The host could, and this process may not."""


def load(selectors: Sequence[Selector], *, cgroup: int, buffer_bytes: int) -> Tracer:
    """The programs in the kernel, not attached yet. UnavailableError with the remedy; `cgroup` 0: any."""
    if find_spec("tickpath.probes.kernel._tracer") is None or not OBJECT.exists():
        raise UnavailableError(
            "this installation was built without it",
            "install clang and libbpf-dev (version 1.0 or later) and install tickpath from source",
        )
    # Imported here: the module is an optional part of an installation.
    from tickpath.probes.kernel._tracer import Tracer  # noqa: PLC0415

    try:
        return Tracer(OBJECT, selectors, cgroup=cgroup, buffer_bytes=buffer_bytes)
    except OSError as error:
        raise explained(error) from None


def explained(error: OSError) -> UnavailableError:
    """The error of a load or an attach, for an operator."""
    reason = error.strerror or str(error)
    if error.errno in (errno.EPERM, errno.EACCES):
        locked = _lockdown()
        if locked:
            reason += f", and the kernel is locked down ({locked})"
        return ForbiddenError(reason, f"it needs CAP_BPF and CAP_PERFMON in the initial user namespace: {_as_root()}")
    if error.errno == errno.ENOENT:
        return UnavailableError(reason, "run a kernel built with CONFIG_DEBUG_INFO_BTF=y")
    if error.errno == errno.EOPNOTSUPP:
        return UnavailableError(reason, "run Linux 6.4 or later; other ways to attach are not in this version")
    return UnavailableError(reason, None)


def _lockdown() -> str:
    """The mode of lockdown that is on; empty where none is, or nobody can tell."""
    try:
        mode = _LOCKDOWN.read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return ""
    return "" if mode == "none" else mode


def _as_root() -> str:
    # Started with `python -m`, argv[0] is a module file, which nobody could run.
    command = " ".join([shutil.which("tickpath") or f"{sys.executable} -m tickpath", *sys.argv[1:]])
    return f"run sudo {command}"
