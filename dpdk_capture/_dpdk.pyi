# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

from tickpath.ring import RingWriter
from tickpath.selector import Selector

def version() -> str:
    """Of the DPDK that is loaded."""

def start(arguments: Sequence[str]) -> None:
    """Start EAL, arguments[0] the program's name; once per process. OSError, and log_text() says why."""

def log_text() -> str:
    """The last of what EAL and the drivers said."""

def drivers() -> list[tuple[str, str, str, int, str, str]]:
    """The table: name, unit of a tick, call that reads the clock ("": none), bits, source, how verified ("": never)."""

def attach_tap(name: str, mac: bytes, mtu: int, multi_queue: bool) -> int:
    """A descriptor of the persistent TAP `name`, made where it is not there, with this address and MTU, for a Loop.

    OSError, whose text names the step: EBUSY (another process has it), EINVAL (it is no such TAP), EPERM, ENOENT.
    """

class Port:
    """One port, set up and started; close it after its loops have ended.

    OSError: ENODEV (no such port), EINVAL (queues, MTU), ENOMEM, whatever the driver said; its text is one line.
    """

    name: str
    no_stamps: str
    """Why the port's own stamps are not used although they were asked for; empty: they are, or nobody asked."""
    def __init__(
        self,
        name: str,
        *,
        queues: int,
        tx_queues: int,
        descriptors: int,
        buffers: int,
        mtu: int,
        promiscuous: bool,
        stamps: bool,
        stamp_call: str = ...,
        stamp_bits: int = ...,
    ) -> None:
        """`stamp_call`, `stamp_bits`: what reads the clock of the port's stamps, and how wide it is, for a driver that
        the table does not know."""
    @property
    def driver(self) -> str: ...
    @property
    def mac(self) -> bytes: ...
    @property
    def tx_offloads(self) -> list[str]:
        """What the port does to frames that it sends; empty unless it has queues to send."""
    @property
    def descriptors(self) -> int: ...
    @property
    def node(self) -> int:
        """NUMA node; -1: not known."""
    @property
    def device(self) -> int:
        """What stands for an ifindex in records: the interface's, or a number of its own from 2^31 on."""
    @property
    def rss(self) -> bool: ...
    @property
    def promiscuous(self) -> bool: ...
    @property
    def stamped(self) -> bool:
        """Whether the port's own stamps are used."""
    @property
    def offloads(self) -> list[str]: ...
    @property
    def refused_offloads(self) -> list[str]: ...
    def count(self) -> tuple[int, int, int, int, bool]:
        """Received, missed, errors, sent, link up: the port's own counts; losses go to the first loop's ring."""
    def close(self) -> None: ...

class Loop:
    """The poll loop of one queue, which writes to one ring. Made anywhere, run by one thread.

    `rows`: how many the ring has. The ring and the port stay the caller's and must outlive run(). `tap`, from
    attach_tap, is the loop's own from then on; -1: frames end in the loop. Call close() before the port's.
    """

    queue: int
    def __init__(
        self,
        port: Port,
        ring: RingWriter,
        selectors: Sequence[Selector],
        *,
        queue: int,
        burst: int,
        idle_sleep_us: int,
        rows: int,
        tap: int = -1,
    ) -> None: ...
    def run(self) -> int:
        """Poll without the GIL until stop() is called: 0, or the errno of what failed.

        ESTALE: the ring was cut; EBADFD: the TAP was removed.
        """
    def stop(self) -> None:
        """From any thread."""
    def close(self) -> None:
        """After run() has ended: give the TAP up. It stays."""
