# SPDX-License-Identifier: Apache-2.0
"""What must be true of every message, out of the shuttle's log and the server's own; shares no code with the product.

It is as naive as can be: an array with one entry per byte of a connection says in which frame the byte first came.
Sequence numbers need no unwrapping, for no stream here is as long as 4 GiB.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

TO_CLIENT = 0
FORWARDED, CORRUPTED = 1, 4
SYN = 0x02
_NEVER = -1


@dataclass(frozen=True)
class Expected:
    """One message. `own`, `in_order` and `copies` are places in the log; -1: no frame brought the byte."""

    end: int
    seq: int
    """Raw, of the byte before the message end."""
    own: int
    in_order: int
    copies: tuple[int, ...]
    """Every frame that brought the byte before the message end, own arrival first."""

    @property
    def waits(self) -> bool:
        """Whether bytes before it came only after its own."""
        return self.in_order != self.own


class Stream:
    """One TCP connection, from the server to the client, by its frames: places in the log."""

    def __init__(self, log: Any, isn: int, frames: list[int]) -> None:
        self.isn = isn
        self._log = log
        self._frames = frames
        begins = (log["seq"][frames].astype(np.int64) - isn - 1) % (1 << 32)
        ends = begins + log["payload_bytes"][frames]
        self._begins, self._ends = begins, ends
        self.bytes = int(ends.max(initial=0))
        self.first = np.full(self.bytes, _NEVER, np.int64)
        for place, begin, end in zip(frames, begins, ends, strict=True):
            window = self.first[begin:end]
            window[window == _NEVER] = place
        # A byte that never came makes all behind it unreachable.
        whole = np.where(self.first == _NEVER, len(log), self.first)
        self.until = np.maximum.accumulate(whole)

    def arrivals(self, begin: int, end: int) -> list[int]:
        """The frames in which bytes of [begin, end) first came."""
        return sorted(set(self.first[begin:end].tolist()))

    def expected(self, end: int) -> Expected | None:
        """The message that ends at `end`; None when some byte of it or before never came."""
        if end > self.bytes or self.until[end - 1] == len(self._log):
            return None
        holding = np.flatnonzero((self._begins <= end - 1) & (self._ends > end - 1))
        return Expected(
            end=end,
            seq=(self.isn + end) % (1 << 32),
            own=int(self.first[end - 1]),
            in_order=int(self.until[end - 1]),
            copies=tuple(self._frames[at] for at in holding),
        )


def streams(log: Any) -> dict[int, list[Stream]]:
    """Every connection of the log by the client's port, in the order of their handshakes."""
    to_client = (log["direction"] == TO_CLIENT) & (log["version"] != 0)
    arrived = to_client & (log["fate"] & FORWARDED != 0) & (log["fate"] & CORRUPTED == 0)
    begun: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for place in np.flatnonzero(arrived):
        port, seq = int(log["destination_port"][place]), int(log["seq"][place])
        of_port = begun[port]
        if log["tcp_flags"][place] & SYN:
            if not of_port or of_port[-1][0] != seq:
                of_port.append((seq, []))
        elif log["payload_bytes"][place] and of_port:
            of_port[-1][1].append(int(place))
    return {port: [Stream(log, isn, frames) for isn, frames in of_port] for port, of_port in begun.items()}
