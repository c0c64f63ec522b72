# SPDX-License-Identifier: Apache-2.0
"""The right to look into other processes, which names the owner of a NIC, given up before a frame is read."""

from __future__ import annotations

import ctypes
import os

import structlog

_VERSION_3 = 0x20080522
_SYS_PTRACE = 1 << 19


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def forgo() -> None:
    """Drop CAP_SYS_PTRACE from the calling thread and all that it starts, where it is there.

    What parses frames from outside shall not be able to read the memory of others. With no_new_privs, as in a container
    of compose.yaml, no program that it executes has it again.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), data) == 0:
        for field in ("effective", "permitted", "inheritable"):
            setattr(data[0], field, getattr(data[0], field) & ~_SYS_PTRACE)
        if libc.capset(ctypes.byref(header), data) == 0:
            return
    structlog.get_logger().warning("rights", kept="CAP_SYS_PTRACE", reason=os.strerror(ctypes.get_errno()))
