# SPDX-License-Identifier: Apache-2.0
"""Loading the BPF programs, and what to tell an operator for whom that fails: one line with the remedy."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from tickpath.errors import NotHereError, PermissionMissingError
from tickpath.probes.kernel import system_bcc
from tickpath.selector import Selector

if TYPE_CHECKING:
    from tickpath.probes.kernel._tracer import Tracer

TYPED = Path(__file__).with_name("typed.bpf.o")
KPROBE = Path(__file__).with_name("kprobe.bpf.o")
AUTO = "auto"
"""The rung that stands for the best of each hook."""
BCC = "bcc"
"""The rung that needs no types of the kernel's, and tells of attempts to connect alone."""
OWN_TYPES = Path("/sys/kernel/btf/vmlinux")
_BCC_EFFECT = "bcc tells of attempts to connect alone: no nic_to_kernel, no parts of kernel_to_user"
_LOCKDOWN = Path("/sys/kernel/security/lockdown")


class UnavailableError(NotHereError):
    """This host, or this installation, has no such probe; `remedy` says what would bring it, None: nothing does."""

    def __init__(self, reason: str, remedy: str | None) -> None:
        super().__init__(f"the kernel probe cannot run: {reason}" + (f"; {remedy}" if remedy else ""))
        self.reason = reason
        self.remedy = remedy


class ForbiddenError(UnavailableError, PermissionMissingError):
    """The host could, and this process may not."""

    exit_code = PermissionMissingError.exit_code


def load(
    selectors: Sequence[Selector],
    *,
    buffer_bytes: int,
    cgroup: int = 0,
    pids: Sequence[int] = (),
    rung: str = AUTO,
    btf: Path | None = None,
    connects_only: bool = False,
    last_resort: bool = True,
) -> Tracer:
    """The programs at work in the kernel, each hook by the best way or by `rung` alone. UnavailableError.

    `cgroup` 0: any. No `pids`: anybody's sockets. `btf`: the kernel's types where it publishes none. `connects_only`:
    attempts to connect, with the one program that they need. `last_resort`: where there are no types, and none that
    serve were given, take what bcc can tell without; it takes seconds, and a compiler's memory for as long.
    """
    if find_spec("tickpath.probes.kernel._tracer") is None or not TYPED.exists():
        raise UnavailableError(
            "this installation was built without it",
            "install clang and libbpf-dev (version 1.0 or later) and install tickpath from source",
        )
    # Imported here: the module is an optional part of an installation.
    from tickpath.probes.kernel._tracer import Tracer, config_bytes  # noqa: PLC0415

    tracer = partial(Tracer, TYPED, KPROBE, selectors, cgroup=cgroup, pids=pids, buffer_bytes=buffer_bytes)

    def by_bcc(before: UnavailableError | None) -> Tracer:
        config = config_bytes(selectors, cgroup=cgroup, pids=pids)
        with _bcc(before):
            adopted = system_bcc.attach(config, buffer_bytes=buffer_bytes)
            return tracer(only=BCC, btf=None, connects_only=True, adopted=adopted)

    if rung == BCC:
        return by_bcc(None)
    try:
        return tracer(only=None if rung == AUTO else rung, btf=btf, connects_only=connects_only)
    except OSError as error:
        explained = _explained(error, rung, btf)
    if rung != AUTO or not last_resort or isinstance(explained, ForbiddenError) or OWN_TYPES.exists():
        raise explained
    return by_bcc(explained)


@contextmanager
def _bcc(before: UnavailableError | None) -> Iterator[None]:
    """Explains what fails meanwhile; `before` says why nothing better is had."""
    if before is not None:
        structlog.get_logger().warning("no_types", reason=before.reason, remedy=before.remedy, effect=_BCC_EFFECT)
    try:
        yield
    except system_bcc.BccError as error:
        if before is None:
            raise UnavailableError(error.reason, error.remedy) from None
        remedies = [remedy for remedy in (before.remedy, error.remedy) if remedy]
        raise UnavailableError(f"{before.reason}, and {error.reason}", ", or ".join(remedies) or None) from None
    except OSError as error:
        raise _explained(error, BCC, None) from None


def _explained(error: OSError, rung: str, btf: Path | None) -> UnavailableError:
    reason = error.strerror or str(error)
    forbidden = error.errno in (errno.EPERM, errno.EACCES)
    locked = _lockdown()
    # The verifier does not know a helper that is locked: it says EINVAL.
    if locked and (forbidden or error.errno == errno.EINVAL):
        reason += f", and the kernel is locked down ({locked})"
    elif btf is not None and not forbidden:
        return UnavailableError(f"{reason}, with the types in {btf}", f"give those of kernel {os.uname().release}")
    if forbidden:
        if rung != AUTO and _is_capable():
            return ForbiddenError(reason, f"the kernel refuses {rung}: leave the rung to be chosen (--rung auto)")
        return ForbiddenError(reason, f"it needs CAP_BPF and CAP_PERFMON in the initial user namespace: {_as_root()}")
    if rung != AUTO:
        return UnavailableError(reason, f"leave the rung to be chosen (--rung auto): {rung} is not to be had")
    if error.errno == errno.ENOENT:
        return UnavailableError(reason, "run a kernel built with CONFIG_DEBUG_INFO_BTF=y, or give its types by --btf")
    return UnavailableError(reason, None)


def _is_capable() -> bool:
    """Whether this process holds CAP_BPF and CAP_PERFMON: what is refused then is refused to everybody."""
    needed = 1 << 38 | 1 << 39
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(effective.split()[1], 16) & needed == needed


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
