# SPDX-License-Identifier: Apache-2.0
from typing import Final, NamedTuple

SO_TIMESTAMPING_OLD: Final[int]
SO_TIMESTAMPING_NEW: Final[int]
CONTROL_BYTES: Final[int]

class ExtendedError(NamedTuple):
    number: int
    origin: int
    type: int
    code: int
    info: int
    data: int
    offender: bytes

class Control(NamedTuple):
    sw_ns: int
    hw_ns: int
    ifindex: int
    hops: int | None
    error: ExtendedError | None

def parse(control: bytes | bytearray | memoryview) -> tuple[int, int]: ...
def parse_control(control: bytes | bytearray | memoryview) -> Control: ...
