# SPDX-License-Identifier: Apache-2.0
"""Control messages of recvmsg: timestamps in every form that a kernel hands out, and what comes of the error queue.

`parse(control)` takes the control bytes of one recvmsg and returns `(sw_ns, hw_ns)`: the software stamp (realtime) and
the raw hardware stamp (the NIC's clock), in nanoseconds, 0 where none came. InputError where a message's length is
impossible. `parse_control(control)` reads everything that a datagram socket says beside the bytes: stamps
(SO_TIMESTAMPNS, too), the index of the NIC that stamped (0: not said), TTL or hop limit (None: not said), and what the
error queue holds: errno, origin, ICMP type and code, info and data (of a stamp: its moment and the packet's number),
and who said so, 16 bytes, IPv4 mapped, zeros where it is not known; None: no error. `CONTROL_BYTES` is the size to hand
to recvmsg, anew for every call.
"""

from tickpath._stamps import (
    CONTROL_BYTES,
    SO_TIMESTAMPING_NEW,
    SO_TIMESTAMPING_OLD,
    Control,
    ExtendedError,
    parse,
    parse_control,
)

__all__ = [
    "CONTROL_BYTES",
    "SO_TIMESTAMPING_NEW",
    "SO_TIMESTAMPING_OLD",
    "Control",
    "ExtendedError",
    "parse",
    "parse_control",
]
