# SPDX-License-Identifier: Apache-2.0
"""Run by the system's Python, for a moment: has bcc compile and attach a program, and hands its descriptors over.

Arguments: number of a Unix socket, C source, folder of `tickpath/`, pages of the buffer, settings in hexadecimal. The
answer is a line of names in the order of the descriptors that come with it. This is no module of tickpath: the system's
Python may be another one, and knows nothing of the environment that tickpath is installed in.
"""

import ctypes
import os
import socket
import sys
from pathlib import Path

EVENTS = (Path("/sys/kernel/tracing/events"), Path("/sys/kernel/debug/tracing/events"))
NO_BCC = 3
ERRORS = ("sock/inet_sk_error_report", "tcp/tcp_destroy_sock")


def main() -> None:
    """Ends without a return: bcc would detach what it attached."""
    try:
        import bcc  # noqa: PLC0415
        from bcc.libbcc import lib  # noqa: PLC0415
    except ImportError:
        sys.exit(NO_BCC)

    number, source, include, pages, settings = sys.argv[1:]
    folder = Path(source).parent
    flags = ["-D__bpf__", f"-DTP_EVENTS_PAGES={pages}", f"-I{folder / 'include'}", f"-I{include}", f"-I{folder}"]
    if any(all((at / name).is_dir() for name in ERRORS) for at in EVENTS):
        flags.append("-DTP_HAS_ERRORS")
    loaded = bcc.BPF(text=Path(source).read_text(), cflags=flags)
    key, value = ctypes.c_int(0), ctypes.create_string_buffer(bytes.fromhex(settings))
    if lib.bpf_update_elem(loaded[b"settings"].map_fd, ctypes.byref(key), ctypes.byref(value), 0) != 0:
        sys.exit("its settings are not taken")
    found = {"events": loaded[b"events"].map_fd, "counters": loaded[b"counters"].map_fd}
    found |= {f"program {name.decode()}": program.fd for name, program in loaded.funcs.items()}
    found |= {f"tracepoint {name.decode()}": fd for name, fd in loaded.tracepoint_fds.items()}
    with socket.socket(fileno=int(number)) as answer:
        socket.send_fds(answer, ["\n".join(found).encode()], list(found.values()))
    os._exit(0)


if __name__ == "__main__":
    main()
