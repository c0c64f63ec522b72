# SPDX-License-Identifier: Apache-2.0
"""`make blame`: every stall at length: which part moved, and which did not; exit code 1 when anything else moved."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from blame.compare import Moved, compare
from blame.play import STALLS, Stall, play


def _row(stall: Stall, moved: Moved) -> str:
    guilty = moved.part is stall.part
    right = moved.has(stall.ns) if guilty else moved.stays(stall.ns)
    verdict = "WRONG" if not right else "moved" if guilty else "stays"
    ratio = f"{moved.low:8.3f} … {moved.high:<8.3f}" if moved.off_ns else f"{'':19}"
    return f"  {moved.part.name.lower():<12}{moved.off_ns / 1e3:>10.2f}{moved.on_ns / 1e3:>10.2f}  {ratio} {verdict}"


def main() -> int:
    """Play, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=4000, help="of each stall, half of them stalled")
    parser.add_argument("--stall-us", type=int, default=200)
    parser.add_argument("--only", default="", help="stalls whose part's name contains this")
    arguments = parser.parse_args()
    wrong = 0
    print(f"{'median, us':<14}{'off':>10}{'on':>10}  {'on/off, 99 %':>15}")
    for known in STALLS:
        stall = Stall(known.part, arguments.stall_us * 1000)
        if arguments.only not in stall.part.name.lower():
            continue
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            joined = play(stall, Path(directory), arguments.messages)
        print(f"{stall.ns // 1000} us put into {stall.part.name.lower()}; {len(joined)} messages")
        for moved in compare(joined):
            row = _row(stall, moved)
            wrong += row.endswith("WRONG")
            print(row, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
