# SPDX-License-Identifier: Apache-2.0
"""Has a BPF program stand still amid a record of a tracer's buffer, ahead of whatever is told behind it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from native import ROOT, unsanitized
from wire.capturing import wait_until

_SOURCE = Path(__file__).with_name("holding.bpf.c")
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF


def compiled(folder: Path) -> Path:
    """The program's object file."""
    made = folder / "holding.bpf.o"
    multiarch = subprocess.run(
        ["cc", "-print-multiarch"], capture_output=True, text=True, check=True, env=unsanitized()
    ).stdout.strip()
    include = [f"-I{ROOT}", *([f"-I/usr/include/{multiarch}"] if multiarch else [])]
    flags = ["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["clang", *flags, *include, "-c", _SOURCE, "-o", made], check=True, env=unsanitized())
    return made


def _buffer() -> int:
    """A descriptor of the one BPF ring buffer that this process has."""
    said = {entry.name: entry.read_text() for entry in Path("/proc/self/fdinfo").iterdir() if entry.exists()}
    return next(int(name) for name, text in said.items() if re.search(rf"^map_type:\s*{_RINGBUF}$", text, re.MULTILINE))


def _libbpf() -> ctypes.CDLL:
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in ("bpf_object__open", "bpf_object__find_map_by_name", "bpf_object__find_program_by_name"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


@contextlib.contextmanager
def _loaded(program: Path, buffer: int) -> Iterator[int]:
    """Its descriptor; it writes to that buffer."""
    libbpf = _libbpf()
    opened = ctypes.c_void_p(libbpf.bpf_object__open(os.fsencode(program)))
    try:
        events = ctypes.c_void_p(libbpf.bpf_object__find_map_by_name(opened, b"events"))
        assert libbpf.bpf_map__reuse_fd(events, buffer) == 0
        assert libbpf.bpf_object__load(opened) == 0, os.strerror(ctypes.get_errno())
        found = ctypes.c_void_p(libbpf.bpf_object__find_program_by_name(opened, b"tp_hold"))
        yield int(libbpf.bpf_program__fd(found))
    finally:
        libbpf.bpf_object__close(opened)


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@contextlib.contextmanager
def held(program: Path, seconds: float) -> Iterator[None]:
    """From now on, for so long, a record is held in the buffer of this process's tracer."""
    buffer = _buffer()
    for_ns = ctypes.c_uint64(int(seconds * 1e9))
    ran: list[tuple[int, int]] = []
    with (
        _loaded(program, buffer) as fd,
        mmap.mmap(buffer, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE) as page,
    ):

        def run() -> None:
            options = _TestRun(sz=ctypes.sizeof(_TestRun), ctx_in=ctypes.addressof(for_ns), ctx_size_in=8)
            error = _libbpf().bpf_prog_test_run_opts(fd, ctypes.byref(options))
            ran.append((error, options.retval))

        before = page[:8]  # how many bytes were ever handed out of it
        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_until(lambda: page[:8] != before or bool(ran), what="a record")
            yield
        finally:
            thread.join()
    assert ran == [(0, 0)]
