# SPDX-License-Identifier: Apache-2.0
"""Runs a command in a guest, in a copy of this checkout: python -P tests/vm/run.py --kernel 6.1 -- uname -r"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from vm.guest import GuestError, payload, quoted, run
from vm.images import KERNELS, ImageError


def _show(words: bytes) -> None:
    sys.stdout.buffer.write(words)
    sys.stdout.buffer.flush()


def main() -> int:
    """Boot, run, print; the command's exit code, or 125 when the guest did not come to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=KERNELS, default="6.12")
    parser.add_argument("--append", default="", help="words for the kernel's command line")
    parser.add_argument("--cable", action="store_true", help="with two NICs, one for vfio-pci, on one cable")
    parser.add_argument("--timeout", type=float, default=600, help="seconds until the guest is ended")
    parser.add_argument("--results", type=Path, help="folder for what the command leaves in /results, and the console")
    parser.add_argument("command", nargs="+", help="what to run: a line for sh, or words")
    arguments = parser.parse_args()
    # An end by word runs the finally clauses: they end the guest and remove its disks.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="tickpath-vm-") as temporary:
        disk = Path(temporary) / "payload.ext4"
        folder = arguments.results or Path(temporary) / "guest"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            payload(disk)
            ended = run(
                KERNELS[arguments.kernel],
                quoted(arguments.command),
                folder,
                payload=disk,
                timeout_s=arguments.timeout,
                append=arguments.append,
                cable=arguments.cable,
                listen=_show,
            )
        except (GuestError, ImageError) as error:
            print(f"tickpath vm: {error}", file=sys.stderr)
            return 125
    print(f"tickpath vm: {arguments.kernel}: exit code {ended.status} after {ended.seconds:.0f} s", file=sys.stderr)
    return ended.status


if __name__ == "__main__":
    sys.exit(main())
