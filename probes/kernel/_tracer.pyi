# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from pathlib import Path

from tickpath.ring import RingWriter
from tickpath.selector import Selector

class Tracer:
    """The BPF programs in the kernel. Made anywhere, used by one thread; gone with this object, or this process.

    Raises OSError: ENOENT (no BTF), EOPNOTSUPP (a tracepoint is missing), EPERM, and others of a failed call.
    """

    def __init__(self, object_file: Path, selectors: Sequence[Selector], *, cgroup: int, buffer_bytes: int) -> None:
        """No selectors: any peer. `cgroup`: id, 0 for any. `buffer_bytes`: a power of two, of whole pages."""
    def attach(self) -> None:
        """Let the programs run; their records wait in the buffer. Raises OSError."""
    def write_to(self, ring: RingWriter, *, rows: int) -> None:
        """Give it its ring, once; it stays the caller's. `rows`: how many it has."""
    def run(self, stop_fd: int, interval_ms: int) -> int:
        """Fetch records without the GIL until `stop_fd` is readable, detach, fetch the rest. 0, or an errno."""
    def close(self) -> None: ...
