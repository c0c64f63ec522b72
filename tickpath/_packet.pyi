# SPDX-License-Identifier: Apache-2.0
"""Types of the native module; the public name is tickpath.packet."""

from typing import Any, Final

TRUNCATED_ETHERNET: Final[int]
TRUNCATED_VLAN: Final[int]
TRUNCATED_IP: Final[int]
TRUNCATED_TCP: Final[int]
NOT_IP: Final[int]
NOT_TCP: Final[int]
FRAGMENT: Final[int]
MALFORMED_IP: Final[int]
MALFORMED_TCP: Final[int]
TOO_DEEP: Final[int]
CHECKSUM_UNKNOWN: Final[int]
CHECKSUM_GOOD: Final[int]
CHECKSUM_BAD: Final[int]

def parse(
    frame: bytes | bytearray | memoryview, ethertype: int | None, original_bytes: int
) -> int | tuple[Any, ...]: ...
