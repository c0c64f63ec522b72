# SPDX-License-Identifier: Apache-2.0
def fill(pool: str, frames: list[bytes]) -> None:
    """Write frames, all of one length, into the pool's buffers in turns; net_null hands them out as received.

    OSError ENOENT."""

def run(port: str, step: str, duration_ns: int) -> tuple[int, int]:
    """Frames and ns of CPU: "burst" receives and frees, "stamp" reads the clocks once a burst, "parse" parses."""

class Pace:
    """Frames of the port come at a rate from now on, until end(). No loop may poll while it begins or ends."""

    def __init__(self, port: str, frames_per_s: float) -> None: ...
    def end(self) -> None: ...
    def quantile_ns(self, q: float) -> int:
        """From when the oldest frame of a burst was due until the loop asked for the next burst."""
    @property
    def frames(self) -> int: ...
    @property
    def late(self) -> int:
        """Bursts that left frames waiting."""
