# SPDX-License-Identifier: Apache-2.0
"""Ring: records a second from one process to another, and what is lost at half the promised rate."""

from __future__ import annotations

import os
from functools import partial

from tickpath.lab.bench._bench import Passed, pass_records
from tickpath.lab.bench.measure import alternate, repeat
from tickpath.lab.bench.row import Group, Row, Settings, Verdict

BAR_PER_S = 30e6
_CAPACITY = 1 << 16  # what a ring of ours has unless told otherwise
_TITLES = (
    Row(name="ring", what="ring: records received by a reader process", unit="M/s", bar=">= 30"),
    Row(name="ring_restless", what="ring: the same, the reader asking without rest", unit="M/s"),
    Row(name="ring_half_rate", what="ring: records lost at 15 M/s", unit="records", bar="= 0"),
)
_PAST_BY = "a bare array of lines"


def _cpus() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (-1, -1)


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    writer, reader = _cpus()
    duration_ns = 20_000_000 if settings.quick else 150_000_000
    runs: list[Passed] = []

    def passing(*, ring: bool, rate: int = 0, restless: bool = False) -> Passed:
        passed = pass_records(
            settings.folder / "bench.ring" if ring else None,
            capacity=_CAPACITY,
            duration_ns=duration_ns,
            rate=rate,
            writer_cpu=writer,
            reader_cpu=reader,
            restless=restless,
            real_time=True,
        )
        runs.append(passed)
        return passed

    def per_s(*, ring: bool, restless: bool = False) -> float:
        passed = passing(ring=ring, restless=restless)
        return passed.received / (passed.elapsed_ns * 1e-9)

    for name, restless in (("ring", False), ("ring_restless", True)):
        pairs = alternate(
            partial(per_s, ring=True, restless=restless),
            partial(per_s, ring=False, restless=restless),
            settings.effort(least=10, most=40, budget_s=9, width=0.03),
        )
        rows[name].compared(pairs, _PAST_BY, 1e-6)
    ring = rows["ring"]
    ring.judge((ring.value or 0) * 1e6 >= BAR_PER_S)
    if ring.verdict is Verdict.FAIL and (ring.yardstick_value or 0) * 1e6 < BAR_PER_S:
        ring.verdict = Verdict.HOST
        ring.note = "bare lines do not pass any faster between these cores at this time"

    half = rows["ring_half_rate"]
    slow = 0

    def lost() -> float:
        nonlocal slow
        passed = passing(ring=True, rate=int(BAR_PER_S) // 2)
        slow += passed.received < 0.98 * BAR_PER_S / 2 * passed.elapsed_ns * 1e-9
        return passed.lost

    losses = repeat(lost, settings.effort(least=10, most=10, budget_s=5))
    half.measured(losses)
    half.judge(sum(losses) == 0)
    half.value = sum(losses)
    if half.verdict is Verdict.FAIL and not all(run.real_time for run in runs):
        half.verdict = Verdict.HOST
        half.note = "the reader had to share its core, for SCHED_FIFO is not permitted: run as root"
    elif slow:
        half.verdict = Verdict.HOST
        half.note = f"{slow} of {len(losses)} runs did not reach the rate: see the bare lines above"
    wrong = sum(run.wrong for run in runs)
    if wrong:
        half.judge(False)
        half.note = f"{wrong} records were torn"


GROUP = Group("ring", _TITLES, _run)
