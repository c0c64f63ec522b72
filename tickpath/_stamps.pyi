# SPDX-License-Identifier: Apache-2.0
from typing import Final

SO_TIMESTAMPING_OLD: Final[int]
SO_TIMESTAMPING_NEW: Final[int]
CONTROL_BYTES: Final[int]

def parse(control: bytes | bytearray | memoryview) -> tuple[int, int]: ...
