# SPDX-License-Identifier: Apache-2.0
"""io_uring by its system calls alone: one request at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from types import TracebackType
from typing import Self

_SETUP, _ENTER, _GET_EVENTS, _RECV = 425, 426, 1, 27
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000
ASYNC = 1 << 4  # IOSQE_ASYNC: by a worker thread, at once
_libc = ctypes.CDLL(None, use_errno=True)


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Uring:
    """A ring of one entry. OSError where it is forbidden or not there."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = _called(_libc.syscall(_SETUP, 1, parameters))
        self._sq = struct.unpack_from("<7I", parameters, 40)  # head tail mask entries flags dropped array
        self._cq = struct.unpack_from("<6I", parameters, 80)  # head tail mask entries overflow cqes
        self._requests = mmap.mmap(self._fd, 4096, offset=_SQ_RING)
        self._answers = mmap.mmap(self._fd, 4096, offset=_CQ_RING)
        self._entry = mmap.mmap(self._fd, 4096, offset=_SQES)

    def recv(self, fd: int, size: int, flags: int = 0) -> int:
        """How many bytes one IORING_OP_RECV had; `flags` are of the request. OSError as recv()."""
        into = ctypes.create_string_buffer(size)
        self._entry[:64] = struct.pack("<BBHiQQI36x", _RECV, flags, 0, fd, 0, ctypes.addressof(into), size)
        (tail,) = struct.unpack_from("<I", self._requests, self._sq[1])
        struct.pack_into("<I", self._requests, self._sq[6], 0)
        struct.pack_into("<I", self._requests, self._sq[1], tail + 1)
        _called(_libc.syscall(_ENTER, self._fd, 1, 1, _GET_EVENTS, None, 0))
        (head,) = struct.unpack_from("<I", self._answers, self._cq[0])
        at = self._cq[5] + (head & struct.unpack_from("<I", self._answers, self._cq[2])[0]) * 16
        (result,) = struct.unpack_from("<i", self._answers, at + 8)
        struct.pack_into("<I", self._answers, self._cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mapping in (self._requests, self._answers, self._entry):
            mapping.close()
        os.close(self._fd)
