# SPDX-License-Identifier: Apache-2.0
"""`make truth`: every scenario at length, as a table and as JSON; exit code 1 when anything is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from truth.play import play
from truth.scenario import SCENARIOS
from truth.verdict import Verdict, judge

_COLUMNS = (
    "messages",
    "wrong",
    "offset",
    "explained",
    "waits",
    "copies",
    "merged",
    "mixed",
    "readable",
    "copied",
    "kernel",
    "lost",
)


def _row(verdict: Verdict) -> str:
    figures = "".join(f"{getattr(verdict, name):>10}" for name in _COLUMNS)
    share = 100 * verdict.offset / max(verdict.messages, 1)
    reasons = " ".join(f"{name}={count}" for name, count in verdict.reasons.items())
    return f"{verdict.scenario:<30}{figures}{share:>9.2f}%{verdict.seconds:>7.1f} s  {reasons}"


def main() -> int:
    """Play, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factor", type=float, default=1.0, help="times the messages of the test suite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--json", type=Path, help="file for the verdicts")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(f"{'scenario':<30}" + "".join(f"{name:>10}" for name in _COLUMNS) + f"{'by offset':>10}")
    verdicts = []
    for scenario in SCENARIOS:
        if arguments.only not in scenario.name:
            continue
        longer = scenario.scaled(arguments.factor)
        for seed in range(arguments.seed, arguments.seed + 5):
            with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
                verdict = judge(longer, play(longer, Path(directory), seed))
            if verdict.wrong or not verdict.untested:
                break
        verdicts.append(verdict)
        print(_row(verdict), flush=True)
        for complaint in verdict.complaints:
            print("    ", complaint)
        if verdict.untested:
            print("     did not happen:", ", ".join(verdict.untested))
    total = Verdict("total", seconds=sum(v.seconds for v in verdicts))
    for name in _COLUMNS:
        setattr(total, name, sum(getattr(v, name) for v in verdicts))
    print(_row(total))
    if arguments.json:
        rows = [dataclasses.asdict(verdict) for verdict in (*verdicts, total)]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if total.wrong or any(verdict.untested for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
