# SPDX-License-Identifier: Apache-2.0
"""`make ping`: pingers side by side over the truth wire, idle and under load; exit code 1 where tickpath said wrong."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ping.beside import Beside, compare, counts, wrong

_HEAD = ("", "no answer", "late", "double", "P50 us", "over held", "P99 us", "over held")


def _row(of: Beside) -> dict[str, Any]:
    truth = counts(of)
    never = of.said.lost - (of.said.late or 0)
    return {
        "pinger": of.pinger.name,
        "lost": of.said.lost,
        "no_answer": never,
        "late": of.said.late,
        "double": of.said.double,
        "truth": dict(truth),
        "p50_ns": of.rtt_quantile_ns(0.5),
        "p99_ns": of.rtt_quantile_ns(0.99),
        "over_p50_ns": of.over_ns(0.5),
        "over_p99_ns": of.over_ns(0.99),
        "held_p50_ns": of.held_quantile_ns(0.5),
        "held_p99_ns": of.held_quantile_ns(0.99),
    }


def _line(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<16}" + "".join(f"{cell:>14}" for cell in cells[1:])


def _beside(said: int | None, true: int) -> str:
    return f"{'-' if said is None else said} of {true}"


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="pings of each")
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between them")
    parser.add_argument("--loops", type=int, default=2 * (os.cpu_count() or 1), help="busy processes under load")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    failed, report = 0, {}
    for name, loops in (("idle", 0), (f"{arguments.loops} busy loops", arguments.loops)):
        found = compare(arguments.count, arguments.interval, loops)
        report[name] = [_row(of) for of in found]
        print(f"\n{name}: {arguments.count} pings of each, what it said of what there was")
        print(_line(_HEAD))
        for of, row in zip(found, report[name], strict=True):
            truth = row["truth"]
            never = row["lost"] if row["late"] is None else row["no_answer"]
            cells = [_beside(never, truth["gone"]), _beside(row["late"], truth["late"])]
            cells += [_beside(row["double"], truth["double"])]
            cells += [f"{row[key] / 1e3:.1f}" for key in ("p50_ns", "over_p50_ns", "p99_ns", "over_p99_ns")]
            print(_line((of.pinger.name, *cells)), flush=True)
        held = report[name][0]
        print(
            _line(
                (
                    "the shuttle",
                    "",
                    "",
                    "",
                    f"{held['held_p50_ns'] / 1e3:.1f}",
                    "",
                    f"{held['held_p99_ns'] / 1e3:.1f}",
                    "",
                )
            )
        )
        for what in wrong(found[0], arguments.count):
            print(f"tickpath ping is WRONG: {what}")
            failed = 1
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
