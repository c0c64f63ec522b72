# SPDX-License-Identifier: Apache-2.0
"""Timestamp control messages of recvmsg, read in every form that a kernel hands out.

`parse(control)` takes the control bytes of one recvmsg and returns `(sw_ns, hw_ns)`: the software stamp (realtime) and
the raw hardware stamp (the NIC's clock), in nanoseconds, 0 where none came. InputError where a message's length is
impossible. `CONTROL_BYTES` is the size to hand to recvmsg, anew for every call.
"""

from tickpath._stamps import CONTROL_BYTES, SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD, parse

__all__ = ["CONTROL_BYTES", "SO_TIMESTAMPING_NEW", "SO_TIMESTAMPING_OLD", "parse"]
