# SPDX-License-Identifier: Apache-2.0
from typing import Final

RECORD: Final[dict[str, tuple[int, str]]]
RECORD_BYTES: Final[int]
HEADER_BYTES: Final[int]
DIRECTION: Final[dict[str, int]]
FATE: Final[dict[str, int]]

def frame_hash(frame: bytes | memoryview) -> int:
    """The hash under which the log knows these bytes of a frame (from its destination address on)."""
