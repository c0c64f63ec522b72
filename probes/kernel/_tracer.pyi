# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tickpath.ring import RingWriter
from tickpath.selector import Selector

MODES: tuple[str, ...]
"""Ways to attach, best first; "none" is not one."""

class Adopted(Protocol):
    """Descriptors of what bcc attached."""

    @property
    def events(self) -> int: ...
    @property
    def counters(self) -> int: ...
    @property
    def programs(self) -> Sequence[int]:
        """Of which the cost of two can be told."""
    @property
    def tracepoints(self) -> Sequence[int]: ...

def config_bytes(selectors: Sequence[Selector], *, cgroup: int, pids: Sequence[int]) -> bytes:
    """`struct tp_kernel_config`."""

class Tracer:
    """The BPF programs in the kernel. Made anywhere, used by one thread; gone with this object, or this process.

    They run from the start, and their records wait in the buffer.

    Raises OSError: ENOENT (no BTF), EOPNOTSUPP (a hook is missing), EPERM, and others of a failed call.
    """

    def __init__(
        self,
        typed: Path,
        kprobe: Path,
        selectors: Sequence[Selector],
        *,
        cgroup: int,
        pids: Sequence[int],
        buffer_bytes: int,
        only: str | None,
        btf: Path | None,
        connects_only: bool = False,
        adopted: Adopted | None = None,
    ) -> None:
        """The two object files. No selectors: any peer. `cgroup`: id, 0 for any. No pids: anybody's.

        `buffer_bytes`: a power of two, of whole pages. `only`: the one mode that may be used; None: the best.
        `btf`: the kernel's types where it publishes none. `connects_only`: attempts to connect, and nothing else.
        `adopted`: what is attached already, in place of all of these; its descriptors are taken over.
        """
    @property
    def modes(self) -> dict[str, str]:
        """How each hook is attached: one of MODES, or "none"."""
    @property
    def refusals(self) -> dict[str, str]:
        """Why the best way of a hook could not be had, one line; of those where it could not."""
    def claim(self, socket_fd: int) -> None:
        """Make a socket, open here too, one of a wanted process's. Raises OSError."""
    def count_cost(self) -> None:
        """Have the kernel time its BPF programs, all of the host's, until this is closed. OSError: EPERM."""
    @property
    def costs(self) -> dict[str, tuple[int, int]]:
        """Of each hook's programs, while their time was counted: (nanoseconds, runs)."""
    def write_to(self, ring: RingWriter, *, rows: int) -> None:
        """Give it its ring, once; it stays the caller's. `rows`: for connections, one less than it has."""
    def run(self, stop_fd: int, interval_ms: int) -> int:
        """Fetch records without the GIL until `stop_fd` is readable, detach, fetch the rest. 0, or an errno."""
    def close(self) -> None: ...
