# SPDX-License-Identifier: Apache-2.0
from tickpath.ring import RingWriter

LEAST_BYTES: int
"""The least payload that a ping can have."""
MOST_BYTES: int
SPLIT_BYTES: int
"""The least payload that our own server says times of; a message of them has so many bytes."""
ASKS_TIMES: int

_Near = tuple[int, int, int, int, int, int]
"""sent_ns, received_ns (realtime), before_ns, after_ns (monotonic), bound_ns, host."""
_Far = tuple[int, int, int, int, int, int, int, int]
"""received_ns, monotonic_ns, turn_ns, nic_turn_ns, bound_ns, host, serial, source."""

def write_times(nonce: int, ordinal: int, far: _Far) -> bytes:
    """What the echo server sends behind an answer."""

def read_times(message: bytes, nonce: int) -> tuple[int, _Far]:
    """(ordinal, what it says). OSError: ENOENT, no such message of `nonce`; EBADMSG, it is one and cannot be."""

def split_of(near: _Near, far: _Far) -> tuple[int, int, int, int, int]:
    """(why, path_ns, turn_ns, out_ns, bound_ns) as in a PING_SPLIT record."""

_Address = tuple[str, int] | tuple[str, int, int, int]

class Pinger:
    """Pings its targets and writes what becomes of each into a ring. Filled anywhere, run by one thread."""

    def __init__(self, ring: RingWriter, targets: int) -> None:
        """`targets`: how many can be added."""
    def add(
        self,
        address: _Address,
        *,
        proto: int,
        name: str,
        label: str,
        source: _Address | None,
        interface: str,
        raw: bool,
        stamps: bool,
        split: bool,
        size_bytes: int,
        count: int,
        first_ns: int,
        interval_ns: int,
        jitter_ns: int,
        allowed_ns: int,
        linger_ns: int,
        slots: int,
    ) -> tuple[int, bool, bool]:
        """Open what a target needs; (row, whether its socket is raw, whether the kernel took the order for stamps).

        `address` is numeric, as getaddrinfo gives it; `source` likewise, None: the kernel's choice. `interface` empty:
        the route's. `label` is the protocol's name. `count` 0: for ever. `jitter_ns` at most `interval_ns`. `slots`:
        pings remembered, a power of two.
        Raises OSError, whose text is what failed: EACCES or EPERM (no ICMP socket may be had), ENETUNREACH, ….
        """
    def run(self, stop_fd: int) -> int:
        """Ping without the GIL. Returns 0 once `stop_fd` is readable or all counts are sent and settled.

        ESTALE: the ring's file was cut short; any other number is the errno of what failed.
        """
    def close(self) -> None: ...

class Echo:
    """Answers UDP pings, and nothing else. Raises OSError when `address` cannot be bound."""

    def __init__(self, address: _Address) -> None: ...
    @property
    def port(self) -> int: ...
    @property
    def answered(self) -> int: ...
    @property
    def ignored(self) -> int:
        """Datagrams that were no request."""
    @property
    def unsent(self) -> int:
        """Answers that the kernel would not send."""
    @property
    def told(self) -> int:
        """Answers whose times were sent after them."""
    def run(self, stop_fd: int) -> int:
        """Answer without the GIL until `stop_fd` is readable; 0, or the errno of what failed."""
