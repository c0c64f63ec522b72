# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

from tickpath.ring import RingWriter
from tickpath.selector import Selector

SNAP_BYTES: int
"""What is kept of a frame: all headers, hardly any payload."""

class Capture:
    """AF_PACKET on one interface, written to one ring. Made anywhere, used by one thread.

    Opened first and given its ring then, so that whoever sees the ring may rely on frames being captured.
    """

    interface: str
    def __init__(self, interface: str, ethernet: bytes, bare: bytes, selectors: Sequence[Selector]) -> None:
        """`ethernet`, `bare`: filters for frames that start with an Ethernet header, or with IP."""
    def write_to(self, ring: RingWriter, *, rows: int, netns: int) -> None:
        """Give it its ring, once; it stays the caller's. `rows`: how many it has. `netns`: inode, for its rows."""
    def open(self, *, buffer_bytes: int, block_bytes: int, hardware: bool) -> None:
        """Open the socket, unless one is open on that interface. Connections seen so far stay known.

        A socket whose interface is only down is kept: the kernel hooks it in again when it comes up.
        `block_bytes`: a multiple of the page size; `buffer_bytes`: of it. `hardware`: prefer a NIC's stamp; the NICs
        are then named with stamped_by.
        Raises OSError: EPERM (CAP_NET_RAW is missing), ENODEV, ENETDOWN, EPROTONOSUPPORT (not Ethernet nor bare IP).
        """
    def stamped_by(self, ifindex: int, phc: int, path: str, *, samples: int, every_ns: int) -> None:
        """Believe stamps of interface `ifindex` to be of PHC number `phc`, and publish readings of that clock.

        It is read from `path`, `samples` times each time, at most every `every_ns`. Raises OSError: it cannot be.
        """
    def soften(self) -> None:
        """From now on take the kernel's stamps, and read no NIC's clock."""
    def run(self, stop_fd: int) -> int:
        """Capture without the GIL. Returns 0 once `stop_fd` is readable, ENETDOWN or ENODEV when the interface went.

        ENODATA: the NICs have been found to stamp nothing; to be called again after soften().
        Any other number is the errno of what failed. After ENETDOWN the socket captures by itself as soon
        as the interface is up again, and holds it until run is called again.
        """
    def close(self) -> None: ...

def merges(interface: str) -> bool:
    """Whether GRO, LRO or the NIC's own GRO runs on it; True also where it cannot be asked."""
