# SPDX-License-Identifier: Apache-2.0
"""A BPF program that does nothing, on a typed tracepoint: what the kernel's own part of any program's time is."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tickpath.errors import TickpathError

# include/uapi/linux/bpf.h
_TRACING, _TRACE_RAW_TP = 26, 23
# r0 = 0; exit
_NOTHING = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])


class _Options(ctypes.Structure):
    """The beginning of struct bpf_prog_load_opts (bpf/bpf.h, libbpf 1.0); it says its size itself."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
    )


def _checked(fd: int, what: str) -> int:
    if fd < 0:
        raise TickpathError(f"{what}: {os.strerror(-fd)}")
    return fd


class EmptyProgram:
    """Attached while the context lasts. TickpathError where it cannot be."""

    def __init__(self, tracepoint: str) -> None:
        try:
            self._libbpf = ctypes.CDLL("libbpf.so.1")
        except OSError as error:
            raise TickpathError(str(error)) from None
        self._tracepoint = tracepoint
        self._fds: list[int] = []

    def __enter__(self) -> Self:
        name = self._tracepoint.encode()
        found = self._libbpf.libbpf_find_vmlinux_btf_id(name, _TRACE_RAW_TP)
        options = _Options(expected_attach_type=_TRACE_RAW_TP, attach_btf_id=_checked(found, self._tracepoint))
        options.size = ctypes.sizeof(options)
        load = self._libbpf.bpf_prog_load
        self._fds.append(
            _checked(load(_TRACING, b"tp_nothing", b"GPL", _NOTHING, 2, ctypes.byref(options)), "loading nothing")
        )
        attached = self._libbpf.bpf_raw_tracepoint_open(None, self._fds[0])
        self._fds.append(_checked(attached, f"attaching to {self._tracepoint}"))
        return self

    @property
    def cost(self) -> tuple[int, int]:
        """(nanoseconds, runs), while the kernel counts them."""
        told = Path(f"/proc/self/fdinfo/{self._fds[0]}").read_text().splitlines()
        known = dict(line.split(":", 1) for line in told if ":" in line)
        return int(known["run_time_ns"]), int(known["run_cnt"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in reversed(self._fds):
            os.close(fd)
